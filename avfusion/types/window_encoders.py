"""What a window encoder has to offer to fit, and what more it may offer.

The projector looks at this once, when it is built: each Protocol here is checked with ``isinstance``, by attributes and
by the arguments that calls name.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from avfusion._shapes import Bool, Float, Int
from avfusion.types.structure import SignatureProtocol


@runtime_checkable
class WindowEncoder(Protocol, metaclass=SignatureProtocol):
    """Anything that turns a window of frames into a fixed number of states; usually an ``nn.Module``.

    :func:`avfusion.testing.check_window_encoder` checks all that is asked, and names what is wrong.

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
    """States a window."""
    output_dim: int
    """Width of the states."""

    def __call__(
        self, tokens: Float[Tensor, "window frame token dim"], mask: Bool[Tensor, "window frame token"], /
    ) -> Float[Tensor, "window query hidden"]:
        """States of each window. Masked tokens are zero and must not matter; windows are independent of each other.

        A window in which nothing is real must give finite states, for which the projector puts zeros; no windows give
        none.

        Args:
            tokens: ``(window, frame, token, dim)``.
            mask: ``(window, frame, token)`` bool.

        Returns:
            ``(window, num_queries, output_dim)`` in the tokens' dtype.
        """
        ...


@runtime_checkable
class ConditionedWindowEncoder(WindowEncoder, Protocol):
    """A window encoder that is told what to look for: its call takes an instruction.

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
        """States of each window under its instruction, of which masked tokens must not matter.

        Args:
            tokens: as for :class:`WindowEncoder`.
            mask: as for :class:`WindowEncoder`.
            instruction: ``(window, length, instruction_dim)``; ``None`` for none.
            instruction_mask: ``(window, length)`` bool; everything is real without it.
        """
        ...


@runtime_checkable
class SharedFrameWindowEncoder(WindowEncoder, Protocol):
    """A window encoder that takes overlapping windows as frames that they share, each once.

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
            tokens: ``(window, frame, token, dim)``, which may hold anything where masked; with ``frame_index``
                ``(row, token, dim)``, finite where masked.
            mask: ``(window, frame, token)`` bool, or ``None``: all real.
            frame_index: ``(window, frame)`` int64: the rows of each window's frames.
        """
        ...


@runtime_checkable
class QuerySetWindowEncoder(WindowEncoder, Protocol):
    """A window encoder that answers other queries than its own, as :class:`~avfusion.MultiResolutionProjector` asks.

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
    """A window encoder that takes windows of fewer frames, and gives what it gives with masked frames behind them.

    Example:
        >>> from avfusion import CausalQFormer, ShortWindowEncoder
        >>> qformer = CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, tokens_per_frame=4)
        >>> isinstance(qformer, ShortWindowEncoder), qformer.frame_multiple
        (True, 1)
    """

    frame_multiple: int
    """Short windows have a multiple of so many frames."""


@runtime_checkable
class StreamingWindowEncoder(WindowEncoder, Protocol):
    """A window encoder that takes windows frame by frame; others get whole windows in streams too.

    :func:`avfusion.testing.check_streaming_window_encoder` checks all that is asked, and names what is wrong.

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
        """Windows without frames: a tree of tuples and tensors whose first axis is the row."""
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

    def flush(self, state: Any, /, **conditioning: Tensor) -> Float[Tensor, "row query hidden"]:
        """The states of windows of the frames so far; ``conditioning`` as for the call, if that takes any."""
        ...
