"""avfusion: components for language models that watch and listen."""

from avfusion.errors import (
    AlignmentError,
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    MediaError,
    PlaceholderError,
)
from avfusion.functional.budget import Budget, ConnectorSize, LanguageModelSize, estimate_budget
from avfusion.modules import (
    AudioVisualConnector,
    CausalQFormer,
    DiversityLoss,
    FrameSynchroniser,
    MultiResolutionProjector,
    SlidingWindowProjector,
)
from avfusion.types import (
    AudioEncoder,
    Frames,
    LLMEmbeddings,
    TokenStream,
    Video,
    VisualEncoder,
    Waveform,
    WindowEncoder,
    Windows,
)

__version__ = "0.1.0"

__all__ = [
    "AlignmentError",
    "AudioEncoder",
    "AudioVisualConnector",
    "Budget",
    "CausalQFormer",
    "CheckpointError",
    "ConnectorSize",
    "DiversityLoss",
    "FrameSynchroniser",
    "Frames",
    "InvalidTypeError",
    "InvalidValueError",
    "LLMEmbeddings",
    "LanguageModelSize",
    "MediaError",
    "MultiResolutionProjector",
    "PlaceholderError",
    "SlidingWindowProjector",
    "TokenStream",
    "Video",
    "VisualEncoder",
    "Waveform",
    "WindowEncoder",
    "Windows",
    "estimate_budget",
]
