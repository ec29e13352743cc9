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
    ClosedFrames,
    Frames,
    LLMEmbeddings,
    StreamedEmbeddings,
    StreamingAudioEncoder,
    StreamingWindowEncoder,
    TokenStream,
    Video,
    VisualEncoder,
    Waveform,
    WindowEncoder,
    Windows,
    map_state,
    state_from_tensors,
    state_tensors,
)

__version__ = "0.1.0"

__all__ = [
    "AlignmentError",
    "AudioEncoder",
    "AudioVisualConnector",
    "Budget",
    "CausalQFormer",
    "CheckpointError",
    "ClosedFrames",
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
    "StreamedEmbeddings",
    "StreamingAudioEncoder",
    "StreamingWindowEncoder",
    "TokenStream",
    "Video",
    "VisualEncoder",
    "Waveform",
    "WindowEncoder",
    "Windows",
    "estimate_budget",
    "map_state",
    "state_from_tensors",
    "state_tensors",
]
