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
class StreamingAudioEncoder(AudioEncoder, Protocol):
    """An audio encoder that hears sound as it comes; what it gives, put together, is what it gives for the whole.

    A state is a tree of tuples and tensors whose first axis is the batch, and is never changed:
    :func:`~avfusion.map_state` and :func:`~avfusion.state_tensors` take it. Each clip comes, stops and ends at its own
    time.
    """

    delay: float
    """Seconds that a token waits at most, from the sound that it stands for to the step that gives it."""

    def initial_state(self, batch_size: int = 1, /) -> Any:
        """Clips of which nothing has been heard."""
        ...

    def step(
        self,
        waveform: Waveform | None,
        state: Any,
        /,
        *,
        until: float | Float[Tensor, " batch"] | None = None,
        end: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[TokenStream, Any]:
        """Hears what has come, on the clips' clock, and gives the tokens that are final now, and the new state.

        ``until`` says up to when sound has now been given in full: where none came for a while, none is waited for.
        ``end`` marks clips that are over, and followed by new ones.
        """
        ...

    def flush(self, state: Any, /) -> TokenStream:
        """The tokens that remain, as if all clips were over."""
        ...

    def passed(self, state: Any, /) -> Float[Tensor, " batch"]:
        """Seconds up to which all tokens have been given; ``-inf`` before the first sound."""
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
