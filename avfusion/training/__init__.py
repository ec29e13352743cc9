"""Parts of a training recipe for audio-visual language models, each of which works alone."""

try:
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise ImportError("avfusion.training needs transformers: pip install avfusion[hf]") from error

from avfusion.training.alignment import AlignmentCollator, AlignmentLoss, AlignmentOutput, ConnectorAlignment
from avfusion.training.modality_dropout import drop_modalities
from avfusion.training.parameter_groups import parameter_groups
from avfusion.training.text_replay import TextReplay, base_answers
from avfusion.training.timed_text import TimedText, assign_texts

__all__ = [
    "AlignmentCollator",
    "AlignmentLoss",
    "AlignmentOutput",
    "ConnectorAlignment",
    "TextReplay",
    "TimedText",
    "assign_texts",
    "base_answers",
    "drop_modalities",
    "parameter_groups",
]
