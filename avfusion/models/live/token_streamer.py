"""Text as it is generated, from a call that only returns when it is over."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from transformers import TextStreamer


class _StoppedError(Exception):
    """Ends a generation that nobody listens to any more."""


class _TokenStreamer(TextStreamer):
    """Hands each piece of text over, and lets the generation go on when the next one is asked for."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.asked, self.given = threading.Semaphore(0), threading.Semaphore(0)
        self.piece: str | None = None
        self.stopped = False
        self.error: BaseException | None = None

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if not text:
            return
        self.piece = text
        self.given.release()
        self.wait()

    def wait(self) -> None:
        self.asked.acquire()
        if self.stopped:
            raise _StoppedError

    def run(self, generate: Callable[[Any], object], settings: Callable[[], AbstractContextManager[Any]]) -> None:
        try:
            self.wait()
            with settings():
                generate(self)
        except _StoppedError:
            pass
        except BaseException as error:  # is raised where the text is read  # noqa: BLE001
            self.error = error
        self.piece = None
        self.given.release()


def stream_text(generate: Callable[[Any], object], tokenizer: Any, device: torch.device) -> Iterator[str]:
    """The text that ``generate(streamer)`` makes, piece by piece.

    It runs in a thread of its own, but only while the next piece is waited for: never beside the caller. Closing the
    iterator, or letting go of it, ends it.

    Args:
        generate: transformers' ``generate`` with all but its streamer.
        tokenizer: decodes.
        device: of the language model.
    """
    streamer = _TokenStreamer(tokenizer)
    settings = _settings(device)
    thread = threading.Thread(target=streamer.run, args=(generate, settings), daemon=True)
    thread.start()
    try:
        while True:
            streamer.asked.release()
            streamer.given.acquire()
            if streamer.piece is None:
                break
            yield streamer.piece
    finally:
        streamer.stopped = True
        streamer.asked.release()
        thread.join()
    if streamer.error is not None:
        raise streamer.error


def _settings(device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Puts another thread under what torch holds for this one alone."""
    kind = device.type
    autocast, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    inference = torch.is_inference_mode_enabled()
    stream = torch.cuda.current_stream(device) if kind == "cuda" else None

    def enter() -> AbstractContextManager[Any]:
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(inference))
        stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=autocast))
        if stream is not None:
            stack.enter_context(torch.cuda.stream(stream))
        return stack

    return enter
