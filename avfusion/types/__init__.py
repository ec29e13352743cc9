"""The values that components exchange, and the protocols that parts satisfy.

Every value is a ``NamedTuple`` of tensors: it unpacks, compares by field, and passes through pytree, ``torch.compile``
and ``torch.export``. Shapes and dtypes are checked when it is made, without waiting for the device. Masks are boolean
and ``True`` means real; masked values are never read. Times are seconds on the clip's
own clock, held as float64 whatever the dtype of the tokens, because one frame of an hour-long clip is below float32's
resolution.
"""

from avfusion.types.media import Video, Waveform
from avfusion.types.protocols import (
    AudioEncoder,
    RegularAudioEncoder,
    StreamingAudioEncoder,
    VisualEncoder,
)
from avfusion.types.state import map_state, state_from_tensors, state_tensors
from avfusion.types.streaming import FinalisedFrames, StreamedEmbeddings
from avfusion.types.tokens import Frames, LLMEmbeddings, TokenStream, Windows
from avfusion.types.window_encoders import (
    BoundedWindowEncoder,
    ConditionedWindowEncoder,
    QuerySetWindowEncoder,
    SharedFrameWindowEncoder,
    ShortWindowEncoder,
    SizedWindowEncoder,
    StreamingWindowEncoder,
    WindowEncoder,
)

__all__ = [
    "AudioEncoder",
    "BoundedWindowEncoder",
    "ConditionedWindowEncoder",
    "FinalisedFrames",
    "Frames",
    "LLMEmbeddings",
    "QuerySetWindowEncoder",
    "RegularAudioEncoder",
    "SharedFrameWindowEncoder",
    "ShortWindowEncoder",
    "SizedWindowEncoder",
    "StreamedEmbeddings",
    "StreamingAudioEncoder",
    "StreamingWindowEncoder",
    "TokenStream",
    "Video",
    "VisualEncoder",
    "Waveform",
    "WindowEncoder",
    "Windows",
    "map_state",
    "state_from_tensors",
    "state_tensors",
]
