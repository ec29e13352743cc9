"""Sliding windows of frames to language model embeddings."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError
from avfusion.functional.host import to_device
from avfusion.functional.packing import HostFrames
from avfusion.functional.window_schedule import make_schedule
from avfusion.functional.windows import check_window, cut_windows, num_windows, spread_over_positions
from avfusion.modules.component import Component
from avfusion.modules.projector.computed_windows import collect_windows, no_windows
from avfusion.modules.projector.frame_buffer import FrameBuffer
from avfusion.modules.projector.offers import Offers, instruction_arguments
from avfusion.modules.projector.open_windows import advance_windows
from avfusion.modules.projector.state import ProjectorState, clip_progress, empty_state
from avfusion.modules.projector.window_encoding import WindowEncoding, is_sharded
from avfusion.modules.qformer.causal_qformer import CausalQFormer
from avfusion.types import BoundedWindowEncoder, Frames, LLMEmbeddings, StreamedEmbeddings, Windows
from avfusion.types.clock import as_durations, check_rate, frames_until
from avfusion.types.state import chosen_rows, ended_rows, put_rows


class SlidingWindowProjector(Component):
    r"""Cuts frames into windows, encodes each, and projects the states to a language model's width (FAVOR, 3.2).

    .. math:: e = W \,\mathrm{encode}(\text{window}) + b

    Window :math:`w` holds the frames :math:`[ws, ws + K)`. The last window may be short; its missing frames are masked.
    No window contains only padding, and no window lies wholly inside its predecessor.

    Args:
        window_encoder: any module that satisfies :class:`~avfusion.WindowEncoder`; a
            :class:`~avfusion.CausalQFormer` of the paper's sizes by default. Optional capabilities are used: see
            :class:`~avfusion.ConditionedWindowEncoder`, :class:`~avfusion.SharedFrameWindowEncoder`,
            :class:`~avfusion.ShortWindowEncoder` and :class:`~avfusion.StreamingWindowEncoder`.
        window_frames: frames per window, :math:`K`.
        stride_frames: frames from one window's start to the next's, :math:`s`; ``window_frames`` by default. Windows
            overlap if it is smaller.
        llm_dim: the language model's embedding width.
        chunk_windows: windows that are encoded at once, which bounds memory for long clips. By default the fastest
            number without gradients, and all windows with gradients.
        checkpoint_chunks: in training, store only each chunk's inputs, and recompute it in the backward pass.

    Raises:
        InvalidTypeError: a module that is not a window encoder; the message names what is missing.
        InvalidValueError: a stride above the window, windows longer than the encoder takes, an empty chunk.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer, Frames, SlidingWindowProjector
        >>> qformer = CausalQFormer(
        ...     input_dim=24, hidden_size=16, num_heads=2, num_queries=3, window_frames=5, tokens_per_frame=4
        ... )
        >>> projector = SlidingWindowProjector(window_encoder=qformer, window_frames=5, llm_dim=64)
        >>> out = projector(Frames.from_rate(torch.randn(2, 12, 4, 24), frame_rate=2.0, lengths=[12, 4]))
        >>> out.embeddings.shape, out.mask.sum(1).tolist(), out.spans[0, -1].tolist()
        (torch.Size([2, 9, 64]), [9, 3], [5.0, 6.0])

        Any module that maps a window to a fixed number of states fits:

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
        if isinstance(encoder, BoundedWindowEncoder) and window_frames > encoder.window_frames:
            raise InvalidValueError(
                f"window_frames: the window encoder takes at most {encoder.window_frames}, found {window_frames}"
            )
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
        """Embeddings per window."""
        return int(self.window_encoder.num_queries)

    def num_output_tokens(self, durations: Tensor | Sequence[float] | float, *, frame_rate: float = 2.0) -> Tensor:
        """The number of embeddings of clips, without running the model.

        Exact for video; a clip that ends within a microsecond of a frame's edge ends at it. Audio ends at the centre of
        its last token: if a frame begins within that token's second half, audio alone needs one frame fewer than this
        counts.

        Args:
            durations: seconds of each clip, any shape.
            frame_rate: frames per second.

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
        return self.num_tokens_of_frames(frames_until(as_durations(durations), frame_rate))

    def num_tokens_of_frames(self, num_frames: Tensor) -> Tensor:
        """The number of embeddings of clips with ``num_frames`` frames; int64 in the same shape."""
        return num_windows(num_frames, self.window_frames, self.stride_frames) * self.num_queries

    def cut(self, frames: Frames) -> Windows:
        """Cuts frames into the windows that the window encoder gets."""
        return cut_windows(frames, self.window_frames, self.stride_frames)

    def compile_window_encoder(self, **options: Any) -> None:
        """Compiles the window encoder in place, and gives it windows of a fixed shape from then on.

        Two graphs then serve clips and batches of any length: one for several windows, one for a single window.
        Compiling the whole projector or connector works too, but recompiles for many lengths.

        Args:
            **options: of ``torch.compile``; ``fullgraph=True`` by default. ``mode="reduce-overhead", dynamic=False``
                replays a CUDA graph per number of windows, which pays for few windows.

        Example:
            >>> import torch
            >>> from avfusion import AudioVisualConnector
            >>> connector = AudioVisualConnector.from_dims(visual=24, llm=64, hidden_size=64).eval()
            >>> connector.projector.compile_window_encoder(backend="eager")  # the default backend is Inductor
            >>> connector(visual=torch.randn(2, 12, 32, 24)).embeddings.shape
            torch.Size([2, 64, 64])
        """
        # Only the number of windows is dynamic: with all sizes dynamic, sizes that happen to be equal would be tied.
        self._windows_vary = options.get("dynamic") is not False
        self.window_encoder.compile(
            **{"fullgraph": True, **options, "dynamic": False if not self._windows_vary else None}
        )
        self._compiled = True

    def encode(
        self, windows: Windows, instruction: Tensor | None = None, instruction_mask: Tensor | None = None
    ) -> Float[Tensor, "window query hidden"]:
        """The query states of all windows in one call; zero for masked windows."""
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

        Only real windows are computed, grouped by their number of frames. Compiled code and modules with sharded
        parameters compute all windows of the padded batch in one call instead: compiled code has one graph for all, and
        sharded modules must be called equally often in every process.

        Args:
            frames: ``(batch, frame, token, dim)``; each clip's first frame at index 0.
            instruction: ``(batch, length, instruction_dim)``: conditioning of each clip's windows, for window encoders
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
            host = HostFrames.of(frames)
            layout = host.windows(self.window_frames, self.stride_frames)
            spans, window_mask = layout.spans, layout.mask.any(-1)
            clips = torch.arange(len(window_mask), device="cpu")
            states, embeddings = self._encoding(instruction, instruction_mask).encode_real(frames, host, layout, clips)
        batch, count = window_mask.shape
        return LLMEmbeddings(
            embeddings=embeddings.reshape(batch, count * self.num_queries, self.llm_dim),
            mask=to_device(spread_over_positions(window_mask, self.num_queries), frames.mask.device),
            spans=to_device(spread_over_positions(spans, self.num_queries), frames.spans.device),
            query_states=states,
        )

    def initial_state(self, batch_size: int = 1) -> ProjectorState:
        """The state before any frames.

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
        """Appends frames, and returns the embeddings of the windows that they complete.

        A :class:`~avfusion.StreamingWindowEncoder` gets frames incrementally, a few at a time for speed, and the frame
        that completes a window by itself. Windows without cached state are encoded from scratch, as in :meth:`forward`.
        Other window encoders get whole windows.

        Args:
            frames: ``(batch, frame, token, dim)``: each clip's next frames, its first at index 0.
            state: of the clips so far; not changed.
            lengths: ``(batch,)`` int64: number of new frames of each clip; all by default, including frames without
                real tokens.
            end: ``(batch,)`` bool: clips that end. Their last window is finished with the frames it has, and a new clip
                begins.
            partial: also return each clip's partial window.
            instruction: ``(batch, length, instruction_dim)``, as for :meth:`forward`, for the windows of this step.
            instruction_mask: ``(batch, length)`` bool.

        Returns:
            The finished embeddings, and the new state.

        Raises:
            InvalidValueError: frames or masks that do not fit the batch.

        Example:
            >>> import torch
            >>> from avfusion import AudioVisualConnector, Frames
            >>> projector = AudioVisualConnector.from_dims(
            ...     visual=24, llm=64, window_seconds=2.5, num_queries=3, hidden_size=64, tokens_per_frame=4
            ... ).projector
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
        over = ended_rows(end, state.first)
        encoding = self._encoding(instruction, instruction_mask)
        clips = clip_progress(frames, state, lengths, over)
        schedule = make_schedule(
            clips, self.window_frames, self.stride_frames, incremental=self.offers.streaming, partial=partial
        )
        buffer = FrameBuffer.of(frames, state, clips)
        computed, windows = advance_windows(encoding, schedule.advances, buffer, state.windows)
        computed += encoding.encode_full(schedule.full, schedule.num_real, buffer)

        nothing = no_windows(buffer, self.proj.weight, self.num_queries, self.states_dim, self.llm_dim)
        most = max(map(len, schedule.finished), default=0)
        out = StreamedEmbeddings(
            collect_windows(computed, schedule.finished, most, nothing),
            collect_windows(computed, schedule.partial, 1, nothing) if partial else None,
            state.first.new_zeros(batch, 0),
        )
        after = buffer.state_after(schedule, windows)
        return out, after if end is None else self.reset(after, over)

    def flush(
        self,
        state: ProjectorState,
        *,
        instruction: Float[Tensor, "batch length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "batch length"] | None = None,
    ) -> StreamedEmbeddings:
        """Finishes all clips; arguments as for :meth:`step`."""
        nothing = Frames(state.tokens[:, :0], state.mask[:, :0], state.spans[:, :0])
        over = torch.ones(state.first.shape[0], dtype=torch.bool, device=state.first.device)
        return self.step(nothing, state, end=over, instruction=instruction, instruction_mask=instruction_mask)[0]

    def reset(self, state: ProjectorState, rows: Bool[Tensor, " batch"]) -> ProjectorState:
        """The state with new clips in some rows; their open windows are dropped.

        Args:
            state: of the clips so far; not changed.
            rows: ``(batch,)`` bool.
        """
        chosen = chosen_rows(rows, state.first)
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
