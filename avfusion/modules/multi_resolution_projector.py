"""Two resolutions of windows, joined."""

from typing import Any

import torch
from torch import Tensor, nn

from avfusion._shapes import Float
from avfusion.errors import InvalidValueError
from avfusion.modules.qformer.causal_qformer import CausalQFormer
from avfusion.modules.sliding_window_projector import SlidingWindowProjector
from avfusion.modules.streaming.resolutions import append_to_both, empty_resolutions, read_both


class MultiResolutionProjector(SlidingWindowProjector):
    """Looks at every window as a whole and in small parts, with the same weights (video-SALMONN, arXiv 2406.15704).

    The window encoder runs over each window with its own queries, and over each of the window's parts of
    ``fine_window_frames`` frames with ``fine_num_queries`` other queries. There are as many states of one kind as of
    the other; they are joined on the feature axis, the fine ones first, part by part in time, and projected together.

    Args:
        window_encoder: a window encoder whose call takes ``queries=``; a :class:`~avfusion.CausalQFormer` of
            video-SALMONN's sizes without it.
        window_frames: frames a window.
        fine_window_frames: frames a part; must divide ``window_frames``.
        fine_num_queries: queries a part; ``window_frames / fine_window_frames`` times as many must be the encoder's.
        stride_frames: as for :class:`SlidingWindowProjector`.
        llm_dim: as for :class:`SlidingWindowProjector`.
        chunk_windows: as for :class:`SlidingWindowProjector`.
        checkpoint_chunks: as for :class:`SlidingWindowProjector`.

    Raises:
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
        if window_encoder is None:
            window_encoder = CausalQFormer(window_frames=window_frames, num_queries=30)
        super().__init__(
            window_encoder=window_encoder,
            window_frames=window_frames,
            stride_frames=stride_frames,
            llm_dim=llm_dim,
            chunk_windows=chunk_windows,
            checkpoint_chunks=checkpoint_chunks,
        )
        if fine_window_frames < 1 or window_frames % fine_window_frames:
            raise InvalidValueError(
                f"fine_window_frames: must divide window_frames = {window_frames}, found {fine_window_frames}"
            )
        parts = window_frames // fine_window_frames
        if parts * fine_num_queries != self.num_queries:
            raise InvalidValueError(
                f"fine_num_queries: {parts} parts a window must give the encoder's {self.num_queries} states, "
                f"found {fine_num_queries} a part"
            )
        self.fine_window_frames = fine_window_frames
        self.fine_query_tokens = nn.Parameter(torch.empty(fine_num_queries, self.window_encoder.output_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the fine queries anew."""
        nn.init.normal_(self.fine_query_tokens, std=0.02)

    @property
    def states_dim(self) -> int:
        """Width of the joined query states."""
        return 2 * int(self.window_encoder.output_dim)

    @property
    def _frames_multiple(self) -> int:
        """Short windows are cut between parts."""
        return max(self.fine_window_frames, super()._frames_multiple)

    def _growth_kind(self, absorbed: int) -> int:
        return absorbed

    def _empty_memory(self, rows: int) -> Any:
        return empty_resolutions(self, rows) if self._grows else ()

    def _append(self, memory: Any, tokens: Tensor, mask: Tensor | None, absorbed: int, guide: dict[str, Tensor]) -> Any:
        return append_to_both(self, memory, tokens, mask, absorbed, guide)

    def _read(self, memory: Any, absorbed: int, guide: dict[str, Tensor]) -> Float[Tensor, "window query hidden"]:
        return read_both(self, memory, absorbed, guide)

    def _encode(
        self,
        tokens: Tensor,
        mask: Tensor | None,
        guide: dict[str, Tensor],
        frame_index: Tensor | None = None,
    ) -> Float[Tensor, "window query hidden"]:
        """The joined states of windows.

        The fine half of a part in which nothing is real is what the window encoder gives for it: zero, from a
        :class:`~avfusion.CausalQFormer`.
        """
        coarse = super()._encode(tokens, mask, guide, frame_index)
        length = tokens.shape[1] if frame_index is None else frame_index.shape[1]
        parts = length // self.fine_window_frames

        def split(value: Tensor) -> Tensor:
            cut = value.unflatten(1, (parts, self.fine_window_frames)).flatten(0, 1)
            return cut.clone() if self._compiled else cut  # compiled code would tell views of different tensors apart

        fine = super()._encode(
            split(tokens) if frame_index is None else tokens,
            None if mask is None else split(mask),
            {
                **{name: value.repeat_interleave(parts, 0) for name, value in guide.items()},
                "queries": self.fine_query_tokens,
            },
            None if frame_index is None else split(frame_index),
        )
        fine = fine.reshape(coarse.shape[0], parts * fine.shape[1], coarse.shape[2])
        return torch.cat([nn.functional.pad(fine, (0, 0, 0, coarse.shape[1] - fine.shape[1])), coarse], -1)
