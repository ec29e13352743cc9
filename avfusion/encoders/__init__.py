"""Pretrained encoders: audio to token streams, video to frames of tokens.

Each encoder is an ``nn.Module`` around a model that transformers or timm has loaded, takes the values that media
loading gives, and satisfies :class:`~avfusion.AudioEncoder` or :class:`~avfusion.VisualEncoder`. By default it is
frozen: its parameters take no gradient, it keeps no graph, and it stays in evaluation mode.
"""

try:
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise ImportError("avfusion.encoders needs transformers: pip install avfusion[hf]") from error

from avfusion.encoders._grid import TokenGrid, token_grid
from avfusion.encoders._image_processor import preprocess_videos
from avfusion.encoders._log_mel import LogMelChunks, log_mel, log_mel_chunks
from avfusion.encoders.blockwise import BlockwiseAudioEncoder
from avfusion.encoders.hf_audio import HFAudioEncoder
from avfusion.encoders.hf_vision import HFVisionEncoder
from avfusion.encoders.instructblip import InstructBlipVisualEncoder
from avfusion.encoders.timm import TimmVisualEncoder
from avfusion.encoders.whisper import WhisperAudioEncoder

__all__ = [
    "BlockwiseAudioEncoder",
    "HFAudioEncoder",
    "HFVisionEncoder",
    "InstructBlipVisualEncoder",
    "LogMelChunks",
    "TimmVisualEncoder",
    "TokenGrid",
    "WhisperAudioEncoder",
    "log_mel",
    "log_mel_chunks",
    "preprocess_videos",
    "token_grid",
]
