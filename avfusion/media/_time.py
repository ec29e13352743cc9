"""Timestamps of containers, in ticks."""

from fractions import Fraction

from avfusion.errors import MediaError

TICK = 1e-5  # tolerance in seconds: containers round timestamps
PREROLL = 0.5  # seconds before the target at which decoding starts after a seek, for decoder delay


class BackwardsError(MediaError):
    """Timestamps go back."""


def seconds(ticks: int | None, time_base: Fraction | None) -> Fraction | None:
    """Exact seconds, or None if the container has no timestamp."""
    return None if ticks is None or time_base is None else ticks * time_base
