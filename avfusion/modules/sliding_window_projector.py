"""Sliding windows of frames to language model embeddings."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.functional.windows import check_window, cut_windows, num_windows, spread_over_positions
from avfusion.modules.causal_qformer import CausalQFormer
from avfusion.modules.component import Component
from avfusion.types import Frames, LLMEmbeddings, WindowEncoder, Windows
from avfusion.types.clock import check_rate


class SlidingWindowProjector(Component):
    r"""Cuts frames into windows, encodes each, and projects the states to a language model's width (FAVOR, 3.2).

    .. math:: e = W \,\mathrm{encode}(\text{window}) + b

    Window :math:`w` holds the frames :math:`[ws, ws + K)`. The last window may be short; its missing frames are masked.
    There is no window of padding only, and none that adds nothing to the one before.

    Args:
        window_encoder: any module that satisfies :class:`~avfusion.WindowEncoder`; a
            :class:`~avfusion.CausalQFormer` of the paper's sizes without it.
        window_frames: frames a window, :math:`K`.
        stride_frames: frames from one window's start to the next's, :math:`s`; ``window_frames`` without it. Smaller
            ones overlap.
        llm_dim: the language model's embedding width.

    Raises:
        InvalidValueError: a stride that leaves frames out, or windows longer than the encoder takes.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer, Frames, SlidingWindowProjector
        >>> projector = SlidingWindowProjector(
        ...     window_encoder=CausalQFormer(
        ...         input_dim=24, hidden_size=16, num_heads=2, num_queries=3, window_frames=5, tokens_per_frame=4
        ...     ),
        ...     window_frames=5,
        ...     llm_dim=64,
        ... )
        >>> out = projector(Frames.from_rate(torch.randn(2, 12, 4, 24), frame_rate=2.0, lengths=[12, 4]))
        >>> out.embeddings.shape, out.mask.sum(1).tolist(), out.spans[0, -1].tolist()
        (torch.Size([2, 9, 64]), [9, 3], [5.0, 6.0])

        Anything that turns a window into a fixed number of states fits:

        >>> class MeanOfWindow(torch.nn.Module):
        ...     num_queries, output_dim = 1, 24
        ...
        ...     def forward(self, tokens, mask):
        ...         return tokens.sum((1, 2))[:, None] / mask.sum((1, 2)).clamp(min=1)[:, None, None]
        >>> projector = SlidingWindowProjector(window_encoder=MeanOfWindow(), window_frames=5, llm_dim=64)
        >>> projector(Frames.from_rate(torch.randn(2, 12, 4, 24), frame_rate=2.0)).embeddings.shape
        torch.Size([2, 3, 64])
    """

    def __init__(
        self,
        *,
        window_encoder: nn.Module | None = None,
        window_frames: int = 10,
        stride_frames: int | None = None,
        llm_dim: int = 4096,
    ) -> None:
        super().__init__()
        stride = window_frames if stride_frames is None else stride_frames
        check_window(window_frames, stride)
        encoder = CausalQFormer(window_frames=window_frames) if window_encoder is None else window_encoder
        if not isinstance(encoder, WindowEncoder):
            raise InvalidTypeError(
                f"window_encoder: must be callable and have num_queries and output_dim, found {type(encoder).__name__}"
            )
        longest = getattr(encoder, "window_frames", window_frames)
        if window_frames > longest:
            raise InvalidValueError(f"window_frames: the window encoder takes at most {longest}, found {window_frames}")
        self.window_encoder = encoder
        self.window_frames = window_frames
        self.stride_frames = stride
        self.llm_dim = llm_dim
        self.proj = nn.Linear(self.states_dim, llm_dim)

    @property
    def states_dim(self) -> int:
        """Width of the query states."""
        return int(self.window_encoder.output_dim)

    @property
    def num_queries(self) -> int:
        """Positions a window gives."""
        return int(self.window_encoder.num_queries)

    def num_output_tokens(self, durations: Tensor | Sequence[float] | float, *, frame_rate: float = 2.0) -> Tensor:
        """How many embeddings clips will give, without running anything.

        Exact for pictures. Sound ends at the centre of its last token: where a frame begins within that token's second
        half, the sound needs one frame fewer than is counted here.

        Args:
            durations: seconds of each clip, any shape.
            frame_rate: frames a second.

        Returns:
            int64 tensor in the shape of ``durations``: real positions of each clip.

        Raises:
            InvalidValueError: a negative duration, a rate that is not positive.

        Example:
            >>> from avfusion import SlidingWindowProjector
            >>> projector = SlidingWindowProjector(llm_dim=8)
            >>> projector.num_output_tokens([30.0, 4.0, 0.0]).tolist()
            [192, 32, 0]
        """
        check_rate(frame_rate, "frame_rate")
        seconds = torch.as_tensor(durations, dtype=torch.float64)
        if bool((~(seconds >= 0) | seconds.isinf()).any()):
            raise InvalidValueError(f"durations: must be finite and at least 0 seconds, found {seconds.tolist()}")
        # A clip that ends within a microsecond of a frame's edge ends at it.
        frames = (seconds * frame_rate - 1e-6 * frame_rate).ceil().clamp(min=0).long()
        return self.num_tokens_of_frames(frames)

    def num_tokens_of_frames(self, num_frames: Tensor) -> Tensor:
        """Real positions of clips with so many frames; int64 in the shape of ``num_frames``."""
        return num_windows(num_frames, self.window_frames, self.stride_frames) * self.num_queries

    def cut(self, frames: Frames) -> Windows:
        """The windows as the window encoder gets them."""
        return cut_windows(frames, self.window_frames, self.stride_frames)

    def encode(
        self, windows: Windows, instruction: Tensor | None = None, instruction_mask: Tensor | None = None
    ) -> Float[Tensor, "window query hidden"]:
        """The states of every window; zero for masked windows."""
        states = self.window_encoder(
            windows.tokens, windows.mask, **self._instruction(windows, instruction, instruction_mask)
        )
        return states.masked_fill(~windows.window_mask.flatten()[:, None, None], 0)

    def forward(
        self,
        frames: Frames,
        *,
        instruction: Float[Tensor, "batch length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "batch length"] | None = None,
    ) -> LLMEmbeddings:
        """Projects a batch of clips.

        Args:
            frames: ``(batch, frame, token, dim)``; each clip's first frame at index 0.
            instruction: ``(batch, length, instruction_dim)``: what each clip's windows are asked, for window encoders
                that take it.
            instruction_mask: ``(batch, length)`` bool.

        Returns:
            Embeddings with their mask, time spans and query states.
        """
        windows = self.cut(frames)
        states = self.encode(windows, instruction, instruction_mask)
        batch, count = windows.window_mask.shape
        mask = spread_over_positions(windows.window_mask, self.num_queries)
        embeddings = self.proj(states).reshape(batch, count * self.num_queries, self.llm_dim)
        return LLMEmbeddings(
            embeddings=embeddings.masked_fill(~mask[..., None], 0),
            mask=mask,
            spans=spread_over_positions(windows.spans, self.num_queries),
            query_states=states,
        )

    def _instruction(
        self, windows: Windows, instruction: Tensor | None, mask: Tensor | None, times: int = 1
    ) -> dict[str, Tensor]:
        """The instruction of each clip, once for each of its windows (or ``times`` parts of one)."""
        given = {"instruction": instruction, "instruction_mask": mask}
        count = windows.window_mask.shape[1] * times
        return {name: value.repeat_interleave(count, 0) for name, value in given.items() if value is not None}
