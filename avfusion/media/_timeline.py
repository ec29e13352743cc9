"""A monotonic timeline for streams whose clock may jump."""

from fractions import Fraction
from typing import NamedTuple

from av import AudioFrame, VideoFrame

from avfusion.media._time import seconds

BACK = Fraction(1, 2)  # seconds that timestamps may go back: rounding, and overlapping audio
_WAIT = 1.0  # seconds of waiting that exceed jitter


class Fit(NamedTuple):
    """A correction of a frame's timestamp.

    Attributes:
        shift: seconds to add to its timestamp.
        jump: seconds by which the clock was found to have jumped; 0 if it did not.
    """

    shift: Fraction
    jump: float


class Timeline:
    """Maps the timestamps of a source's streams to a timeline without jumps.

    Args:
        ahead: seconds by which timestamps may jump ahead, beyond the time that has passed.
    """

    def __init__(self, *, ahead: float) -> None:
        self._ahead = Fraction(ahead)
        self._shift = Fraction(0)
        self._shifts: dict[str, Fraction] = {}
        self._ends: dict[str, Fraction] = {}

    def fit(self, stream: str, time: Fraction, lasts: Fraction, *, waited: float = 0.0) -> Fit:
        """The correction of the next frame of a stream, whose timestamp is ``time`` and duration ``lasts``."""
        shift, jump = self._shifts.get(stream, self._shift), Fraction(0)
        # A new stream is compared with the other one.
        end = self._ends.get(stream, max(self._ends.values(), default=None))
        if end is not None and not self._follows(end, time + shift, waited, new=stream not in self._ends):
            # The other stream may have seen the same jump already.
            if not self._follows(end, time + self._shift, waited, new=stream not in self._ends):
                jump = time + shift - end
                # After all earlier data, so that nothing is lost, plus the time that was waited.
                passes = Fraction(waited) if waited > _WAIT else Fraction(0)
                self._shift = max(self._ends.values()) + passes - time
            shift = self._shift
        self._shifts[stream] = shift
        ended = time + shift + lasts
        self._ends[stream] = max(ended, self._ends.get(stream, ended))
        return Fit(shift, float(jump))

    def place(self, frame: VideoFrame | AudioFrame, zero: Fraction) -> None:
        """Applies a correction to a frame; ``zero`` is the timestamp of time 0."""
        at = seconds(frame.pts, frame.time_base)
        if at is None or frame.time_base is None:
            return
        if isinstance(frame, VideoFrame):
            kind, lasts = "visual", seconds(frame.duration, frame.time_base) or Fraction(0)
        else:
            kind, lasts = "audio", Fraction(frame.samples, frame.sample_rate)
        frame.pts = round((at + self.fit(kind, at - zero, lasts).shift) / frame.time_base)

    def forget(self) -> None:
        """Accepts the next timestamps unchanged, because the source was told to seek."""
        self._ends.clear()

    def _follows(self, end: Fraction, time: Fraction, waited: float, *, new: bool) -> bool:
        return end - (self._ahead if new else BACK) <= time <= end + self._ahead + Fraction(waited)
