"""Audio cut into blocks with context and look-ahead, for whole clips and streams."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Float, Int
from avfusion.errors import AlignmentError, InvalidValueError
from avfusion.types import TokenStream, Waveform
from avfusion.types.clock import time_dtype


class Lengths(NamedTuple):
    """A policy in samples."""

    block: int
    left: int
    ahead: int


class Segment(NamedTuple):
    """The encoder's input for one block.

    Attributes:
        row: the clip.
        samples: ``(sample,)``: the block with its context and look-ahead.
        start: seconds of the first sample, on the clip's clock.
        begin: the block's first sample, counted in the segment.
        end: the first sample after the block; ``None`` for a block that is cut short by the end of the audio.
    """

    row: int
    samples: Tensor
    start: float
    begin: int
    end: int | None


class BlockwiseState(NamedTuple):
    """Each clip's current segment: audio without a gap.

    Attributes:
        samples: ``(batch, sample)``: samples that later blocks need, real ones first.
        kept: ``(batch,)`` int64: number of real samples.
        first: ``(batch,)`` int64: index of the first sample in the segment.
        blocks: ``(batch,)`` int64: blocks of the segment that have been returned.
        start: ``(batch,)`` seconds at which the segment begins.
        watermark: ``(batch,)`` seconds up to which all tokens have been returned.
        sample_rate: ``(batch,)`` int64; 0 before the first audio.
    """

    samples: Float[Tensor, "batch sample"]
    kept: Int[Tensor, " batch"]
    first: Int[Tensor, " batch"]
    blocks: Int[Tensor, " batch"]
    start: Float[Tensor, " batch"]
    watermark: Float[Tensor, " batch"]
    sample_rate: Int[Tensor, " batch"]


def initial_state(batch: int) -> BlockwiseState:
    """The state before any audio."""
    none, seconds = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, dtype=torch.float64)
    return BlockwiseState(torch.zeros(batch, 0), none, none, none, seconds, seconds - torch.inf, none)


class Stretch:
    """One clip's current segment: a mutable row of the state."""

    def __init__(self, row: int, state: BlockwiseState) -> None:
        self.row = row
        self.count, self.first, self.blocks, self.rate = (
            int(value[row]) for value in (state.kept, state.first, state.blocks, state.sample_rate)
        )
        self.samples = state.samples[row, : self.count]
        self.start, self.watermark = float(state.start[row]), float(state.watermark[row])

    @property
    def received(self) -> int:
        """Samples received so far."""
        return self.first + self.count

    @property
    def reached(self) -> float:
        """Seconds at which the received audio ends."""
        return self.start + self.received / self.rate

    def add(self, samples: Tensor, start: float, rate: int, lengths: Lengths, gap: float) -> Iterator[Segment]:
        """Appends audio. After a gap it begins a new segment and returns the last blocks of the previous one."""
        self.rate = rate
        if self.received and start - self.reached > gap:
            yield from self.finish(lengths)
        expected = self.reached if self.received else self.watermark
        if not start >= expected - gap or start == float("inf"):
            raise AlignmentError(
                f"waveform: chunks must not overlap: must start at {expected:.3f} s or later in clip {self.row}, "
                f"found {start:.3f} s"
            )
        if not self.received:
            self.start = self.watermark = max(self.watermark, start)
        self.samples = torch.cat([self.samples.to(samples), samples]) if self.count else samples
        self.count = len(self.samples)

    def ready(self, lengths: Lengths, *, over: bool = False) -> Iterator[Segment]:
        """The blocks whose look-ahead is complete; all remaining blocks if the segment is ``over``."""
        while True:
            begin = self.blocks * lengths.block
            end = begin + lengths.block
            if begin >= self.received or not (over or end + lengths.ahead <= self.received):
                break
            low, high = max(begin - lengths.left, 0), min(end + lengths.ahead, self.received)
            heard = self.samples[low - self.first : high - self.first]
            short = end > self.received  # its last token may be centred after it
            yield Segment(self.row, heard, self.start + low / self.rate, begin - low, None if short else end - low)
            self.blocks += 1
            self.watermark = max(self.watermark, self.start + self.blocks * lengths.block / self.rate)
        low = max(self.blocks * lengths.block - lengths.left, 0)
        if low > self.first:
            self.samples = self.samples[min(low - self.first, self.count) :]
            self.count, self.first = len(self.samples), min(low, self.received)

    def finish(self, lengths: Lengths) -> Iterator[Segment]:
        """The remaining blocks; the next audio begins a new segment."""
        reached = self.reached if self.received else self.watermark
        before = self.watermark
        yield from self.ready(lengths, over=True)
        self.watermark = max(before, reached)
        self.samples, self.count, self.first, self.blocks, self.start = self.samples[:0], 0, 0, 0, 0.0

    def forget(self) -> None:
        """Begins a new clip."""
        self.watermark, self.rate = -torch.inf, 0


def packed(stretches: Sequence[Stretch], like: BlockwiseState) -> BlockwiseState:
    """The state of all rows."""
    longest = max(stretches, key=lambda each: each.count).samples
    samples = torch.nn.utils.rnn.pad_sequence([each.samples.to(longest) for each in stretches], batch_first=True)
    numbers = [[each.count, each.first, each.blocks, each.rate] for each in stretches]
    count, first, blocks, rate = torch.tensor(numbers, dtype=torch.int64).unbind(1)
    seconds = torch.tensor([[each.start, each.watermark] for each in stretches], dtype=torch.float64)
    device = like.kept.device
    start, watermark = seconds.to(time_dtype(device)).to(device).unbind(1)
    count, first, blocks, rate = (value.to(device) for value in (count, first, blocks, rate))
    return BlockwiseState(samples, count, first, blocks, start, watermark, rate)


def joined_rows(rows: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> TokenStream:
    """Concatenates each clip's parts, tokens and times; at least one clip must have a part."""
    like_tokens, like_times = next(row[0] for row in rows if row)
    tokens = [torch.cat([part for part, _ in row]) if row else like_tokens[:0] for row in rows]
    times = [torch.cat([when for _, when in row]) if row else like_times[:0] for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    lengths = torch.tensor([len(row) for row in times])
    mask = torch.arange(padded.shape[1]) < lengths[:, None]
    return TokenStream(padded, mask.to(padded.device), torch.nn.utils.rnn.pad_sequence(times, batch_first=True))


def rows_of(waveform: Waveform) -> Iterator[tuple[int, Tensor, float]]:
    """Each clip with audio: its row, samples and start time."""
    for row, (length, start) in enumerate(zip(waveform.lengths.tolist(), waveform.start.tolist(), strict=True)):
        if length:
            yield row, waveform.samples[row, :length], start


def as_seconds(value: Any, batch: int, name: str) -> list[float]:
    """Seconds, one number per clip."""
    times = torch.as_tensor(value, dtype=torch.float64)
    if bool(times.isnan().any()) or times.shape not in ((), (batch,)):
        raise InvalidValueError(
            f"{name}: must be one number of seconds or (batch,) = ({batch},), found {times.tolist()}"
        )
    found: list[float] = times.expand(batch).tolist()
    return found
