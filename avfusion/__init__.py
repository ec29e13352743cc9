"""avfusion: components for language models that watch and listen."""

from avfusion.errors import (
    AlignmentError,
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    MediaError,
    PlaceholderError,
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
    "CheckpointError",
    "Frames",
    "InvalidTypeError",
    "InvalidValueError",
    "LLMEmbeddings",
    "MediaError",
    "PlaceholderError",
    "TokenStream",
    "Video",
    "VisualEncoder",
    "Waveform",
    "WindowEncoder",
    "Windows",
]
