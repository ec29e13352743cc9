"""Whole models: encoders, connector and any causal language model of transformers."""

try:
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise ImportError("avfusion.models needs transformers: pip install avfusion[hf]") from error

from avfusion.models.audio_visual_language_model import AudioVisualLanguageModel
from avfusion.models.live import KeepEveryNth, KeepNewest, KeptWindows, LiveSession, RetentionPolicy, Watched
from avfusion.models.merge import merge_embeddings, select_clips
from avfusion.models.output import AudioVisualOutput, EmbeddingsOutput
from avfusion.models.prompts import prepare_inputs
from avfusion.models.rowwise import rowwise_options

__all__ = [
    "AudioVisualLanguageModel",
    "AudioVisualOutput",
    "EmbeddingsOutput",
    "KeepEveryNth",
    "KeepNewest",
    "KeptWindows",
    "LiveSession",
    "RetentionPolicy",
    "Watched",
    "merge_embeddings",
    "prepare_inputs",
    "rowwise_options",
    "select_clips",
]
