"""Times as containers hold them: whole numbers of ticks."""

from fractions import Fraction

from avfusion.errors import MediaError

TICK = 1e-5  # seconds: containers round their times, so closer than this is the same time
PREROLL = 0.5  # seconds before what is wanted at which decoding starts after a seek: decoders need some to run in


class BackwardsError(MediaError):
    """Pictures or sound that come after what is later."""


def seconds(ticks: int | None, time_base: Fraction | None) -> Fraction | None:
    """Exact seconds, or None where the container does not say."""
    return None if ticks is None or time_base is None else ticks * time_base
