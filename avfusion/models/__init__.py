"""Whole models: encoders, connector and any causal language model of transformers."""

try:
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise ImportError("avfusion.models needs transformers: pip install avfusion[hf]") from error

from avfusion.models.audio_visual_language_model import AudioVisualLanguageModel
from avfusion.models.clips import Clip
from avfusion.models.conversations import conversation, first_question, media_sources
from avfusion.models.embedding_scale import embedding_norm, match_scale
from avfusion.models.feature_batches import collate_features, select_features, split_features
from avfusion.models.live import KeepEveryNth, KeepNewest, KeptWindows, LiveSession, RetentionPolicy, Watched
from avfusion.models.media_batch import MediaBatch
from avfusion.models.merge import merge_embeddings, select_clips
from avfusion.models.output import AudioVisualOutput, EmbeddingsOutput
from avfusion.models.processor import AudioVisualProcessor
from avfusion.models.prompts import prepare_inputs
from avfusion.models.rowwise import rowwise_options

__all__ = [
    "AudioVisualLanguageModel",
    "AudioVisualOutput",
    "AudioVisualProcessor",
    "Clip",
    "EmbeddingsOutput",
    "KeepEveryNth",
    "KeepNewest",
    "KeptWindows",
    "LiveSession",
    "MediaBatch",
    "RetentionPolicy",
    "Watched",
    "collate_features",
    "conversation",
    "embedding_norm",
    "first_question",
    "match_scale",
    "media_sources",
    "merge_embeddings",
    "prepare_inputs",
    "rowwise_options",
    "select_clips",
    "select_features",
    "split_features",
]
