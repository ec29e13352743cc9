"""``python -m examples.live``: a model watches a file, a camera or a stream, and is asked meanwhile."""

import argparse
import contextlib
import queue
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from transformers.utils import logging

from avfusion import InvalidTypeError, InvalidValueError
from avfusion.media import NetworkStream, open_live
from examples.favor.chat import add_model_arguments
from examples.live.demo import Film, write_film
from examples.live.models import LiveModel, load_live
from examples.live.watching import Seen, Watcher, lines
from examples.tiny_avllm.__main__ import OUT


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.live", description="Watches, listens, and answers.")
    add_model_arguments(parser)
    add = parser.add_argument
    add("--source", required=True, help="a file, an address, a device, - for standard input, or demo: a film")
    add("--format", help="of a device, or of what does not tell its own: v4l2, alsa, mpegts, …")
    add("--audio-source", help="a separate source of the audio, such as a microphone")
    add("--audio-format", help="its format")
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="for FFmpeg, such as video_size=640x480")
    add("--ask", metavar="TEXT", help="a question; of a demo, about what was just seen without it")
    add("--every", type=float, metavar="S", help="ask again and again, after so many seconds; at the end without it")
    add("--interactive", action="store_true", help="answer the questions that are typed")
    add("--on-lag", choices=["skip", "slow", "wait"], default="skip", help="when the model is too slow (skip)")
    add("--max-lag", type=float, default=2.0, metavar="S", help="seconds that it may be behind (2)")
    add("--chunk", type=float, default=0.5, metavar="S", help="seconds that are watched at once (0.5)")
    add("--remember", type=float, metavar="S", help="seconds that are remembered (120; tiny: 2)")
    add("--fast", action="store_true", help="do not wait for the clock: a file as fast as it can be watched")
    add("--seconds", type=float, default=20.0, metavar="S", help="that a demo lasts (20)")
    add("--tiny", type=Path, default=OUT, metavar="DIR", help=f"where the tiny model is trained ({OUT})")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with tempfile.TemporaryDirectory() as folder:
            film = write_film(Path(folder) / "film.mp4", seconds=options.seconds) if options.source == "demo" else None
            Show(options, load_live(options), film).run()
    except (InvalidValueError, InvalidTypeError, OSError) as error:
        print(str(error).splitlines()[0] if str(error) else repr(error), file=sys.stderr)
        return 2
    return 0


class Show:
    """Watching in one thread, answering in another, and typing in the main one."""

    def __init__(self, options: argparse.Namespace, model: LiveModel, film: Film | None) -> None:
        self.options, self.model, self.film = options, model, film
        self.questions: queue.Queue[tuple[str, str | None] | None] = queue.Queue()  # each with the truth, if known
        self.printing = threading.Lock()
        self.next = options.every or 0.0
        self.right = self.known = self.asked = 0
        self.failed: BaseException | None = None

    def run(self) -> None:
        options = self.options
        source = open_live(
            self.film.path if self.film is not None else _source(options.source),
            format=options.format,
            options=dict(_pair(text) for text in options.option),
            audio_source=None if options.audio_source is None else _source(options.audio_source),
            audio_format=options.audio_format,
            chunk_seconds=options.chunk,
            realtime=False if options.fast else None,
            on_lag=options.on_lag,
            max_lag=options.max_lag,
            **self.model.media,
        )
        with source, Watcher(self.model.session(), source, self.tell) as watcher:
            answering = threading.Thread(target=self.answer_all, args=[watcher], daemon=True)
            answering.start()
            with contextlib.suppress(KeyboardInterrupt):
                for line in sys.stdin if options.interactive else ():
                    self.questions.put((line.strip(), None))
                watcher.wait()
            if options.every is None and not options.interactive:
                self.questions.put(self.question())
            self.questions.put(None)
            answering.join()
            if self.failed is not None:
                raise self.failed
        if self.known:
            self.print(f"{self.right} of {self.known} answers are right")

    def tell(self, seen: Seen) -> None:
        """Prints what a chunk led to, and asks if it is time to; in the thread that watches."""
        for line in lines(seen):
            self.print(line)
        every, now = self.options.every, seen.watched.watermark
        if every is not None and now >= self.next:
            self.next = now + every
            self.questions.put(self.question(now))

    def question(self, now: float | None = None) -> tuple[str, str | None] | None:
        if self.options.ask is not None:
            return self.options.ask, None
        if self.film is None:
            return None
        self.asked += 1  # about what is one, two, three half seconds ago, in turn
        return self.film.question(self.options.seconds if now is None else now, back=self.asked % 3 + 1)

    def answer_all(self, watcher: Watcher) -> None:
        for question, truth in iter(self.questions.get, None):
            try:
                self.answer(watcher, question, truth)
            except (InvalidValueError, InvalidTypeError) as error:
                self.print(str(error))
            except Exception as error:  # noqa: BLE001  # raised in the main thread
                self.failed = error
                return

    def answer(self, watcher: Watcher, question: str, truth: str | None) -> None:
        if not question:
            return
        answer = "".join(watcher.ask(self.model.asked(question), **self.model.answers)).strip()
        self.known += truth is not None
        self.right += answer == truth
        self.print(f"> {question}\n  {answer or '(an empty answer)'}{'' if truth is None else f'   (truth: {truth})'}")

    def print(self, text: str) -> None:
        with self.printing:
            print(text, flush=True)


def _source(text: str) -> str | NetworkStream:
    """An address where the command names one; it is the command's user who asks for it."""
    return NetworkStream(text) if "://" in text else text


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise InvalidValueError(f"option: must be NAME=VALUE, found {text!r}")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
