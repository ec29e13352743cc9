"""Encoded clips in files: what frozen encoders give is computed once, and read in every epoch."""

try:
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise ImportError("avfusion.features needs transformers: pip install avfusion[hf]") from error

from avfusion.features.saving import save_features
from avfusion.features.settings import encoder_digest, feature_settings
from avfusion.features.sources import clip_key
from avfusion.features.stamps import FileStamp
from avfusion.features.store import FeatureStore, KeptConversations, load_features
from avfusion.features.writer import FeatureWriter

__all__ = [
    "FeatureStore",
    "FeatureWriter",
    "FileStamp",
    "KeptConversations",
    "clip_key",
    "encoder_digest",
    "feature_settings",
    "load_features",
    "save_features",
]
