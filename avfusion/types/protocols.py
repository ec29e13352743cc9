"""What a part has to offer to fit; :mod:`avfusion.testing` says whether it does."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.types.media import Video, Waveform
from avfusion.types.tokens import Frames, TokenStream


@runtime_checkable
class AudioEncoder(Protocol):
    """What an encoder of sound needs to fit; usually an ``nn.Module``, of no particular base class.

    It gives each clip of a batch the tokens that the clip has alone: neither other clips nor padding, whatever it
    holds, change them. A clip without sound has none. :func:`avfusion.testing.check_token_stream_encoder` checks all
    that is asked, and names what is wrong.

    Example:
        >>> import torch
        >>> from avfusion import AudioEncoder, TokenStream, Waveform
        >>> class Loudness(torch.nn.Module):
        ...     output_dim = 1
        ...
        ...     def forward(self, waveform):  # a token of each tenth of a second
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
        """Tokens of every clip, centred on the clip's clock; padding never becomes a real token.

        Args:
            waveform: ``(batch, sample)`` sound; each clip begins at ``waveform.start`` seconds.

        Returns:
            ``(batch, time, output_dim)`` tokens of the parameters' dtype on their device, with the float64 seconds at
            which the stretch that each stands for is centred, which must not decrease.
        """
        ...


@runtime_checkable
class RegularAudioEncoder(AudioEncoder, Protocol):
    """An audio encoder whose tokens come at one rate, so that a connector's sizes follow from it.

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
    """Time steps a second."""
    tokens_per_step: int
    """Tokens that share one time."""


@runtime_checkable
class StreamingAudioEncoder(AudioEncoder, Protocol):
    """An audio encoder that hears sound as it comes; what it gives, put together, is what it gives for the whole.

    A state is a tree of tuples and tensors whose first axis is the batch, and is never changed:
    :func:`~avfusion.map_state` and :func:`~avfusion.state_tensors` take it. Each clip comes, stops and ends at its own
    time.

    Example:
        >>> from avfusion import StreamingAudioEncoder
        >>> from avfusion.encoders import BlockwiseAudioEncoder
        >>> all(hasattr(BlockwiseAudioEncoder, name) for name in ("initial_state", "step", "flush", "watermark"))
        True
    """

    delay: float
    """Seconds that a token waits at most, from the sound that it stands for to the step that gives it."""

    def initial_state(self, batch_size: int = 1, /) -> Any:
        """Clips of which nothing has been heard."""
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
        """Hears what has come, on the clips' clock, and gives the tokens that are final now, and the new state.

        ``watermark`` says up to when the audio is complete: where none came for a while, none is waited for.
        ``end`` marks clips that are over, and followed by new ones.
        """
        ...

    def flush(self, state: Any, /) -> TokenStream:
        """The tokens that remain, as if all clips were over."""
        ...

    def watermark(self, state: Any, /) -> Float[Tensor, " batch"]:
        """Seconds up to which all tokens have been given; ``-inf`` before the first sound."""
        ...


@runtime_checkable
class VisualEncoder(Protocol):
    """What an encoder of pictures needs to fit; usually an ``nn.Module``, of no particular base class.

    It gives each clip of a batch the tokens that the clip has alone: neither other clips nor padding, whatever it
    holds, change them. Frames of one clip may see each other. :func:`avfusion.testing.check_visual_encoder` checks all
    that is asked, and names what is wrong.

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
            video: ``(batch, frame, 3, height, width)`` pictures of any size, uint8 or in 0 … 1.

        Returns:
            ``(batch, frame, tokens_per_frame, output_dim)`` tokens of the parameters' dtype on their device; a frame is
            real if it is in the video.
        """
        ...
