"""Whisper's encoder on audio of any length."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, WhisperConfig, WhisperFeatureExtractor, WhisperPreTrainedModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avfusion.encoders._audio import AudioTower, check_waveform
from avfusion.encoders._log_mel import log_mel
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.functional import cut_chunks, scatter_masked
from avfusion.types import TokenStream, Waveform


class _EncoderOnly(WhisperPreTrainedModel):
    """The encoder of a Whisper checkpoint, without the decoder."""

    _keys_to_ignore_on_load_unexpected = (r"decoder\.", r"proj_out\.")

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        self.encoder = WhisperEncoder(config)
        self.post_init()


class WhisperAudioEncoder(AudioTower):
    """Whisper's encoder for audio of any length: 50 tokens per second.

    The audio is cut into chunks of the model's input length (30 s) or less. Each chunk is padded with silence, as by
    Whisper's own feature extractor, and encoded separately; the chunks of all clips run in one batch. Tokens of padding
    are dropped: a clip has ``ceil(samples / 320)`` tokens. A clip without audio has no tokens.
    ``WhisperAudioEncoder.from_pretrained("openai/whisper-large-v3")`` loads only the encoder of a checkpoint.

    Args:
        model: a ``WhisperModel``, ``WhisperForConditionalGeneration`` or ``WhisperEncoder``; the decoder is dropped.
        feature_extractor: the model's feature extractor, with sample rate and mel filters.
        chunk_seconds: length of the chunks, at most the model's input length, the default. Shorter chunks use only the
            first positions of the model, without padding by silence: the cost is proportional to their length, but
            the model was not trained on such inputs.
        chunk_batch_size: chunks per call of the model.
        frozen: no gradients, always in evaluation mode. Sets ``requires_grad`` of ``model``'s own parameters.

    Raises:
        InvalidTypeError: ``model`` is not a Whisper model.
        InvalidValueError: the number of mel bands of ``feature_extractor`` is not the model's, or
            ``chunk_seconds`` is longer than the model's input.

    Example:
        >>> import torch
        >>> from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
        >>> from avfusion import Waveform
        >>> from avfusion.encoders import WhisperAudioEncoder
        >>> config = WhisperConfig(
        ...     d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        ...     encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=8, max_source_positions=50,
        ...     pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        ... )
        >>> audio = WhisperAudioEncoder(model=WhisperModel(config), feature_extractor=WhisperFeatureExtractor())
        >>> stream = audio(Waveform.from_samples([torch.randn(40000), torch.randn(8000)], sample_rate=16000))
        >>> stream.tokens.shape, stream.mask.sum(1).tolist(), stream.timestamps[0, :2].tolist()
        (torch.Size([2, 125, 16]), [125, 25], [0.01, 0.03])
    """

    _parts: ClassVar[dict[str, Any]] = {"model": _EncoderOnly, "feature_extractor": WhisperFeatureExtractor}

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        feature_extractor: WhisperFeatureExtractor,
        chunk_seconds: float | None = None,
        chunk_batch_size: int = 16,
        frozen: bool = True,
    ) -> None:
        super().__init__(group_size=chunk_batch_size, group_name="chunk_batch_size", frozen=frozen)
        candidates = (model, getattr(model, "encoder", None), getattr(getattr(model, "model", None), "encoder", None))
        encoder = next((found for found in candidates if isinstance(found, WhisperEncoder)), None)
        if encoder is None:
            raise InvalidTypeError(f"model: must be a Whisper model, found {type(model).__name__}")
        if feature_extractor.feature_size != encoder.config.num_mel_bins:
            raise InvalidValueError(
                f"feature_extractor: must make the model's {encoder.config.num_mel_bins} mel bands, "
                f"found {feature_extractor.feature_size}"
            )
        self.model = encoder
        self.feature_extractor = feature_extractor
        self.output_dim: int = encoder.config.d_model
        self.sample_rate: int = feature_extractor.sampling_rate
        self.hop: int = feature_extractor.hop_length * encoder.conv1.stride[0] * encoder.conv2.stride[0]
        most = encoder.config.max_source_positions
        positions = most if chunk_seconds is None else round(chunk_seconds * self.rate)
        if not 1 <= positions <= most:
            raise InvalidValueError(
                f"chunk_seconds: must be from {1 / self.rate:g} to the model's {most / self.rate:g}, "
                f"found {chunk_seconds}"
            )
        self.chunk_samples: int = positions * self.hop
        self._settle(encoder)

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.sample_rate / self.hop

    @property
    def _positions(self) -> int:
        """Tokens of a chunk."""
        return self.chunk_samples // self.hop

    @property
    def chunk_seconds(self) -> float:
        """Length of the model's input in seconds."""
        return self.chunk_samples / self.sample_rate

    def _count(self, samples: Tensor) -> Tensor:
        return (samples + self.hop - 1) // self.hop

    def timeline(self, waveform: Waveform) -> TokenStream:
        """The timestamps of :meth:`forward` without running the model: the same stream with tokens of width 0."""
        check_waveform(waveform, self.sample_rate)
        kept = self._count(waveform.lengths)
        nothing = torch.empty(len(kept), int(kept.max()), 0, device=kept.device)
        return TokenStream.from_rate(nothing, self.rate, lengths=kept, start=waveform.start)

    def forward(self, waveform: Waveform) -> TokenStream:
        """Encodes every clip.

        Args:
            waveform: audio at ``sample_rate``, on any device.

        Returns:
            Tokens ``(batch, time, output_dim)`` of the model's dtype on its device, zero where masked; token ``i`` is
            centred at ``waveform.start + (i + 0.5) / rate``.

        Raises:
            InvalidTypeError: ``waveform`` is not a :class:`~avfusion.Waveform`.
            InvalidValueError: another sample rate, or padding before real samples.
        """
        check_waveform(waveform, self.sample_rate)
        mask = waveform.mask.to(self.device)
        samples = waveform.samples.to(self.device).masked_fill(~mask, 0)

        def run(chunks: Tensor) -> Tensor:
            return self._run(log_mel(chunks, self.feature_extractor))

        return self._encode_chunks(samples, mask.sum(1), self.chunk_samples, waveform.start, run)

    def encode(self, features: Tensor, mask: Tensor | None = None, start: float | Tensor = 0.0) -> TokenStream:
        """Encodes log-mel features, as :func:`~avfusion.encoders.log_mel_chunks` computes them.

        Args:
            features: ``(batch, mel, frame)``, with features that were computed separately for each chunk.
            mask: ``(batch, frame)`` bool, real frames first; all real by default.
            start: seconds at which the clips begin, one number or ``(batch,)``.

        Returns:
            As for :meth:`forward`.

        Raises:
            InvalidValueError: a number of frames that is not a multiple of the chunk length.
        """
        frames = self.chunk_samples // self.feature_extractor.hop_length
        if features.ndim != 3 or features.shape[2] % frames:
            raise InvalidValueError(
                f"features: must be (batch, mel, frame) in whole chunks of {frames} frames, "
                f"found shape {tuple(features.shape)}"
            )
        values = features.to(self.device).transpose(1, 2)
        mask = values.new_ones(values.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        lengths = mask.to(self.device).sum(1)
        return self._encode_chunks(values, lengths, frames, start, lambda chunks: self._run(chunks.transpose(1, 2)))

    def _encode_chunks(
        self, values: Tensor, lengths: Tensor, size: int, start: Any, run: Callable[[Tensor], Tensor]
    ) -> TokenStream:
        """Encodes ``(batch, time, ...)`` values in chunks of ``size``."""
        chunks, real = cut_chunks(values, lengths, size)
        tokens = scatter_masked(self._in_groups(run, chunks[real]), real).flatten(1, 2)
        of_a_token = size // self._positions
        kept = (lengths + of_a_token - 1) // of_a_token
        tokens = tokens[:, : int(kept.max())]
        stream = TokenStream.from_rate(tokens, self.rate, lengths=kept, start=start)
        return stream._replace(tokens=tokens.masked_fill(~stream.mask[..., None], 0))

    def _run(self, features: Tensor) -> Tensor:
        """``(chunk, position, dim)`` of ``(chunk, mel, frame)``."""
        features = features.to(self.dtype)
        if self._positions == self.model.config.max_source_positions:
            return self.model(features).last_hidden_state
        # The model raises an error for shorter inputs; its layers do not.
        states = F.gelu(self.model.conv2(F.gelu(self.model.conv1(features)))).transpose(1, 2)
        states = states + self.model.embed_positions.weight[: self._positions]
        states = F.dropout(states, self.model.dropout, self.training)
        for layer in self.model.layers:
            states = layer(states, None)
        return self.model.layer_norm(states)
