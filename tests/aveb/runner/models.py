"""Models and records for the tests of the runner; also imported by processes that the tests start and kill."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from avfusion.aveb import Record, Request
from avfusion.errors import MediaError


class Hashing:
    """Says something that depends on all that it is asked and on nothing else."""

    def __init__(self, *, pause: float = 0.0, broken: Sequence[str] = ()) -> None:
        self.pause = pause
        self.broken = set(broken)
        self.asked: list[Request] = []

    def answer(self, requests: Sequence[Request]) -> list[str]:
        time.sleep(self.pause)
        for request in requests:
            if request.id in self.broken:
                raise MediaError(f"{request.audio}: broken")
        self.asked += requests
        return [hashlib.sha256(repr(request).encode()).hexdigest()[:8] for request in requests]


def records(count: int = 24, task: str = "asr") -> list[Record]:
    return [
        Record(id=f"r{n}", task=task, audio=Path(f"{n}.wav"), references=(f"word {n}",), source=Path("a.json"), index=n)
        for n in range(count)
    ]


def choices(count: int, place: int = 2, options: int = 5) -> list[Record]:
    texts = tuple(f"option {number}" for number in range(options))
    return [
        Record(
            id=f"c{n}", task="video_qa", video=Path(f"{n}.mp4"), question="Which?", candidates=texts,
            answer_index=place, references=(texts[place],),
        )
        for n in range(count)
    ]  # fmt: skip
