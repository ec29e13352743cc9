"""A projector that looks at every window in two resolutions."""

from typing import cast

from torch import nn

from avfusion.modules.projector.sliding_window_projector import SlidingWindowProjector
from avfusion.modules.projector.two_resolution_encoder import StreamingTwoResolutionEncoder, TwoResolutionEncoder
from avfusion.modules.qformer.causal_qformer import CausalQFormer
from avfusion.types import StreamingWindowEncoder


class MultiResolutionProjector(SlidingWindowProjector):
    """Looks at every window as a whole and in small parts, with the same weights (video-SALMONN, arXiv 2406.15704).

    A :class:`SlidingWindowProjector` whose window encoder has two sets of queries: its own over each whole window, and
    ``fine_num_queries`` others over each of the window's parts of ``fine_window_frames`` frames. There are as many
    states of one kind as of the other; they are joined on the feature axis, the parts' first, and projected together.

    Args:
        window_encoder: a :class:`~avfusion.QuerySetWindowEncoder`; a :class:`~avfusion.CausalQFormer` of
            video-SALMONN's sizes without it.
        window_frames: frames a window.
        fine_window_frames: frames a part; must divide ``window_frames``.
        fine_num_queries: queries a part; ``window_frames / fine_window_frames`` times as many must be the encoder's.
        stride_frames: as for :class:`SlidingWindowProjector`.
        llm_dim: as for :class:`SlidingWindowProjector`.
        chunk_windows: as for :class:`SlidingWindowProjector`.
        checkpoint_chunks: as for :class:`SlidingWindowProjector`.

    Raises:
        InvalidTypeError: a window encoder that takes no other queries.
        InvalidValueError: parts that do not fit the window, or numbers of states that differ.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer, Frames, MultiResolutionProjector
        >>> qformer = CausalQFormer(
        ...     input_dim=24, hidden_size=16, num_heads=2, num_queries=8, window_frames=4, tokens_per_frame=5
        ... )
        >>> projector = MultiResolutionProjector(
        ...     window_encoder=qformer, window_frames=4, fine_window_frames=1, fine_num_queries=2, llm_dim=64
        ... )
        >>> out = projector(Frames.from_rate(torch.randn(1, 6, 5, 24), frame_rate=2.0))
        >>> out.embeddings.shape, out.query_states.shape
        (torch.Size([1, 16, 64]), torch.Size([2, 8, 32]))
    """

    def __init__(
        self,
        *,
        window_encoder: nn.Module | None = None,
        window_frames: int = 10,
        fine_window_frames: int = 1,
        fine_num_queries: int = 3,
        stride_frames: int | None = None,
        llm_dim: int = 4096,
        chunk_windows: int | None = None,
        checkpoint_chunks: bool = False,
    ) -> None:
        encoder = window_encoder
        if encoder is None:
            encoder = CausalQFormer(window_frames=window_frames, num_queries=30)
        kind = StreamingTwoResolutionEncoder if isinstance(encoder, StreamingWindowEncoder) else TwoResolutionEncoder
        two_resolutions = kind(
            window_encoder=encoder,
            window_frames=window_frames,
            fine_window_frames=fine_window_frames,
            fine_num_queries=fine_num_queries,
        )
        super().__init__(
            window_encoder=two_resolutions,
            window_frames=window_frames,
            stride_frames=stride_frames,
            llm_dim=llm_dim,
            chunk_windows=chunk_windows,
            checkpoint_chunks=checkpoint_chunks,
        )

    @property
    def fine_query_tokens(self) -> nn.Parameter:
        """``(fine query, hidden)``: the parts' queries."""
        encoder = cast("TwoResolutionEncoder", self.window_encoder)
        return encoder.fine_query_tokens
