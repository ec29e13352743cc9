"""Time that only goes forward, whatever a source's clock does."""

from fractions import Fraction
from typing import NamedTuple

from av import AudioFrame, VideoFrame

from avfusion.media._time import seconds

BACK = Fraction(1, 2)  # seconds that times may go back: rounding, and sound that comes twice
_WAIT = 1.0  # seconds of waiting that are more than jitter


class Fit(NamedTuple):
    """Where a frame belongs.

    Attributes:
        shift: seconds to add to its time.
        jump: seconds by which the clock was found to have jumped; 0 if it did not.
    """

    shift: Fraction
    jump: float


class Timeline:
    """Fits the times of a source's streams, which share a clock, on one that goes on where theirs jumps.

    Args:
        ahead: seconds that times may go ahead, beyond those that have been waited for.
    """

    def __init__(self, *, ahead: float) -> None:
        self._ahead = Fraction(ahead)
        self._shift = Fraction(0)
        self._shifts: dict[str, Fraction] = {}
        self._ends: dict[str, Fraction] = {}

    def fit(self, stream: str, time: Fraction, lasts: Fraction, *, waited: float = 0.0) -> Fit:
        """Where the next frame of a stream belongs, which its clock says begins at ``time`` and ``lasts`` so long."""
        shift, jump = self._shifts.get(stream, self._shift), Fraction(0)
        # A stream that has not come before is compared with the other.
        end = self._ends.get(stream, max(self._ends.values(), default=None))
        if end is not None and not self._follows(end, time + shift, waited, new=stream not in self._ends):
            # The other stream may have met the same jump before.
            if not self._follows(end, time + self._shift, waited, new=stream not in self._ends):
                jump = time + shift - end
                # After all that has come, so that nothing is lost; and as much later as it was waited for.
                passes = Fraction(waited) if waited > _WAIT else Fraction(0)
                self._shift = max(self._ends.values()) + passes - time
            shift = self._shift
        self._shifts[stream] = shift
        ended = time + shift + lasts
        self._ends[stream] = max(ended, self._ends.get(stream, ended))
        return Fit(shift, float(jump))

    def place(self, frame: VideoFrame | AudioFrame, zero: Fraction) -> None:
        """Puts a frame where it belongs; ``zero`` is what the clock calls 0."""
        at = seconds(frame.pts, frame.time_base)
        if at is None or frame.time_base is None:
            return
        if isinstance(frame, VideoFrame):
            kind, lasts = "visual", seconds(frame.duration, frame.time_base) or Fraction(0)
        else:
            kind, lasts = "audio", Fraction(frame.samples, frame.sample_rate)
        frame.pts = round((at + self.fit(kind, at - zero, lasts).shift) / frame.time_base)

    def forget(self) -> None:
        """Takes the next times as they are: the source was told to go elsewhere."""
        self._ends.clear()

    def _follows(self, end: Fraction, time: Fraction, waited: float, *, new: bool) -> bool:
        return end - (self._ahead if new else BACK) <= time <= end + self._ahead + Fraction(waited)
