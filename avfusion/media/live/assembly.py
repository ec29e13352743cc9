"""Assembles decoded pieces into chunks."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from avfusion.media._audio import AudioSegment, lay
from avfusion.media._frames import CollectedFrame, spans_of
from avfusion.media._limits import MediaLimits, check_pictures, check_samples
from avfusion.media._time import TICK
from avfusion.media.live.backlog import Piece
from avfusion.media.live.chunk import FaultKind, LiveFault, Stream, merged
from avfusion.types import Video, Waveform

_UNIT = {"visual": "pictures", "audio": "s of audio"}


class Cut(NamedTuple):
    """The data of a chunk, and what it lacks."""

    video: Video | None
    waveform: Waveform | None
    watermark: dict[str, float]
    skipped_frames: int
    skipped_audio: float
    faults: tuple[LiveFault, ...]


class Assembly:
    """Collects decoded pieces and cuts chunks from them.

    Args:
        streams: the streams of the source.
        frame_rate: spans per second.
        sample_rate: sample rate of the audio.
        max_wait: seconds that a stream may be behind the other before a chunk is returned without it.
        late: whether data that arrives after its chunk is dropped; otherwise it is in a later chunk.
        limits: limits on a chunk.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        *,
        frame_rate: float,
        sample_rate: int,
        max_wait: float,
        late: bool,
        limits: MediaLimits,
    ) -> None:
        self._limits = limits
        self.watermarks: dict[Stream, float] = dict.fromkeys(streams, 0.0)
        self.ended: set[Stream] = set()
        self._frame_rate, self._sample_rate, self._max_wait, self._late = frame_rate, sample_rate, max_wait, late
        self._gone: dict[Stream, float] = dict.fromkeys(streams, 0.0)  # earlier chunks were returned without the stream
        self._from = 0.0  # earlier data is skipped
        self._seen: list[CollectedFrame] = []
        self._heard: list[AudioSegment] = []
        self._base = 0.0  # time of audio sample 0
        self._next: int | None = None  # index of the next audio sample, if the segment continues
        self._thinned = 0
        self._skips: list[tuple[float, float]] = []
        self._faults: list[LiveFault] = []

    def add(self, piece: Piece) -> None:
        """Adds a piece."""
        stream = piece.stream
        self._faults += piece.faults
        self.watermarks[stream] = max(self.watermarks[stream], piece.watermark)
        if piece.ended:
            self.ended.add(stream)
        if piece.heard and piece.base != self._base:  # sample indices restart
            self._base, self._next, self._heard = piece.base, None, []
        seen, heard, late = self._after(stream, self._gone[stream], piece.seen, piece.heard)
        if late:
            self._note("late", stream, self._gone[stream], late, f"{_UNIT[stream]} came too late and were left out")
        seen, heard, _ = self._after(stream, self._from, seen, heard)
        self._seen += seen
        self._heard += heard

    def skip(self, start: float, to: float, faults: Sequence[LiveFault] = ()) -> None:
        """Drops the data between two times; ``faults`` are those of data that was dropped before it arrived here."""
        self._from, self._next = to, None
        self._skips.append((start, to))
        self._faults += faults
        for stream in self.watermarks:
            self._seen, self._heard, _ = self._after(stream, to, self._seen, self._heard)

    def ready(self, until: float) -> bool:
        """Whether all data before ``until`` has arrived, or has been waited for long enough."""
        if self.is_over:
            return True
        head = max(self.watermarks.values())
        return all(
            stream in self.ended or watermark >= until - TICK or head >= until + self._max_wait
            for stream, watermark in self.watermarks.items()
        )

    @property
    def is_over(self) -> bool:
        """Whether every stream has ended."""
        return len(self.ended) == len(self.watermarks)

    def cut(self, until: float, *, every: int = 1) -> Cut:
        """The data before ``until``, with every ``every``-th frame; all remaining data for the last chunk."""
        given: dict[str, float] = {"visual": math.inf, "audio": math.inf}
        for stream, watermark in self.watermarks.items():
            self._miss(stream, watermark, until)
            come = min(max(watermark, self._gone[stream]), until)
            given[stream] = self._spans_before(come) / self._frame_rate if stream == "visual" else come
        skipped_frames, skipped_audio = self._skipped()
        video, waveform = self._cut_video(until, every), self._cut_waveform(until)
        for stream in self.ended:
            if self.is_over or not (self._seen if stream == "visual" else self._heard):
                given[stream] = math.inf
        cut = Cut(video, waveform, given, skipped_frames + self._thinned, skipped_audio, merged(self._faults))
        self._thinned, self._skips, self._faults = 0, [], []
        return cut

    def _skipped(self) -> tuple[int, float]:
        """Number of frames, and seconds of audio, that were skipped."""
        pictures, sound = 0, 0.0
        for stream, watermark in self.watermarks.items():
            end = watermark if stream in self.ended else math.inf
            for start, to in self._skips:
                stop = min(to, end)
                if stream == "audio":
                    sound += max(0.0, stop - start)
                else:
                    pictures += max(0, math.ceil((stop - TICK) * self._frame_rate) - self._spans_before(start))
        return pictures, sound

    def _miss(self, stream: Stream, watermark: float, until: float) -> None:
        """Records the data that the chunk lacks because it was waited for too long."""
        if not self._late or stream in self.ended or watermark >= until - TICK:
            return
        missing = until - max(watermark, self._gone[stream], self._from)
        self._gone[stream] = until
        self._next = None if stream == "audio" else self._next
        self._note("missing", stream, watermark, missing, f"a chunk went without {missing:.3f} s of {stream}")

    def _cut_video(self, until: float, every: int) -> Video | None:
        count = len(self._seen)
        if not self.is_over:
            before = self._spans_before(until)
            count = sum(seen.place is None or seen.place < before for seen in self._seen)
        chosen = [seen for seen in self._seen[:count] if seen.place is None or seen.place % every == 0]
        self._thinned += count - len(chosen)
        self._seen = self._seen[count:]
        if not chosen:
            return None
        _, height, width = chosen[0].pixels.shape
        check_pictures(len(chosen), height, width, self._limits)
        places = [seen.place for seen in chosen if seen.place is not None]
        if not places:
            return Video.from_image(chosen[0].pixels[None])
        spans = spans_of(places, self._frame_rate)
        pixels = torch.stack([seen.pixels for seen in chosen])
        return Video(pixels[None], torch.ones(1, len(chosen), dtype=torch.bool), spans[None])

    def _cut_waveform(self, until: float) -> Waveform | None:
        if "audio" not in self.watermarks or (not self._heard and self._next is None):
            return None
        first = self._heard[0].place if self._next is None else self._next
        last = self._heard[-1].stop if self._heard else first
        if not self.is_over:
            before = self._samples_before(until)
            # The gap between two segments is silence.
            silent = "audio" not in self.ended and self.watermarks["audio"] >= until - TICK
            last = before if silent else min(last, before)
        if last <= first:
            return None
        check_samples(last - first, self._limits)
        samples = lay(self._heard, first, last)
        self._heard = [_from(heard, last) for heard in self._heard if heard.stop > last]
        self._next = last
        return Waveform.from_samples([samples], self._sample_rate, start=self._base + first / self._sample_rate)

    def _after(
        self, stream: Stream, time: float, seen: Sequence[CollectedFrame], heard: Sequence[AudioSegment]
    ) -> tuple[list[CollectedFrame], list[AudioSegment], float]:
        """The data of a stream that begins after a time, and the amount that does not: frames, or seconds."""
        if stream == "visual":
            kept = [one for one in seen if one.place is None or one.place / self._frame_rate >= time - TICK]
            return kept, [*heard], len(seen) - len(kept)
        first = self._samples_before(time)
        parts = [_from(one, first) for one in heard if one.stop > first]
        samples = sum(len(one.samples) for one in heard) - sum(len(one.samples) for one in parts)
        return [*seen], parts, samples / self._sample_rate

    def _note(self, kind: FaultKind, stream: Stream, time: float, amount: float, words: str) -> None:
        self._faults = [*merged([*self._faults, LiveFault(kind, stream, time, amount, words)])]

    def _spans_before(self, time: float) -> int:
        return math.floor((time + TICK) * self._frame_rate)

    def _samples_before(self, time: float) -> int:
        return max(0, math.ceil((time - self._base) * self._sample_rate - 1e-6))


def _from(heard: AudioSegment, place: int) -> AudioSegment:
    return AudioSegment(max(heard.place, place), heard.samples[max(0, place - heard.place) :])
