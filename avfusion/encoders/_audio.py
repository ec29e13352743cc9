"""Shared by audio encoders: input validation, and token counts without running the model."""

from collections.abc import Sequence

from torch import Tensor

from avfusion.encoders._base import PretrainedEncoder
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types import Waveform
from avfusion.types.clock import as_durations


class AudioTower(PretrainedEncoder):
    """An audio encoder with a constant token rate."""

    output_dim: int
    sample_rate: int

    @property
    def rate(self) -> float:
        """Time steps per second."""
        raise NotImplementedError

    @property
    def tokens_per_step(self) -> int:
        """Tokens that share one time."""
        return 1

    def num_tokens(self, durations: Tensor | Sequence[float] | float) -> Tensor:
        """The number of tokens of clips, without running the model.

        Args:
            durations: seconds of each clip, any shape.

        Returns:
            int64 tensor in the shape of ``durations``.

        Raises:
            InvalidValueError: durations that are negative or not finite.
        """
        return self._count((as_durations(durations).double() * self.sample_rate).round().long())

    def _count(self, samples: Tensor) -> Tensor:
        """The number of tokens of clips with this many samples."""
        raise NotImplementedError


def check_waveform(waveform: Waveform, sample_rate: int | None = None) -> None:
    """Raises an error for input that no audio encoder takes; ``None`` allows any sample rate."""
    if not isinstance(waveform, Waveform):
        raise InvalidTypeError(f"waveform: must be an avfusion.Waveform, found {type(waveform).__name__}")
    if sample_rate not in (None, waveform.sample_rate):
        raise InvalidValueError(
            f"waveform.sample_rate: must be {sample_rate}, as the encoder needs; "
            f"found {waveform.sample_rate}: resample the audio first"
        )
    if bool((waveform.mask[:, 1:] & ~waveform.mask[:, :-1]).any()):
        raise InvalidValueError("waveform.mask: real samples must come first, found padding before or among them")
