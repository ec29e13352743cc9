"""The model in the benchmark: ``python -m avfusion.aveb run --model examples.favor.aveb:load``."""

from collections.abc import Sequence
from typing import Any

import torch

from avfusion.aveb import Request
from examples.favor.answering import Answerer, Decoding
from examples.favor.loading import load as load_model


class BenchmarkAnswerer:
    """Answers what the benchmark asks, each request as a conversation.

    Args:
        answerer: model and processor.
    """

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """A text for each request."""
        return self.answerer.answer([self._conversation(request) for request in requests])

    def _conversation(self, request: Request) -> list[dict[str, Any]]:
        files = {"video": request.video, "audio": request.audio, "image": request.image}
        if request.video is not None and request.audio == request.video:
            del files["audio"]  # a video's sound is heard with it
        parts = [
            {
                "type": kind,
                kind: file
                if request.span is None
                else self.answerer.processor.read(file, start=request.span[0], end=request.span[1]),
            }
            for kind, file in files.items()
            if file is not None
        ]
        asked = [question for question, _ in request.history] + [request.prompt]
        messages: list[dict[str, Any]] = []
        for number, question in enumerate(asked):
            text = {"type": "text", "text": question}
            messages.append({"role": "user", "content": [*parts, text] if number == 0 else [text]})
            if number < len(request.history):
                answer = [{"type": "text", "text": request.history[number][1]}]
                messages.append({"role": "assistant", "content": answer})
        return messages


def load(
    model: str = "tiny", *, device: str | None = None, dtype: str | None = None, **decoding: Any
) -> BenchmarkAnswerer:
    """For ``--model-option``: everything that ``chat`` loads; the rest is about decoding, as published without it."""
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded, processor = load_model(model, device=place, dtype=None if dtype is None else getattr(torch, dtype))
    return BenchmarkAnswerer(Answerer(model=loaded, processor=processor, decoding=Decoding(**decoding)))
