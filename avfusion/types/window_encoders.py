"""The protocol of a window encoder, and its optional capabilities.

The projector checks each Protocol with ``isinstance`` when it is built: by attributes, and by the named arguments of
calls.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.types.structure import SignatureProtocol


@runtime_checkable
class WindowEncoder(Protocol, metaclass=SignatureProtocol):
    """Maps a window of frames to a fixed number of states; usually an ``nn.Module``.

    :func:`avfusion.testing.check_window_encoder` checks every requirement.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer, WindowEncoder
        >>> class MeanOfWindow(torch.nn.Module):
        ...     num_queries, output_dim = 1, 24
        ...
        ...     def forward(self, tokens, mask):
        ...         return tokens.sum((1, 2))[:, None] / mask.sum((1, 2)).clamp(min=1)[:, None, None]
        >>> isinstance(MeanOfWindow(), WindowEncoder), issubclass(CausalQFormer, torch.nn.Module)
        (True, True)
        >>> MeanOfWindow()(torch.ones(2, 5, 4, 24), torch.ones(2, 5, 4, dtype=torch.bool)).shape
        torch.Size([2, 1, 24])
    """

    num_queries: int
    """States per window."""
    output_dim: int
    """Width of the states."""

    def __call__(
        self, tokens: Float[Tensor, "window frame token dim"], mask: Bool[Tensor, "window frame token"], /
    ) -> Float[Tensor, "window query hidden"]:
        """States of each window. Masked tokens are zero and must not affect the result; windows are independent.

        A fully masked window must give finite states, which the projector replaces with zeros. An empty batch must give
        an empty result.

        Args:
            tokens: ``(window, frame, token, dim)``.
            mask: ``(window, frame, token)`` bool.

        Returns:
            ``(window, num_queries, output_dim)`` in the tokens' dtype.
        """
        ...


@runtime_checkable
class ConditionedWindowEncoder(WindowEncoder, Protocol):
    """A window encoder with conditioning: its call takes an instruction.

    Example:
        >>> from avfusion import CausalQFormer, ConditionedWindowEncoder
        >>> sizes = {"input_dim": 8, "hidden_size": 8, "num_heads": 2, "tokens_per_frame": 4}
        >>> isinstance(CausalQFormer(**sizes, instruction_dim=6), ConditionedWindowEncoder)
        True
        >>> isinstance(CausalQFormer(**sizes), ConditionedWindowEncoder)  # its instruction_dim is None
        False
    """

    instruction_dim: int
    """Width of the instruction's tokens."""

    def __call__(
        self,
        tokens: Float[Tensor, "window frame token dim"],
        mask: Bool[Tensor, "window frame token"],
        /,
        *,
        instruction: Float[Tensor, "window length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "window length"] | None = None,
    ) -> Float[Tensor, "window query hidden"]:
        """States of each window under its instruction, whose masked tokens must not affect the result.

        Args:
            tokens: as for :class:`WindowEncoder`.
            mask: as for :class:`WindowEncoder`.
            instruction: ``(window, length, instruction_dim)``; ``None`` for none.
            instruction_mask: ``(window, length)`` bool; all real by default.
        """
        ...


@runtime_checkable
class SharedFrameWindowEncoder(WindowEncoder, Protocol):
    """A window encoder that takes the frames of overlapping windows once, with an index.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer, SharedFrameWindowEncoder
        >>> qformer = CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, tokens_per_frame=4)
        >>> isinstance(qformer, SharedFrameWindowEncoder)
        True
        >>> qformer(torch.randn(3, 4, 8), None, frame_index=torch.tensor([[0, 1], [1, 2]])).shape  # 3 frames
        torch.Size([2, 32, 8])
    """

    def __call__(
        self,
        tokens: Float[Tensor, "window frame token dim"] | Float[Tensor, "row token dim"],
        mask: Bool[Tensor, "window frame token"] | None,
        /,
        *,
        frame_index: Int[Tensor, "window frame"] | None = None,
    ) -> Float[Tensor, "window query hidden"]:
        """States of each window.

        Args:
            tokens: ``(window, frame, token, dim)``, with arbitrary values where masked; with ``frame_index``
                ``(row, token, dim)``, finite where masked.
            mask: ``(window, frame, token)`` bool, or ``None``: all real.
            frame_index: ``(window, frame)`` int64: the rows of each window's frames.
        """
        ...


@runtime_checkable
class QuerySetWindowEncoder(WindowEncoder, Protocol):
    """A window encoder that takes other queries than its own, as :class:`~avfusion.MultiResolutionProjector` needs.

    Example:
        >>> from avfusion import CausalQFormer, QuerySetWindowEncoder
        >>> qformer = CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, tokens_per_frame=4)
        >>> isinstance(qformer, QuerySetWindowEncoder)
        True
    """

    def __call__(
        self,
        tokens: Float[Tensor, "window frame token dim"],
        mask: Bool[Tensor, "window frame token"],
        /,
        *,
        queries: Float[Tensor, "query hidden"] | None = None,
    ) -> Float[Tensor, "window query hidden"]:
        """States of each window, one for each query.

        Args:
            tokens: as for :class:`WindowEncoder`.
            mask: as for :class:`WindowEncoder`.
            queries: ``(query, output_dim)``; the encoder's own without them.
        """
        ...


@runtime_checkable
class ShortWindowEncoder(WindowEncoder, Protocol):
    """A window encoder that takes short windows, with the same result as for windows padded with masked frames.

    Example:
        >>> from avfusion import CausalQFormer, ShortWindowEncoder
        >>> qformer = CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, tokens_per_frame=4)
        >>> isinstance(qformer, ShortWindowEncoder), qformer.frame_multiple
        (True, 1)
    """

    frame_multiple: int
    """The number of frames of a short window is a multiple of this."""


@runtime_checkable
class SizedWindowEncoder(WindowEncoder, Protocol):
    """A window encoder for frames of one size.

    Example:
        >>> from avfusion import CausalQFormer, SizedWindowEncoder
        >>> qformer = CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, tokens_per_frame=4)
        >>> isinstance(qformer, SizedWindowEncoder), qformer.input_dim, qformer.tokens_per_frame
        (True, 8, 4)
    """

    input_dim: int
    """Width of a frame's tokens."""
    tokens_per_frame: int
    """Tokens of a frame."""


@runtime_checkable
class BoundedWindowEncoder(WindowEncoder, Protocol):
    """A window encoder with a maximum window length.

    Example:
        >>> from avfusion import BoundedWindowEncoder, CausalQFormer
        >>> qformer = CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, tokens_per_frame=4, window_frames=6)
        >>> isinstance(qformer, BoundedWindowEncoder), qformer.window_frames
        (True, 6)
    """

    window_frames: int
    """Maximum number of frames of a window."""


@runtime_checkable
class StreamingWindowEncoder(WindowEncoder, Protocol):
    """A window encoder that takes windows frame by frame; others get whole windows in streams too.

    :func:`avfusion.testing.check_streaming_window_encoder` checks every requirement.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer, StreamingWindowEncoder
        >>> qformer = CausalQFormer(input_dim=24, hidden_size=16, num_heads=2, num_queries=3, tokens_per_frame=4)
        >>> isinstance(qformer, StreamingWindowEncoder)
        True
        >>> _, state = qformer.step(torch.randn(2, 1, 4, 24), qformer.initial_state(2))
        >>> qformer.flush(state).shape
        torch.Size([2, 3, 16])
    """

    def initial_state(self, batch_size: int, /) -> Any:
        """The state before any frames: a tree of tuples and tensors whose first axis is the row."""
        ...

    def step(
        self,
        tokens: Float[Tensor, "row frame token dim"],
        state: Any,
        /,
        *,
        mask: Bool[Tensor, "row frame token"] | None = None,
    ) -> tuple[Any, Any]:
        """Appends frames to each row's window; the second result is the new state."""
        ...

    def flush(self, state: Any, /, **conditioning: Tensor) -> Float[Tensor, "row query hidden"]:
        """The states of windows of the frames so far; ``conditioning`` as for the call, if that takes any."""
        ...
