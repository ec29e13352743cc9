"""Sliding windows of frames to language model embeddings."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError
from avfusion.functional.windows import (
    check_window,
    cut_windows,
    lay_windows,
    num_windows,
    spread_over_positions,
)
from avfusion.modules.component import Component
from avfusion.modules.projector.computed_windows import ComputedWindows, collect_windows
from avfusion.modules.projector.frame_buffer import FrameBuffer
from avfusion.modules.projector.offers import Offers, instruction_arguments
from avfusion.modules.projector.open_windows import advance_windows
from avfusion.modules.projector.schedule import clip_progress, make_schedule
from avfusion.modules.projector.state import ProjectorState, empty_state
from avfusion.modules.projector.window_encoding import WindowEncoding, is_sharded
from avfusion.modules.qformer.causal_qformer import CausalQFormer
from avfusion.types import Frames, LLMEmbeddings, StreamedEmbeddings, Windows
from avfusion.types.clock import check_rate, frames_until
from avfusion.types.state import as_rows, put_rows


class SlidingWindowProjector(Component):
    r"""Cuts frames into windows, encodes each, and projects the states to a language model's width (FAVOR, 3.2).

    .. math:: e = W \,\mathrm{encode}(\text{window}) + b

    Window :math:`w` holds the frames :math:`[ws, ws + K)`. The last window may be short; its missing frames are masked.
    There is no window of padding only, and none that adds nothing to the one before.

    Args:
        window_encoder: any module that satisfies :class:`~avfusion.WindowEncoder`; a
            :class:`~avfusion.CausalQFormer` of the paper's sizes without it. What more it offers is used: see
            :class:`~avfusion.ConditionedWindowEncoder`, :class:`~avfusion.SharedFrameWindowEncoder`,
            :class:`~avfusion.ShortWindowEncoder` and :class:`~avfusion.StreamingWindowEncoder`.
        window_frames: frames a window, :math:`K`.
        stride_frames: frames from one window's start to the next's, :math:`s`; ``window_frames`` without it. Smaller
            ones overlap.
        llm_dim: the language model's embedding width.
        chunk_windows: windows that are encoded at once, so that memory does not grow with the length of a clip; without
            it, as many as are fastest where no gradients are wanted, and all where they are.
        checkpoint_chunks: in training, keep only each chunk's inputs, and compute it again in the backward pass.

    Raises:
        InvalidTypeError: a module that is no window encoder; the message names what it lacks.
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
        encoder: Any = CausalQFormer(window_frames=window_frames) if window_encoder is None else window_encoder
        self.offers = Offers.of(encoder)
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
        encoding = self._encoding(instruction, instruction_mask)
        conditioning = encoding.conditioning(rows // max(windows.window_mask.shape[1], 1))
        states = encoding.encode(windows.tokens, windows.mask, conditioning)
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
            clips = torch.arange(len(window_mask), device=window_mask.device)
            states, embeddings = self._encoding(instruction, instruction_mask).encode_real(frames, layout, clips)
        batch, count = window_mask.shape
        return LLMEmbeddings(
            embeddings=embeddings.reshape(batch, count * self.num_queries, self.llm_dim),
            mask=spread_over_positions(window_mask, self.num_queries),
            spans=spread_over_positions(spans, self.num_queries),
            query_states=states,
        )

    def initial_state(self, batch_size: int = 1) -> ProjectorState:
        """Clips without frames.

        Args:
            batch_size: clips.

        Raises:
            InvalidValueError: a window encoder that cannot stream; the message says why.
        """
        places = -(-self.window_frames // self.stride_frames)  # windows of a clip that are open at a time
        encoder: Any = self.window_encoder
        memory = encoder.initial_state(batch_size * places) if self.offers.streaming else ()
        return empty_state(memory, batch_size, places, self.proj.weight)

    def step(
        self,
        frames: Frames,
        state: ProjectorState,
        *,
        lengths: Int[Tensor, " batch"] | None = None,
        end: Bool[Tensor, " batch"] | None = None,
        partial: bool = False,
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
            partial: also give each clip's last window as it stands.
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
            ...     out, state = projector.step(Frames.from_rate(chunk, frame_rate=2.0), state, partial=True)
            ...     print(out.finished.embeddings.shape[1], out.partial.mask.sum().item())
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
        encoding = self._encoding(instruction, instruction_mask)
        clips = clip_progress(frames, state, lengths, over)
        schedule = make_schedule(
            clips, self.window_frames, self.stride_frames, incremental=self.offers.streaming, partial=partial
        )
        buffer = FrameBuffer.of(frames, state, clips)
        computed, windows = advance_windows(encoding, schedule.advances, buffer, state.windows)
        computed += encoding.encode_full(schedule.full, schedule.num_real, buffer)

        nothing = self._no_windows(buffer)
        most = max(map(len, schedule.finished), default=0)
        out = StreamedEmbeddings(
            collect_windows(computed, schedule.finished, most, nothing),
            collect_windows(computed, schedule.partial, 1, nothing) if partial else None,
            state.first.new_zeros(batch, 0),
        )
        pending = [range(*pair) for pair in zip(schedule.first, schedule.num_real, strict=True)]
        numbers = (schedule.first, schedule.num_frames, schedule.num_real, schedule.next_window)
        counts = torch.tensor(numbers, dtype=torch.int64, device=state.first.device).view(4, batch)
        tokens, mask, spans = buffer.gather(range(batch), pending)
        first, num_frames, num_real, next_window = counts.unbind()
        after = ProjectorState(tokens, mask, spans, first, num_frames, num_real, next_window, windows)
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

    def _encoding(self, instruction: Tensor | None, instruction_mask: Tensor | None) -> WindowEncoding:
        return WindowEncoding(
            self.window_encoder,
            self.proj,
            self.offers,
            self.window_frames,
            self.stride_frames,
            self.chunk_windows,
            self.checkpoint_chunks,
            self._compiled,
            self._compiled and self._windows_vary,
            instruction_arguments(
                self.window_encoder, self.offers, instruction=instruction, instruction_mask=instruction_mask
            ),
        )

    def _no_windows(self, buffer: FrameBuffer) -> ComputedWindows:
        """No windows of this module, of the dtype of a stream's frames."""
        like = buffer.tokens if buffer.tokens.shape[2] else self.proj.weight
        states = like.new_zeros(0, self.num_queries, self.states_dim)
        embeddings = like.new_zeros(0, self.num_queries, self.llm_dim)
        spans = buffer.spans.new_zeros(0, 2)
        return ComputedWindows([], [], states, embeddings, spans, spans.new_zeros(0, dtype=torch.bool))
