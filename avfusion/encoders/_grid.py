"""Where in time an audio model's tokens stand, worked out from its configuration."""

from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion.encoders._audio import check_waveform
from avfusion.errors import InvalidValueError
from avfusion.types import TokenStream, Waveform


class TokenGrid(NamedTuple):
    """Time steps of an audio model, in samples: step ``i`` covers ``[i * hop, i * hop + field)``.

    :func:`token_grid` derives it from a configuration, so that tokens can be counted without running the model.

    Attributes:
        hop: samples from one step to the next.
        field: samples that a step covers; the step is centred in them.
        least: number of samples to which shorter clips are padded.
        inside: whether a step exists only if its whole field is within the audio; otherwise if its centre is.
        most: maximal number of steps per call of the model, ``None`` for any.
        bands: tokens per step (frequency patches).
        prefix: tokens before the first step (class tokens).

    Example:
        >>> import torch
        >>> from transformers import Wav2Vec2Config
        >>> from avfusion import Waveform
        >>> from avfusion.encoders import token_grid
        >>> grid = token_grid(Wav2Vec2Config(), sample_rate=16000)
        >>> grid.hop, grid.field, grid.steps(16000)
        (320, 400, 49)
        >>> grid.timeline(Waveform.from_samples([torch.zeros(1000)], sample_rate=16000)).timestamps.tolist()
        [[0.0125, 0.0325]]
    """

    hop: float
    field: float
    least: int
    inside: bool = False
    most: int | None = None
    bands: int = 1
    prefix: int = 0

    def steps(self, samples: int) -> int:
        """Number of steps of a clip; at least one for a clip with audio."""
        if samples == 0:
            return 0
        if self.inside:
            return max(1, int((samples - self.field) // self.hop) + 1)
        return max(1, ceil((samples - self.field / 2) / self.hop))

    def timeline(self, waveform: Waveform) -> TokenStream:
        """The timestamps of the tokens of clips: a stream with tokens of width 0.

        Raises:
            InvalidTypeError: ``waveform`` is not a :class:`~avfusion.Waveform`.
            InvalidValueError: padding before real samples.
        """
        check_waveform(waveform)
        steps = torch.tensor([self.steps(length) for length in waveform.lengths.tolist()], device=waveform.mask.device)
        nothing = torch.empty(len(steps), int(steps.max()), 0, device=waveform.mask.device)
        regular = TokenStream.from_rate(
            nothing, waveform.sample_rate / self.hop, lengths=steps, start=waveform.start.to(nothing.device)
        )
        return self.spread(regular, waveform.sample_rate)

    def spread(self, steps: TokenStream, sample_rate: int) -> TokenStream:
        """Timestamps of regular steps, each repeated for every band."""
        times = steps.timestamps + (self.field - self.hop) / 2 / sample_rate
        return TokenStream(*(_repeated(value, self.bands) for value in (steps.tokens, steps.mask, times)))


def _repeated(values: Tensor, bands: int) -> Tensor:
    return values if bands == 1 else values.repeat_interleave(bands, dim=1)


def token_grid(config: Any, sample_rate: int, *, pool_frequency: bool = False) -> TokenGrid | None:
    """The time steps of a model of transformers, from its configuration.

    Supports the Wav2Vec2 family (convolutions over samples) and AST (patches of a spectrogram).

    Args:
        config: the model's configuration.
        sample_rate: sample rate of the feature extractor in Hz.
        pool_frequency: average the tokens of one step (AST's frequency patches).

    Returns:
        The grid, or ``None`` for a configuration without a hop size.

    Example:
        >>> from transformers import ASTConfig
        >>> from avfusion.encoders import token_grid
        >>> grid = token_grid(ASTConfig(), sample_rate=16000)
        >>> grid.hop / 16000, grid.bands  # a step every 0.1 s, of twelve patches
        (0.1, 12)
    """
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
            bands=1 if pool_frequency else (config.num_mel_bins - high) // config.frequency_stride + 1,
            prefix=2,
        )
    return None


def find_grid(model: Any, sample_rate: int, rate: float | None, first_centre: float | None) -> TokenGrid:
    """The grid of a model at a given rate, or, without it, the one that its configuration tells.

    Raises:
        InvalidValueError: neither is there, or numbers that are no rate and no time.
    """
    if rate is None:
        grid = token_grid(model.config, sample_rate)
        if grid is None:
            raise InvalidValueError(f"rate: must be given for {type(model).__name__}, whose configuration tells no hop")
        if first_centre is not None:
            raise InvalidValueError("first_centre: must come with rate, found it alone")
        return grid
    if not 0 < rate < float("inf"):
        raise InvalidValueError(f"rate: must be a positive, finite number of steps a second, found {rate}")
    hop = sample_rate / rate
    if first_centre is None:
        return TokenGrid(hop, hop, least=ceil(hop))
    if not 0 < first_centre < float("inf"):
        raise InvalidValueError(f"first_centre: must be a positive, finite number of seconds, found {first_centre}")
    field = 2 * first_centre * sample_rate
    return TokenGrid(hop, field, least=ceil(field))


def chunk_steps(seconds: float | None, grid: TokenGrid, rate: float) -> int | None:
    """Steps of a chunk of so many seconds; without these, as many as the model takes, ``None`` for any number.

    Raises:
        InvalidValueError: no whole number of steps and samples, or more than the model takes.
    """
    if seconds is None:
        return grid.most
    steps = seconds * rate
    chunk = round(steps)
    if chunk < 1 or abs(steps - chunk) > 1e-6 or abs(chunk * grid.hop - round(chunk * grid.hop)) > 1e-6:
        raise InvalidValueError(
            f"chunk_seconds: must be a whole number of samples and of steps of {1 / rate} s, found {seconds}"
        )
    if grid.most is not None and chunk > grid.most:
        raise InvalidValueError(
            f"chunk_seconds: must be at most {grid.most / rate}, which the model takes, found {seconds}"
        )
    return chunk
