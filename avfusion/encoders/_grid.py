"""Where in time an audio model's tokens stand, worked out from its configuration."""

from math import ceil
from typing import Any, NamedTuple


class TokenGrid(NamedTuple):
    """Time steps of a model, in samples: step ``i`` sees ``[i * hop, i * hop + field)``.

    Attributes:
        hop: from one step to the next.
        field: that a step sees; its middle is the step's time.
        least: that a clip is padded to, so that the model can run.
        inside: the model makes a step only where its whole field is sound; else where its middle is.
        most: steps the model can make at once, ``None`` for any number.
        bands: tokens of one step (frequency patches).
        prefix: tokens before the first step (class tokens).
    """

    hop: float
    field: float
    least: int
    inside: bool = False
    most: int | None = None
    bands: int = 1
    prefix: int = 0

    def steps(self, samples: int) -> int:
        """Steps of a clip. Sound too short for a whole step still has one."""
        if samples == 0:
            return 0
        if self.inside:
            return max(1, int((samples - self.field) // self.hop) + 1)
        return max(1, ceil((samples - self.field / 2) / self.hop))


def known_grid(config: Any, sample_rate: int) -> TokenGrid | None:
    """The grid of the Wav2Vec2 family (convolutions over samples) and of AST (patches of a spectrogram)."""
    if hasattr(config, "conv_kernel") and hasattr(config, "conv_stride") and not getattr(config, "add_adapter", False):
        hop, field = 1, 1
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            field += (kernel - 1) * hop
            hop *= stride
        return TokenGrid(hop, field, least=field, inside=True)
    if hasattr(config, "time_stride") and hasattr(config, "frequency_stride"):
        patch = config.patch_size
        high, long = (patch, patch) if isinstance(patch, int) else patch
        frame, window = round(0.010 * sample_rate), round(0.025 * sample_rate)  # of the spectrogram, as in Kaldi
        return TokenGrid(
            hop=config.time_stride * frame,
            field=(long - 1) * frame + window,
            least=window,
            most=(config.max_length - long) // config.time_stride + 1,
            bands=(config.num_mel_bins - high) // config.frequency_stride + 1,
            prefix=2,
        )
    return None
