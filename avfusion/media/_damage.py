"""Damaged parts of a file: an error, or skipped and reported."""

from collections.abc import Callable
from errno import EPERM
from fractions import Fraction
from typing import Literal

from av import FFmpegError

from avfusion.errors import MediaError

Policy = Literal["error", "skip"]
# Receives the type of the stream, the kind of damage, its time, and FFmpeg's error or None.
Damaged = Callable[[str, str, Fraction | None, FFmpegError | None], None]


class Damage:
    """Collects the damage found in a file.

    Args:
        policy: ``"error"`` to raise it, ``"skip"`` to report it.

    Attributes:
        since: seconds on the file's clock before which damage is ignored.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.since: Fraction | None = None
        self._packets: dict[tuple[str, str], list[Fraction | None]] = {}
        self._others: list[str] = []

    def packet(self, kind: str, what: str, time: Fraction | None) -> None:
        """Adds a damaged packet or frame.

        Raises:
            MediaError: unless damage is skipped.
        """
        if self.since is not None and time is not None and time < self.since:
            return
        if self.policy == "error":
            when = "" if time is None else f" at {float(time):.3f} s"
            raise MediaError(f'is damaged or cut short: it holds {what} of {kind}{when}; damaged="skip" leaves it out')
        self._packets.setdefault((kind, what), []).append(time)

    def whole(self, error: MediaError) -> None:
        """Adds that the file is incomplete.

        Raises:
            MediaError: unless damage is skipped.
        """
        if self.policy == "error":
            raise MediaError(f'{error}; damaged="skip" reads what there is') from error.__cause__
        self._others.append(str(error))

    @property
    def told(self) -> tuple[str, ...]:
        """Descriptions of all damage."""
        words = []
        for (kind, what), times in self._packets.items():
            first = min((time for time in times if time is not None), default=None)
            since = "" if first is None else f", the first at {float(first):.3f} s"
            words.append(f"{len(times)} × {what} of {kind}{since}")
        return (*words, *dict.fromkeys(self._others))


def reason(error: FFmpegError) -> str:
    """FFmpeg's error message in brackets; empty for "not permitted", which decoders return for unknown reasons."""
    return "" if error.errno == EPERM else f" ({error.strerror})"
