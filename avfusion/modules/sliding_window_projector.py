"""Sliding windows of frames to language model embeddings."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.functional.windows import (
    WindowLayout,
    check_window,
    cut_windows,
    lay_windows,
    num_windows,
    spread_over_positions,
)
from avfusion.modules.component import Component
from avfusion.modules.qformer.causal_qformer import CausalQFormer
from avfusion.modules.real_windows import WindowRows, is_sharded, window_batches
from avfusion.modules.streaming.projector import ProjectorState, nothing_seen, take_step
from avfusion.types import (
    Frames,
    LLMEmbeddings,
    StreamedEmbeddings,
    StreamingWindowEncoder,
    WindowEncoder,
    Windows,
)
from avfusion.types.clock import check_rate, frames_until
from avfusion.types.state import as_rows, put_rows


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
        chunk_windows: windows that are encoded at once, so that memory does not grow with the length of a clip; without
            it, as many as are fastest where no gradients are wanted, and all where they are.
        checkpoint_chunks: in training, keep only each chunk's inputs, and compute it again in the backward pass.

    Raises:
        InvalidValueError: a stride that leaves frames out, windows longer than the encoder takes, chunks of none.

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
        chunk_windows: int | None = None,
        checkpoint_chunks: bool = False,
    ) -> None:
        super().__init__()
        if chunk_windows is not None and chunk_windows < 1:
            raise InvalidValueError(f"chunk_windows: must be at least 1, found {chunk_windows}")
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
        self.chunk_windows = chunk_windows
        self.checkpoint_chunks = checkpoint_chunks
        self.proj = nn.Linear(self.states_dim, llm_dim)
        self._compiled = self._windows_vary = False

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

        Exact for pictures; a clip that ends within a microsecond of a frame's edge ends at it. Sound ends at the centre
        of its last token: where a frame begins within that token's second half, the sound needs one frame fewer than is
        counted here.

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
        seconds = durations if isinstance(durations, Tensor) else torch.as_tensor(durations, dtype=torch.float64)
        seconds = seconds if seconds.is_floating_point() else seconds.double()
        if bool((~(seconds >= 0) | seconds.isinf()).any()):
            raise InvalidValueError(f"durations: must be finite and at least 0 seconds, found {seconds.tolist()}")
        return self.num_tokens_of_frames(frames_until(seconds, frame_rate))

    def num_tokens_of_frames(self, num_frames: Tensor) -> Tensor:
        """Real positions of clips with so many frames; int64 in the shape of ``num_frames``."""
        return num_windows(num_frames, self.window_frames, self.stride_frames) * self.num_queries

    def cut(self, frames: Frames) -> Windows:
        """The windows as the window encoder gets them."""
        return cut_windows(frames, self.window_frames, self.stride_frames)

    def compile_window_encoder(self, **options: Any) -> None:
        """Compiles the window encoder in place, and gives it windows of one form from then on.

        Two graphs then serve clips and batches of any lengths: one for any number of windows, one for a single window.
        Compiling the projector or the connector as a whole works too, but makes new graphs for many lengths.

        Args:
            **options: of ``torch.compile``, over ``fullgraph=True``; with ``mode="reduce-overhead", dynamic=False`` a
                CUDA graph is replayed for each number of windows, which is worth it for few windows.

        Example:
            >>> import torch
            >>> from avfusion import CausalQFormer, Frames, SlidingWindowProjector
            >>> qformer = CausalQFormer(
            ...     input_dim=24, hidden_size=16, num_heads=2, num_queries=3, window_frames=5, tokens_per_frame=4
            ... )
            >>> projector = SlidingWindowProjector(window_encoder=qformer, window_frames=5, llm_dim=64).eval()
            >>> projector.compile_window_encoder(backend="eager")  # the default backend is Inductor
            >>> projector(Frames.from_rate(torch.randn(2, 12, 4, 24), frame_rate=2.0)).embeddings.shape
            torch.Size([2, 9, 64])
        """
        # The number of windows alone varies: were all sizes let vary, those that happen to be equal would be tied.
        self._windows_vary = options.get("dynamic") is not False
        self.window_encoder.compile(
            **{"fullgraph": True, **options, "dynamic": False if not self._windows_vary else None}
        )
        self._compiled = True

    def encode(
        self, windows: Windows, instruction: Tensor | None = None, instruction_mask: Tensor | None = None
    ) -> Float[Tensor, "window query hidden"]:
        """The states of every window, all computed at once; zero for masked windows."""
        rows = torch.arange(windows.window_mask.numel(), device=windows.window_mask.device)
        guide = self._guide(rows // max(windows.window_mask.shape[1], 1), instruction, instruction_mask)
        states = self._encode(windows.tokens, windows.mask, guide)
        return states.masked_fill(~windows.window_mask.flatten()[:, None, None], 0)

    def forward(
        self,
        frames: Frames,
        *,
        instruction: Float[Tensor, "batch length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "batch length"] | None = None,
    ) -> LLMEmbeddings:
        """Projects a batch of clips.

        Only real windows are computed: full ones together, short ones with others of their length. Compiled code, and
        parts whose parameters are split over processes, compute every window of the padded batch in one call instead,
        because the former has one graph for all and the latter must be called equally often everywhere.

        Args:
            frames: ``(batch, frame, token, dim)``; each clip's first frame at index 0.
            instruction: ``(batch, length, instruction_dim)``: what each clip's windows are asked, for window encoders
                that take it.
            instruction_mask: ``(batch, length)`` bool.

        Returns:
            Embeddings with their mask, time spans and query states.
        """
        if torch.compiler.is_compiling() or frames.tokens.is_meta or is_sharded(self):
            windows = self.cut(frames)
            spans, window_mask = windows.spans, windows.window_mask
            states = self.encode(windows, instruction, instruction_mask)
            embeddings = self.proj(states).masked_fill(~window_mask.flatten()[:, None, None], 0)
        else:
            layout = lay_windows(frames, self.window_frames, self.stride_frames)
            spans, window_mask = layout.spans, layout.mask.any(-1)
            states, embeddings = self._encode_real(frames, layout, instruction, instruction_mask)
        batch, count = window_mask.shape
        return LLMEmbeddings(
            embeddings=embeddings.reshape(batch, count * self.num_queries, self.llm_dim),
            mask=spread_over_positions(window_mask, self.num_queries),
            spans=spread_over_positions(spans, self.num_queries),
            query_states=states,
        )

    def initial_state(self, batch_size: int = 1) -> ProjectorState:
        """Clips of which no frame has come yet.

        Args:
            batch_size: clips.

        Raises:
            InvalidValueError: a window encoder that cannot stream; the message says why.
        """
        return nothing_seen(self, batch_size)

    def step(
        self,
        frames: Frames,
        state: ProjectorState,
        *,
        lengths: Int[Tensor, " batch"] | None = None,
        end: Bool[Tensor, " batch"] | None = None,
        unfinished: bool = False,
        instruction: Float[Tensor, "batch length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "batch length"] | None = None,
    ) -> tuple[StreamedEmbeddings, ProjectorState]:
        """Takes frames, and gives the embeddings of the windows that they finish.

        A :class:`~avfusion.StreamingWindowEncoder` gets frames soon after they come, a few together because that is
        faster, and the frame that completes a window alone; windows of which it has nothing are computed as
        :meth:`forward` does. Other window encoders get whole windows.

        Args:
            frames: ``(batch, frame, token, dim)``: each clip's next frames, its first at index 0.
            state: of the clips so far; not changed.
            lengths: ``(batch,)`` int64: frames that each clip gets; all without it, those in which nothing is real
                included.
            end: ``(batch,)`` bool: clips that are over. Their last window is finished as it stands, and a new clip
                begins.
            unfinished: also give each clip's last window as it stands.
            instruction: ``(batch, length, instruction_dim)``, as for :meth:`forward`, for what this step finishes.
            instruction_mask: ``(batch, length)`` bool.

        Returns:
            What was finished, and the new state.

        Raises:
            InvalidValueError: frames or masks that do not fit the batch.

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
            >>> state = projector.initial_state()
            >>> for chunk in torch.randn(1, 12, 4, 24).split(4, dim=1):
            ...     out, state = projector.step(Frames.from_rate(chunk, frame_rate=2.0), state, unfinished=True)
            ...     print(out.finished.embeddings.shape[1], out.unfinished.mask.sum().item())
            0 3
            3 3
            3 3
            >>> projector.flush(state).finished.embeddings.shape
            torch.Size([1, 3, 64])
        """
        batch = state.first.shape[0]
        if frames.tokens.shape[0] != batch:
            raise InvalidValueError(f"frames: must be of {batch} clips, found {frames.tokens.shape[0]}")
        over = torch.zeros(batch, dtype=torch.bool, device=state.first.device)
        over = over if end is None else as_rows(end, batch, "end", over.device)
        out, after = take_step(
            self, frames, state, lengths=lengths, end=over, unfinished=unfinished, given=(instruction, instruction_mask)
        )
        return out, after if end is None else self.reset(after, over)

    def flush(
        self,
        state: ProjectorState,
        *,
        instruction: Float[Tensor, "batch length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "batch length"] | None = None,
    ) -> StreamedEmbeddings:
        """What remains, as if all clips were over; arguments as for :meth:`step`."""
        nothing = Frames(state.tokens[:, :0], state.mask[:, :0], state.spans[:, :0])
        over = torch.ones(state.first.shape[0], dtype=torch.bool, device=state.first.device)
        return self.step(nothing, state, end=over, instruction=instruction, instruction_mask=instruction_mask)[0]

    def reset(self, state: ProjectorState, rows: Bool[Tensor, " batch"]) -> ProjectorState:
        """The state with new clips in some rows; their open windows are dropped.

        Args:
            state: of the clips so far; not changed.
            rows: ``(batch,)`` bool.
        """
        chosen = as_rows(rows, state.first.shape[0], "rows", state.first.device).nonzero().flatten()
        return put_rows(state, chosen, self.initial_state(len(chosen)))

    @property
    def _grows(self) -> bool:
        """Whether the window encoder takes windows frame by frame."""
        return isinstance(self.window_encoder, StreamingWindowEncoder)

    def _growth_kind(self, absorbed: int) -> int:
        """Windows of one kind can be appended to together."""
        return 0

    def _empty_memory(self, rows: int) -> Any:
        return cast("StreamingWindowEncoder", self.window_encoder).initial_state(rows) if self._grows else ()

    def _append(self, memory: Any, tokens: Tensor, mask: Tensor | None, absorbed: int, guide: dict[str, Tensor]) -> Any:
        """The memory of windows with frames behind what they hold; how many that is, is known for one kind."""
        return cast("StreamingWindowEncoder", self.window_encoder).step(tokens, memory, mask=mask)[1]

    def _read(self, memory: Any, absorbed: int, guide: dict[str, Tensor]) -> Float[Tensor, "window query hidden"]:
        """The states of windows as they stand."""
        encoder = cast("StreamingWindowEncoder", self.window_encoder)
        return encoder.flush(memory, **guide)

    def _encode_real(
        self, frames: Frames, layout: WindowLayout, instruction: Tensor | None, instruction_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """States and embeddings of every window, of which only the real ones are computed."""
        total, count = layout.mask[..., 0].numel(), layout.mask.shape[1]
        states, embeddings = WindowRows(total), WindowRows(total)
        overlapping = self.stride_frames < self.window_frames and getattr(self.window_encoder, "shares_frames", False)
        for batch in window_batches(
            frames,
            layout,
            multiple=self._frames_multiple,
            chunk_windows=self.chunk_windows,
            shares_frames=overlapping and not self._compiled,
            alike=self._compiled,
        ):
            guide = self._guide(batch.windows // max(count, 1), instruction, instruction_mask)
            if self._compiled and self._windows_vary and len(batch.windows) > 1:
                for value in (batch.tokens, batch.mask, *guide.values()):
                    torch._dynamo.maybe_mark_dynamic(value, 0)
            arguments = (batch.tokens, batch.mask, guide, batch.frame_index)
            if self.checkpoint_chunks and torch.is_grad_enabled():
                encoded = checkpoint(self._encode, *arguments, use_reentrant=False)
            else:
                encoded = self._encode(*arguments)
            states.put(batch.windows, encoded)
            embeddings.put(batch.windows, self.proj(encoded))
        return states.collect(), embeddings.collect()

    @property
    def _frames_multiple(self) -> int:
        """Short windows have a multiple of so many frames."""
        return 1 if getattr(self.window_encoder, "takes_short_windows", False) else self.window_frames

    def _encode(
        self,
        tokens: Tensor,
        mask: Tensor | None,
        guide: dict[str, Tensor],
        frame_index: Tensor | None = None,
    ) -> Float[Tensor, "window query hidden"]:
        """The window encoder's states of windows, or of windows of shared frames."""
        if frame_index is not None:
            return self.window_encoder(tokens, mask, frame_index=frame_index, **guide)
        if not getattr(self.window_encoder, "shares_frames", False):  # the protocol promises no more than this
            mask = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device) if mask is None else mask
            tokens = torch.where(mask[..., None], tokens, 0)
        return self.window_encoder(tokens, mask, **guide)

    def _guide(self, clips: Tensor, instruction: Tensor | None, mask: Tensor | None) -> dict[str, Tensor]:
        """The instruction of each window's clip."""
        given = {"instruction": instruction, "instruction_mask": mask}
        return {name: value[clips.to(value.device)] for name, value in given.items() if value is not None}
