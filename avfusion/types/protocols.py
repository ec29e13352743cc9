"""What a part has to offer to fit."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.types.media import Video, Waveform
from avfusion.types.tokens import Frames, TokenStream


@runtime_checkable
class AudioEncoder(Protocol):
    """Anything that turns sound into a token stream; usually an ``nn.Module``."""

    output_dim: int
    """Width of the tokens."""

    def __call__(self, waveform: Waveform, /) -> TokenStream:
        """Tokens of every clip, centred on the clip's clock; padding never becomes a real token."""
        ...


@runtime_checkable
class VisualEncoder(Protocol):
    """Anything that turns pictures into frames of tokens; usually an ``nn.Module``."""

    output_dim: int
    """Width of the tokens."""
    tokens_per_frame: int
    """Tokens of one frame."""

    def __call__(self, video: Video, /) -> Frames:
        """Tokens of every frame, with the spans of the video."""
        ...


@runtime_checkable
class WindowEncoder(Protocol):
    """Anything that turns a window of frames into a fixed number of states; usually an ``nn.Module``."""

    num_queries: int
    """States a window."""
    output_dim: int
    """Width of the states."""

    def __call__(
        self, tokens: Float[Tensor, "window frame token dim"], mask: Bool[Tensor, "window frame token"], /
    ) -> Float[Tensor, "window query hidden"]:
        """States of each window. Masked tokens are zero and must not matter; windows are independent of each other."""
        ...


@runtime_checkable
class StreamingWindowEncoder(WindowEncoder, Protocol):
    """A window encoder that takes windows frame by frame; others are given whole windows, in streams too."""

    def initial_state(self, batch_size: int, /) -> Any:
        """Windows in which nothing has been seen: a tree of tuples and tensors whose first axis is the row."""
        ...

    def step(
        self,
        tokens: Float[Tensor, "row frame token dim"],
        state: Any,
        /,
        *,
        mask: Bool[Tensor, "row frame token"] | None = None,
    ) -> tuple[Any, Any]:
        """Appends frames to each row's window; the second of what it gives is the new state."""
        ...

    def flush(self, state: Any, /, **guide: Tensor) -> Float[Tensor, "row query hidden"]:
        """What windows of the frames so far give; ``guide`` is what :meth:`__call__` takes beside them."""
        ...
