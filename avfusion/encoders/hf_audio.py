"""Any audio encoder of transformers whose tokens stand at known times."""

from math import ceil
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModel, PreTrainedModel

from avfusion.encoders._audio import AudioTower, check_waveform
from avfusion.encoders._grid import chunk_steps, find_grid
from avfusion.encoders._loading import body
from avfusion.errors import InvalidValueError
from avfusion.functional import scatter_masked
from avfusion.types import TokenStream, Waveform


class _Piece(NamedTuple):
    clip: int
    first: int  # step of the clip
    steps: int
    features: dict[str, Tensor]


class HFAudioEncoder(AudioTower):
    """An audio encoder of transformers: Wav2Vec2, HuBERT, WavLM and similar models, AST, or another of known token
    rate.

    Each clip is processed by the feature extractor separately and without padding, and only clips of equal length are
    batched: many of these models (those with group normalisation over time) return different values for a padded clip,
    with or without a mask. ``HFAudioEncoder.from_pretrained("microsoft/wavlm-base-plus")`` loads one.

    * Wav2Vec2 and similar models: hop and receptive field follow from strides and kernels of the convolutions, 20 ms
      and 25 ms; a token is centred in its field. Trailing samples that do not fill a field have no token.
    * AST: a token is a time-frequency patch. All patches of a time step share its timestamp, low bands first, or are
      averaged with ``pool_frequency``. Audio longer than the model's input is cut into chunks such that the steps
      remain evenly spaced; a step is real if the centre of its patch is within the audio.
    * Any other model that maps the extractor's features to ``last_hidden_state`` ``(clip, time, dim)``: pass ``rate``,
      and ``first_centre`` and ``chunk_seconds`` if the defaults are wrong.

    Args:
        model: the audio encoder, or a model that contains one; its head is dropped.
        feature_extractor: the model's feature extractor. It normalises each clip (each chunk of a long clip) as
            configured.
        rate: time steps per second, if the configuration does not state it.
        first_centre: time in seconds at which the first step is centred; by default ``0.5 / rate``. Only with ``rate``.
        chunk_seconds: cut longer audio into chunks of this length, a whole number of steps. ``None``: no chunks, unless
            the model's input is bounded (AST).
        pool_frequency: average the tokens of one time step.
        chunk_batch_size: clips or chunks of equal length per call of the model.
        frozen: no gradients, always in evaluation mode. Sets ``requires_grad`` of ``model``'s own parameters.

    Raises:
        InvalidValueError: the rate is unknown, or a chunk is not a whole number of steps or is too long.

    Example:
        >>> import torch
        >>> from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model
        >>> from avfusion import Waveform
        >>> from avfusion.encoders import HFAudioEncoder
        >>> config = Wav2Vec2Config(
        ...     hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        ...     num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        ... )
        >>> audio = HFAudioEncoder(model=Wav2Vec2Model(config), feature_extractor=Wav2Vec2FeatureExtractor())
        >>> stream = audio(Waveform.from_samples([torch.randn(16000), torch.randn(8000)], sample_rate=16000))
        >>> stream.tokens.shape, stream.mask.sum(1).tolist(), stream.timestamps[0, :2].tolist()
        (torch.Size([2, 49, 16]), [49, 24], [0.0125, 0.0325])
    """

    _parts: ClassVar[dict[str, Any]] = {"model": AutoModel, "feature_extractor": AutoFeatureExtractor}

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        feature_extractor: Any,
        rate: float | None = None,
        first_centre: float | None = None,
        chunk_seconds: float | None = None,
        pool_frequency: bool = False,
        chunk_batch_size: int = 16,
        frozen: bool = True,
    ) -> None:
        super().__init__(group_size=chunk_batch_size, group_name="chunk_batch_size", frozen=frozen)
        self.model: Any = body(model, feature_extractor.model_input_names[0])
        self.feature_extractor = feature_extractor
        self.sample_rate: int = feature_extractor.sampling_rate
        self.pool_frequency = pool_frequency
        config = self.model.config
        adapted = getattr(config, "add_adapter", False)
        self.output_dim: int = config.output_hidden_size if adapted else config.hidden_size
        self._grid = find_grid(self.model, self.sample_rate, rate, first_centre)
        self._counted = rate is None
        self._chunk = chunk_steps(chunk_seconds, self._grid, self.rate)
        self._settle(self.model)

    @property
    def rate(self) -> float:
        """Time steps per second."""
        return self.sample_rate / self._grid.hop

    @property
    def tokens_per_step(self) -> int:
        """Number of tokens that share a timestamp; more than 1 only for AST, whose frequency patches do."""
        return 1 if self.pool_frequency else self._grid.bands

    def _count(self, samples: Tensor) -> Tensor:
        steps = [self._grid.steps(length) * self.tokens_per_step for length in samples.flatten().tolist()]
        return samples.new_tensor(steps).reshape(samples.shape)

    def timeline(self, waveform: Waveform) -> TokenStream:
        """The timestamps of :meth:`forward`: the same stream with tokens of width 0.

        Runs the model only if ``rate`` was given, because the number of steps is then unknown.
        """
        check_waveform(waveform, self.sample_rate)
        if self._counted:
            return self._grid._replace(bands=self.tokens_per_step).timeline(waveform)
        stream = self(waveform)
        return stream._replace(tokens=stream.tokens[..., :0])

    def forward(self, waveform: Waveform) -> TokenStream:
        """Encodes every clip.

        Args:
            waveform: audio at ``sample_rate``, on any device.

        Returns:
            Tokens ``(batch, time, output_dim)`` of the model's dtype on its device, zero where masked. A token is
            centred in its receptive field. A clip without audio has no tokens.

        Raises:
            InvalidTypeError: ``waveform`` is not a :class:`~avfusion.Waveform`.
            InvalidValueError: another sample rate, padding before real samples, or fewer tokens from the model than
                ``rate`` implies: ``rate`` is wrong, or the extractor truncated the audio (pass ``chunk_seconds``).
        """
        check_waveform(waveform, self.sample_rate)
        clips = zip(waveform.samples.detach().float().cpu(), waveform.lengths.tolist(), strict=True)
        pieces = [piece for clip, (samples, length) in enumerate(clips) for piece in self._cut(clip, samples[:length])]
        encoded = self._encode(pieces)

        ends = [piece.first + len(steps) for piece, steps in zip(pieces, encoded, strict=False)]
        real = torch.zeros(len(waveform.samples), max(ends, default=0), dtype=torch.bool)
        for piece, end in zip(pieces, ends, strict=True):
            real[piece.clip, piece.first : end] = True
        real = real.to(self.device)
        steps = scatter_masked(torch.cat(encoded), real)  # (batch, step, band, dim)
        bands = steps.shape[2]
        regular = TokenStream.from_rate(steps.flatten(2), self.rate, mask=real, start=waveform.start)
        stream = self._grid._replace(bands=bands).spread(regular._replace(tokens=steps[:, :, 0, :0]), self.sample_rate)
        return stream._replace(tokens=steps.flatten(1, 2))

    def _cut(self, clip: int, samples: Tensor) -> list[_Piece]:
        grid = self._grid
        total = grid.steps(len(samples))
        chunk = self._chunk or max(total, 1)
        pieces = []
        for first in range(0, total, chunk):
            begin = round(first * grid.hop)
            end = None if self._chunk is None else begin + ceil((chunk - 1) * grid.hop + grid.field)
            pieces.append(_Piece(clip, first, min(chunk, total - first), self._extract(samples[begin:end])))
        return pieces

    def _extract(self, samples: Tensor) -> dict[str, Tensor]:
        samples = F.pad(samples, (0, max(0, self._grid.least - len(samples))))
        features = self.feature_extractor(samples.numpy(), sampling_rate=self.sample_rate, return_tensors="pt")
        return {key: features[key] for key in self.feature_extractor.model_input_names if key in features}

    def _encode(self, pieces: list[_Piece]) -> list[Tensor]:
        """``(step, band, dim)`` of each piece."""
        if not pieces:
            silence = self._extract(torch.zeros(self._grid.least))
            return [self._run({key: value[:0] for key, value in silence.items()}).flatten(0, 1)]
        alike: dict[tuple[torch.Size, ...], list[int]] = {}
        for index, piece in enumerate(pieces):
            alike.setdefault(tuple(value.shape for value in piece.features.values()), []).append(index)
        encoded = [torch.empty(0)] * len(pieces)
        for indices in alike.values():
            batch = {key: torch.cat([pieces[i].features[key] for i in indices]) for key in pieces[indices[0]].features}
            for index, steps in zip(indices, self._run(batch), strict=True):
                encoded[index] = self._keep(steps, pieces[index].steps)
        return encoded

    def _run(self, features: dict[str, Tensor]) -> Tensor:
        if "attention_mask" in features and bool(features["attention_mask"].all()):
            features = {key: value for key, value in features.items() if key != "attention_mask"}

        def encode(*values: Tensor) -> Tensor:
            inputs = {
                key: value.to(self.device, self.dtype if value.is_floating_point() else None)
                for key, value in zip(features, values, strict=True)
            }
            hidden = self.model(**inputs).last_hidden_state[:, self._grid.prefix :]
            bands = self._grid.bands
            steps = hidden.unflatten(1, (bands, hidden.shape[1] // bands)).transpose(1, 2)
            return steps.mean(2, keepdim=True) if self.pool_frequency else steps

        return self._in_groups(encode, *features.values())

    def _keep(self, steps: Tensor, expected: int) -> Tensor:
        # A model may lose a step or two at the ends to its windows; more is another rate or a cut.
        if len(steps) < expected - 2:
            raise InvalidValueError(
                f"rate: {self.rate} steps per second imply {expected} steps for this audio, found {len(steps)}; "
                "the rate is wrong, or the feature extractor cuts the audio off (then give chunk_seconds)"
            )
        return steps[:expected]
