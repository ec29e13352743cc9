"""A stream against the same clip at once: what it costs in all, and how soon an answer can use the last frame."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from avfusion import AudioVisualConnector, state_tensors
from benchmarks import asking, hearing, ours, sizes
from benchmarks.agreement import check_agreement
from benchmarks.measure import Spread, Timings, time_in_turns
from benchmarks.sizes import FRAME_RATE, Sizes
from benchmarks.suite import Measurement, Result, Settings, Target, times

WINDOWS = 6
MINUTE, HOUR = 120, 7200  # frames
SMOKE_WINDOWS, SMOKE_MINUTE, SMOKE_HOUR = 2, 20, 40
ONE_BY_ONE, BY_THE_SECOND = 1.5, 1.1
SOONER = CHEAPER = 5.0
ALIKE = 1.1
Call = Callable[[], object]


def run(settings: Settings) -> Result:
    torch.manual_seed(0)
    size = sizes.of(settings.smoke)
    connector = ours.connector(size, ours.projector(size)).to(settings.device, _dtype(settings)).eval()
    clip = _clip(size, settings, SMOKE_WINDOWS if settings.smoke else WINDOWS)
    with torch.inference_mode():
        _check(connector, clip, size)
        parts = (_in_all, _latency, _every_frame, _later)
        found = [part(connector, clip, size, settings) for part in parts]
    found += [asking.first_token(settings), (hearing.blocks(settings), [])]
    measurements = [row for rows, _ in found for row in rows]
    return Result({"sizes": size._asdict()}, measurements, [target for _, targets in found for target in targets])


def _check(connector: AudioVisualConnector, clip: dict[str, Tensor], size: Sizes) -> None:
    whole = connector(**clip).embeddings
    for frames in (1, 2):
        check_agreement(f"chunks of {frames}", _stream(connector, _chunks(clip, size, frames)), whole)


def _in_all(
    connector: AudioVisualConnector, clip: dict[str, Tensor], size: Sizes, settings: Settings
) -> tuple[list[Measurement], list[Target]]:
    """The whole clip, in chunks and at once."""
    calls: dict[str, Call] = {"at once": lambda: connector(**clip)}
    for frames in (1, 2, 10):
        calls[_chunk_name(frames)] = partial(_stream, connector, _chunks(clip, size, frames))
    timings = _timed(calls, settings)
    work = f"a clip of {_frames(clip)} frames"
    one, second = (timings.ratio(_chunk_name(frames), "at once").median for frames in (1, 2))
    return times(work, timings, "at once"), [
        Target("frame by frame: CPU time in that of the clip at once", ONE_BY_ONE, one, at_least=False),
        Target("second by second: CPU time in that of the clip at once", BY_THE_SECOND, second, at_least=False),
    ]


def _latency(
    connector: AudioVisualConnector, clip: dict[str, Tensor], size: Sizes, settings: Settings
) -> tuple[list[Measurement], list[Target]]:
    """From a window's last frame to its embeddings."""
    window = {name: value[:, : value.shape[1] // _frames(clip) * size.window_frames] for name, value in clip.items()}
    chunks = _chunks(window, size, 1)
    state = connector.initial_state()
    for chunk in chunks[:-1]:
        _, state = connector.step(chunk, state)
    calls: dict[str, Call] = {
        "at once": lambda: connector(**window),
        "last frame": lambda: connector.step(chunks[-1], state),
    }
    timings = _timed(calls, settings)
    sooner = timings.ratio("at once", "last frame").median
    name = "embeddings of a window after its last frame: how many times sooner than of the window at once"
    return times("a window of which the last frame comes", timings, "at once"), [Target(name, SOONER, sooner)]


def _every_frame(
    connector: AudioVisualConnector, clip: dict[str, Tensor], size: Sizes, settings: Settings
) -> tuple[list[Measurement], list[Target]]:
    """The state of things after every frame, from the stream and by computing again what has been seen of the clip."""
    count = _frames(clip)
    each = {name: value.shape[1] // count for name, value in clip.items()}
    seen = [{name: value[:, : n * each[name]] for name, value in clip.items()} for n in range(1, count + 1)]
    window = [{name: value[:, -size.window_frames * each[name] :] for name, value in part.items()} for part in seen]
    chunks = _chunks(clip, size, 1)

    def with_partial() -> None:
        state = connector.initial_state()
        for chunk in chunks:
            _, state = connector.step(chunk, state, partial=True)

    calls: dict[str, Call] = {
        "stream": with_partial,
        "the last window's length again": lambda: [connector(**part) for part in window],
        "the window so far again": lambda: [
            connector(**{name: value[:, n // size.window_frames * size.window_frames * each[name] :]
                         for name, value in part.items()})
            for n, part in enumerate(seen)
        ],
        "the clip so far again": lambda: [connector(**part) for part in seen],
    }  # fmt: skip
    timings = _timed(calls, settings)
    cheaper = timings.ratio("the last window's length again", "stream").median
    name = "embeddings after every frame: how many times cheaper than of the last window's length again"
    return times(f"embeddings after each of {count} frames", timings, "stream"), [Target(name, CHEAPER, cheaper)]


def _later(
    connector: AudioVisualConnector, clip: dict[str, Tensor], size: Sizes, settings: Settings
) -> tuple[list[Measurement], list[Target]]:
    """A window's frames and what is kept, after a minute and after an hour."""
    minute, hour = (SMOKE_MINUTE, SMOKE_HOUR) if settings.smoke else (MINUTE, HOUR)
    tiny = ours.connector(sizes.SMOKE, ours.projector(sizes.SMOKE)).to(settings.device, _dtype(settings)).eval()
    part = _clip(sizes.SMOKE, settings, 1)
    chunks, rows = _chunks(part, sizes.SMOKE, 1), []
    calls: dict[str, Call] = {}
    state, seen = tiny.initial_state(), 0
    for name, until in (("minute 1", minute), ("minute 60", hour)):
        while seen < until:
            _, state = tiny.step(chunks[seen % len(chunks)], state)
            seen += 1
        calls[name] = partial(_window, tiny, chunks, state)
        rows.append(Measurement("a window of the smallest size", name, "kept", "B", Spread.of([_bytes(state)])))
    timings = _timed(calls, settings)
    ratio = timings.ratio("minute 60", "minute 1").median
    rows = [*times("a window of the smallest size", timings, "minute 1"), *rows]
    return rows, [Target("a frame's cost at minute 60 in that at minute 1", ALIKE, ratio, at_least=False)]


def _window(connector: AudioVisualConnector, chunks: list[dict[str, Tensor]], state: Any) -> None:
    for chunk in chunks:
        _, state = connector.step(chunk, state)


def _stream(connector: AudioVisualConnector, chunks: list[dict[str, Tensor]]) -> Tensor:
    state, given = connector.initial_state(), []
    for chunk in chunks:
        out, state = connector.step(chunk, state)
        given.append(out.finished.embeddings)
    return torch.cat([*given, connector.flush(state).finished.embeddings], 1)


def _chunks(clip: dict[str, Tensor], size: Sizes, frames: int) -> list[dict[str, Tensor]]:
    count = _frames(clip)
    parts = {name: value.split(value.shape[1] // count * frames, 1) for name, value in clip.items()}
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def _clip(size: Sizes, settings: Settings, windows: int) -> dict[str, Tensor]:
    frames = windows * size.window_frames
    shapes = {"visual": (frames, size.slots, size.stream), "audio": (frames * size.audio_per_frame, size.audio)}
    return {
        name: torch.randn(1, *shape, device=settings.device, dtype=_dtype(settings)) for name, shape in shapes.items()
    }


def _frames(clip: dict[str, Tensor]) -> int:
    return clip["visual"].shape[1]


def _bytes(state: object) -> int:
    return sum(value.numel() * value.element_size() for value in state_tensors(state).values())


def _chunk_name(frames: int) -> str:
    return f"chunks of {frames / FRAME_RATE:g} s"


def _timed(calls: dict[str, Call], settings: Settings) -> Timings:
    return time_in_turns(calls, device=settings.device, rounds=settings.rounds, block=settings.block)


def _dtype(settings: Settings) -> torch.dtype:
    return torch.bfloat16 if settings.device == "cuda" else torch.float32
