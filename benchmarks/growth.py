"""How the connector's cost grows with the clip, the frame rate, the window and the overlap."""

from collections.abc import Callable

import torch
from torch import Tensor

from avfusion import Frames, SlidingWindowProjector
from benchmarks import ours, sizes
from benchmarks.measure import Spread, Timings, time_in_turns
from benchmarks.memory import peak_bytes
from benchmarks.sizes import FRAME_RATE, Sizes
from benchmarks.suite import Measurement, Result, Settings, Target, times

WINDOWS = (1, 2, 6, 12, 60, 720)
MINUTE, HOUR = 12, 720  # windows
SMOKE_WINDOWS, SMOKE_MINUTE, SMOKE_HOUR = (1, 2), 1, 2
AT_MOST = 1.02
# An hour takes minutes on a CPU; as the clips are long, few rounds will do.
ROUNDS, BLOCK = 3, 5.0
SECONDS = 30
RATES = (1, 2, 4, 8)
WINDOW_FRAMES = (1, 5, 10, 20)
STRIDES = (10, 5, 2)


def run(settings: Settings) -> Result:
    torch.manual_seed(0)
    size = sizes.of(settings.smoke)
    measurements, target = _length(size, settings)
    measurements += _rate(size, settings) + _window(size, settings) + _overlap(size, settings)
    return Result({"sizes": size._asdict()}, measurements, [target])


def _length(size: Sizes, settings: Settings) -> tuple[list[Measurement], Target]:
    counts, minute, hour = (SMOKE_WINDOWS, SMOKE_MINUTE, SMOKE_HOUR) if settings.smoke else (WINDOWS, MINUTE, HOUR)
    projector = _placed(ours.projector(size), settings)
    tokens = _tokens(size, max(counts) * size.window_frames, settings)
    calls = {_windows(n): _call(projector, tokens[:, : n * size.window_frames], FRAME_RATE) for n in counts}
    timings = time_in_turns(
        calls,
        device=settings.device,
        rounds=min(settings.rounds, ROUNDS),
        block=BLOCK if settings.device == "cpu" and not settings.smoke else settings.block,
    )
    a_window = _divided(timings, {_windows(n): n for n in counts})
    work = "length of the clip"
    rows = [row._replace(quantity=f"{row.quantity} a window") for row in times(work, a_window, _windows(minute))]
    for n in counts:
        memory = peak_bytes(settings, model="avfusion", task="forward", windows=n)
        rows.append(Measurement(work, _windows(n), "peak memory beside weights and inputs", "B", Spread.of([memory])))
    name = f"{hour} windows (an hour): cost of a window in that of {minute} windows (a minute)"
    cost = a_window.ratio(_windows(hour), _windows(minute))
    return rows, Target(name, AT_MOST, cost.median, at_least=False)


def _rate(size: Sizes, settings: Settings) -> list[Measurement]:
    projector = _placed(ours.projector(size), settings)
    tokens = _tokens(size, SECONDS * max(RATES), settings)
    calls = {f"{rate} frames a second": _call(projector, tokens[:, : SECONDS * rate], float(rate)) for rate in RATES}
    return _compare(f"frame rate, {SECONDS} s", calls, f"{FRAME_RATE:g} frames a second", settings)


def _window(size: Sizes, settings: Settings) -> list[Measurement]:
    tokens = _tokens(size, int(SECONDS * FRAME_RATE), settings)
    calls = {
        f"windows of {frames}": _call(_placed(ours.projector(size, window_frames=frames), settings), tokens, FRAME_RATE)
        for frames in WINDOW_FRAMES
    }
    return _compare(f"frames a window, {SECONDS} s", calls, f"windows of {size.window_frames}", settings)


def _overlap(size: Sizes, settings: Settings) -> list[Measurement]:
    tokens = _tokens(size, int(SECONDS * FRAME_RATE), settings)
    calls = {
        f"a window every {stride} frames": _call(
            _placed(ours.projector(size, stride_frames=stride), settings), tokens, FRAME_RATE
        )
        for stride in STRIDES
    }
    return _compare(f"overlap, {SECONDS} s", calls, f"a window every {size.window_frames} frames", settings)


def _compare(work: str, calls: dict[str, Callable[[], object]], to: str, settings: Settings) -> list[Measurement]:
    timings = time_in_turns(calls, device=settings.device, rounds=settings.rounds, block=settings.block)
    return times(work, timings, to)


def _call(projector: SlidingWindowProjector, tokens: Tensor, rate: float) -> Callable[[], object]:
    frames = Frames.from_rate(tokens, rate)
    return torch.inference_mode()(lambda: projector(frames))


def _tokens(size: Sizes, count: int, settings: Settings) -> Tensor:
    return ours.tokens(size, 1, count, device=settings.device, dtype=_dtype(settings))


def _placed(projector: SlidingWindowProjector, settings: Settings) -> SlidingWindowProjector:
    return projector.to(settings.device, _dtype(settings)).eval()


def _dtype(settings: Settings) -> torch.dtype:
    return torch.bfloat16 if settings.device == "cuda" else torch.float32


def _divided(timings: Timings, by: dict[str, int]) -> Timings:
    seconds = {
        clock: {name: [second / by[name] for second in values] for name, values in variants.items()}
        for clock, variants in timings.seconds.items()
    }
    return Timings(timings.clock, seconds)


def _windows(count: int) -> str:
    return "1 window" if count == 1 else f"{count} windows"
