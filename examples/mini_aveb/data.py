"""The generated set as training needs it: questions, answers, media, and batches of the towers' tokens."""

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion import Frames, TokenStream
from avfusion.aveb import Record, Request, make_request, read_records, shuffled
from avfusion.aveb.mini import MAKERS
from avfusion.media import Media, load_media
from examples.mini_aveb.towers import AUDIO_RATE, DIM, FRAME_RATE, PIXELS, TOKENS

Features = dict[str, Frames | TokenStream]


def read(request: Request | Record, frame_rate: float = FRAME_RATE) -> Media | None:
    """The media of a request with so many pictures a second, or ``None`` if there are none."""
    start, end = request.span or (0.0, None)
    video = waveform = None
    duration = 0.0
    for path in dict.fromkeys((request.video or request.image, request.audio)):
        if path is not None:
            media = load_media(path, frame_rate=frame_rate, size=PIXELS, start=start, end=end)
            video = media.video if path in (request.video, request.image) else video
            waveform = media.waveform if path == request.audio else waveform
            duration = max(duration, media.duration)
    return None if video is None and waveform is None else Media(video, waveform, duration)


class Item(NamedTuple):
    """One record with its tokens.

    Attributes:
        record: what is asked and what is right.
        truth: what the generator says of it.
        visual: ``(frame, TOKENS, DIM)`` float16 at :data:`FRAME_RATE`, one frame for a still picture, or ``None``.
        audio: ``(time, DIM)`` float16 at :data:`AUDIO_RATE`, or ``None``.
        seen: ``(frame, SEEN)`` bool: what is in each picture, if the generator told.
        heard: ``(time,)`` int64: what each token of sound is about, if the generator told.
    """

    record: Record
    truth: dict[str, Any]
    visual: Tensor | None
    audio: Tensor | None
    seen: Tensor | None
    heard: Tensor | None

    @property
    def seconds(self) -> float:
        """How long it is; a still picture by itself has no length."""
        pictures = 0 if self.visual is None or self.record.image is not None else len(self.visual) / FRAME_RATE
        return max(pictures, 0 if self.audio is None else len(self.audio) / AUDIO_RATE)


def read_split(folder: Path, tasks: Sequence[str] = tuple(MAKERS)) -> list[tuple[Record, dict[str, Any]]]:
    """Records of all tasks, each with the generator's truth."""
    lines = (folder / "truth.jsonl").read_text().splitlines()
    truths = {truth["id"]: truth for truth in map(json.loads, lines)}
    records = [record for task in tasks for record in read_records(task, folder / f"{task}.jsonl")]
    return [(record, truths[record.id]) for record in records]


def media_of(pairs: Sequence[tuple[Record, Any]]) -> list[Media]:
    """The media of all records, read by threads."""
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(read, [record for record, _ in pairs])
        return [media for media in found if media is not None]  # every record of the set has media


def collate(items: Sequence[Item], frame_rate: float) -> Features:
    """Features of a batch with pictures at ``frame_rate``, a divisor of :data:`FRAME_RATE`."""
    chosen = [None if item.visual is None else thin(item.visual, item, frame_rate) for item in items]
    count = max((len(tokens) for tokens in chosen if tokens is not None), default=0)
    tokens = torch.zeros(len(items), count, TOKENS, DIM)
    mask = torch.zeros(len(items), count, TOKENS, dtype=torch.bool)
    spans = torch.zeros(len(items), count, 2, dtype=torch.float64)
    for row, (item, pictures) in enumerate(zip(items, chosen, strict=True)):
        if pictures is not None:
            real = len(pictures)
            tokens[row, :real], mask[row, :real] = pictures.float(), True
            starts = torch.arange(real) / frame_rate
            spans[row, :real] = torch.stack([starts, starts + 1 / frame_rate], -1)
            if item.record.image is not None:
                spans[row, 0] = torch.tensor([-torch.inf, torch.inf])
    sounds = [torch.zeros(0, DIM) if item.audio is None else item.audio.float() for item in items]
    features: Features = {}
    if count:
        features["visual"] = Frames(tokens, mask, spans)
    if any(map(len, sounds)):
        features["audio"] = TokenStream.from_rate(
            torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True), AUDIO_RATE, lengths=[*map(len, sounds)]
        )
    return features


def thin(values: Tensor, item: Item, frame_rate: float) -> Tensor:
    """Of pictures at :data:`FRAME_RATE` those that :func:`~avfusion.media.load_media` takes at a lower rate."""
    step = round(FRAME_RATE / frame_rate)
    if step == 1 or item.record.image is not None:
        return values
    places = torch.arange(-(-len(values) // step)) * step + step // 2
    return values[places.clamp(max=len(values) - 1)]


def batches(items: Sequence[Item], size: int, choose: random.Random) -> Iterator[list[int]]:
    """Epoch after epoch of batches of places; those of a batch are of like length, so that little is padding."""
    while True:
        order = choose.sample(range(len(items)), len(items))
        pools = [order[first : first + 16 * size] for first in range(0, len(order), 16 * size)]
        cut = []
        for pool in pools:
            pool.sort(key=lambda place: items[place].seconds)
            cut += [pool[first : first + size] for first in range(0, len(pool), size)]
        yield from choose.sample(cut, len(cut))


def request_of(record: Record, seed: int) -> tuple[Request, str]:
    """What is asked, and what is right; candidates are in an order drawn from ``seed``."""
    shown = shuffled(record, seed)
    return make_request(shown), record.references[0]
