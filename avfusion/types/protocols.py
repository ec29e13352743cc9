"""The protocols of encoders; :mod:`avfusion.testing` checks them."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.types.media import Video, Waveform
from avfusion.types.tokens import Frames, TokenStream


@runtime_checkable
class AudioEncoder(Protocol):
    """An encoder of audio; usually an ``nn.Module``, but no base class is needed.

    A clip's tokens are the same in any batch: they depend neither on other clips nor on the values of padding. A clip
    without audio has no tokens. :func:`avfusion.testing.check_token_stream_encoder` checks every requirement.

    Example:
        >>> import torch
        >>> from avfusion import AudioEncoder, TokenStream, Waveform
        >>> class Loudness(torch.nn.Module):
        ...     output_dim = 1
        ...
        ...     def forward(self, waveform):  # a token per tenth of a second
        ...         samples = waveform.samples.masked_fill(~waveform.mask, 0).unfold(1, 1600, 1600)
        ...         loudness = samples.square().mean(-1, keepdim=True)
        ...         lengths = waveform.lengths // 1600
        ...         return TokenStream.from_rate(loudness, rate=10.0, lengths=lengths, start=waveform.start)
        >>> isinstance(Loudness(), AudioEncoder)
        True
        >>> Loudness()(Waveform.from_samples([torch.ones(8000)], sample_rate=16000)).tokens.shape
        torch.Size([1, 5, 1])
    """

    output_dim: int
    """Width of the tokens."""

    def __call__(self, waveform: Waveform, /) -> TokenStream:
        """Tokens of every clip, with times on the clip's clock; padding never becomes a real token.

        Args:
            waveform: ``(batch, sample)`` audio; each clip begins at ``waveform.start`` seconds.

        Returns:
            ``(batch, time, output_dim)`` tokens of the parameters' dtype on their device, with float64 timestamps: the
            centre of the interval that each token covers. Timestamps must not decrease.
        """
        ...


@runtime_checkable
class RegularAudioEncoder(AudioEncoder, Protocol):
    """An audio encoder with a constant token rate, from which a connector's sizes follow.

    Example:
        >>> from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model
        >>> from avfusion import RegularAudioEncoder
        >>> from avfusion.encoders import HFAudioEncoder
        >>> config = Wav2Vec2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        >>> audio = HFAudioEncoder(model=Wav2Vec2Model(config), feature_extractor=Wav2Vec2FeatureExtractor())
        >>> isinstance(audio, RegularAudioEncoder), audio.rate, audio.tokens_per_step
        (True, 50.0, 1)
    """

    rate: float
    """Time steps per second."""
    tokens_per_step: int
    """Tokens that share one time."""


@runtime_checkable
class StreamingAudioEncoder(AudioEncoder, Protocol):
    """An audio encoder that takes audio in chunks; its concatenated tokens equal those of the whole clip.

    A state is a tree of tuples and tensors whose first axis is the batch. A step never changes it, and
    :func:`~avfusion.map_state` and :func:`~avfusion.state_tensors` take it. Clips may pause and end at different times.

    Example:
        >>> from avfusion import StreamingAudioEncoder
        >>> from avfusion.encoders import BlockwiseAudioEncoder
        >>> all(hasattr(BlockwiseAudioEncoder, name) for name in ("initial_state", "step", "flush", "watermark"))
        True
    """

    delay: float
    """Seconds that a token waits at most, from the audio that it covers to the step that returns it."""

    def initial_state(self, batch_size: int = 1, /) -> Any:
        """The state before any audio."""
        ...

    def step(
        self,
        waveform: Waveform | None,
        state: Any,
        /,
        *,
        watermark: float | Float[Tensor, " batch"] | None = None,
        end: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[TokenStream, Any]:
        """Appends audio, with times on the clips' clock; returns the tokens that are now final, and the new state.

        ``watermark`` is the time up to which the audio is complete, so that pauses are not waited for.
        ``end`` marks clips that end; new clips follow in their rows.
        """
        ...

    def flush(self, state: Any, /) -> TokenStream:
        """The remaining tokens of all clips."""
        ...

    def watermark(self, state: Any, /) -> Float[Tensor, " batch"]:
        """Seconds up to which all tokens have been returned; ``-inf`` before the first audio."""
        ...


@runtime_checkable
class VisualEncoder(Protocol):
    """An encoder of video frames; usually an ``nn.Module``, but no base class is needed.

    A clip's tokens are the same in any batch: they depend neither on other clips nor on the values of padding. Frames
    of a clip may attend to each other. :func:`avfusion.testing.check_visual_encoder` checks every requirement.

    Example:
        >>> import torch
        >>> from avfusion import Frames, Video, VisualEncoder
        >>> class MeanColour(torch.nn.Module):
        ...     output_dim, tokens_per_frame = 3, 1
        ...
        ...     def forward(self, video):
        ...         return Frames(video.pixels.float().mean((3, 4))[:, :, None], video.mask[..., None], video.spans)
        >>> isinstance(MeanColour(), VisualEncoder)
        True
        >>> MeanColour()(Video.from_rate(torch.zeros(1, 4, 3, 8, 8), frame_rate=2.0)).tokens.shape
        torch.Size([1, 4, 1, 3])
    """

    output_dim: int
    """Width of the tokens."""
    tokens_per_frame: int
    """Tokens of one frame."""

    def __call__(self, video: Video, /) -> Frames:
        """Tokens of every frame, with the spans of the video.

        Args:
            video: ``(batch, frame, 3, height, width)`` pixels of any size, uint8 or in 0 … 1.

        Returns:
            ``(batch, frame, tokens_per_frame, output_dim)`` tokens of the parameters' dtype on their device; a frame is
            real if it is in the video.
        """
        ...
