"""Synchroniser and projector in one module."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidValueError
from avfusion.functional.stream_table import VISUAL
from avfusion.modules.component import Component
from avfusion.modules.connector_from_dims import ConnectorFromDims
from avfusion.modules.input_projections import InputProjections
from avfusion.modules.projector.sliding_window_projector import SlidingWindowProjector
from avfusion.modules.projector.state import ProjectorState
from avfusion.modules.synchroniser.frame_synchroniser import FrameSynchroniser
from avfusion.modules.synchroniser.state import FrameSynchroniserState
from avfusion.types import Frames, LLMEmbeddings, SizedWindowEncoder, StreamedEmbeddings, TokenStream


class ConnectorState(NamedTuple):
    """The state of the connector's parts.

    Attributes:
        synchroniser: tokens and video frames that are not finalised.
        projector: pending frames and open windows.
    """

    synchroniser: FrameSynchroniserState
    projector: ProjectorState


class AudioVisualConnector(ConnectorFromDims, Component):
    """From the encoders' tokens to the language model's embeddings: all that FAVOR trains outside the language model.

    :meth:`from_dims` builds one from a few widths; the constructor takes the parts.

    Args:
        synchroniser: assigns tokens to frames; by default the paper's (visual and audio, 768 wide).
        projector: cuts windows and projects them; by default the paper's (10 frames, 32 queries, 4096 wide). Its window
            encoder must take the synchroniser's frames.
        input_dims: width of the encoder's tokens by stream, where it differs from the synchroniser's width; each such
            stream gets a trained linear map. Without a synchroniser the default is the paper's: ``{"audio": 1280}``.

    Raises:
        InvalidValueError: parts that do not fit each other.

    Example:
        >>> import torch
        >>> from avfusion import AudioVisualConnector
        >>> connector = AudioVisualConnector.from_dims(
        ...     visual=24, audio=40, llm=64, window_seconds=2.5, num_queries=4, hidden_size=64
        ... )
        >>> visual, audio = torch.randn(2, 20, 16, 24), torch.randn(2, 500, 40)  # 10 s at 2 and 50 a second
        >>> out = connector(visual=visual, audio=audio)
        >>> out.embeddings.shape
        torch.Size([2, 16, 64])
        >>> connector(audio=torch.randn(2, 500, 40)).embeddings.shape  # no video, no dummy input
        torch.Size([2, 16, 64])
    """

    def __init__(
        self,
        *,
        synchroniser: FrameSynchroniser | None = None,
        projector: SlidingWindowProjector | None = None,
        input_dims: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        if input_dims is None:
            input_dims = {"audio": 1280} if synchroniser is None else {}
        self.synchroniser = FrameSynchroniser() if synchroniser is None else synchroniser
        self.projector = SlidingWindowProjector() if projector is None else projector
        dims = self.synchroniser.dims
        unknown = sorted(set(input_dims) - set(dims))
        if unknown:
            raise InvalidValueError(f"input_dims: must be among the streams {sorted(dims)}, found {unknown}")
        reserved = sorted({"instruction", "instruction_mask"} & set(dims))
        if reserved:
            raise InvalidValueError(f"stream_dims: {reserved} are arguments of this module; name the streams otherwise")
        self._check_fit()
        self.input_projections = InputProjections(input_dims, dims)

    def _check_fit(self) -> None:
        encoder: Any = self.projector.window_encoder
        if not isinstance(encoder, SizedWindowEncoder):
            return
        for name, wanted, found in (
            ("input_dim", self.synchroniser.output_dim, encoder.input_dim),
            ("tokens_per_frame", self.synchroniser.tokens_per_frame, encoder.tokens_per_frame),
        ):
            if found != wanted:
                raise InvalidValueError(
                    f"projector: its window encoder's {name} must be the synchroniser's {wanted}, found {found}"
                )

    @property
    def input_dims(self) -> dict[str, int]:
        """Width of the streams that have a map, by name."""
        return self.input_projections.input_dims

    @property
    def llm_dim(self) -> int:
        """Width of the embeddings."""
        return self.projector.llm_dim

    def num_output_tokens(self, durations: Tensor | Sequence[float] | float) -> Tensor:
        """The number of embeddings of clips at the synchroniser's frame rate, without running the model.

        Args:
            durations: seconds of each clip, the longer of its audio and video.

        Returns:
            int64 tensor in the shape of ``durations``.
        """
        return self.projector.num_output_tokens(durations, frame_rate=self.synchroniser.frame_rate)

    def forward(
        self,
        visual: Frames | Tensor | None = None,
        *,
        instruction: Float[Tensor, "batch length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "batch length"] | None = None,
        num_frames: int | None = None,
        **streams: TokenStream | Tensor | None,
    ) -> LLMEmbeddings:
        """Connects a batch of clips.

        Args:
            visual: frames, or a plain ``(batch, frame, token, dim)`` at the synchroniser's frame rate, or ``None``.
            instruction: ``(batch, length, instruction_dim)``: conditioning, for window encoders that take it.
            instruction_mask: ``(batch, length)`` bool.
            num_frames: as for :class:`~avfusion.FrameSynchroniser`.
            **streams: each named stream, or a plain ``(batch, time, dim)`` at its rate, or ``None``.

        Returns:
            Embeddings with their mask, time spans and query states.

        Raises:
            AlignmentError: real tokens that fit no frame or no slot.
            InvalidValueError: unknown streams, widths or batches that do not fit, no stream at all.
        """
        frames = self.synchronise(visual, num_frames=num_frames, **streams)
        return self.projector(frames, instruction=instruction, instruction_mask=instruction_mask)

    def synchronise(
        self,
        visual: Frames | Tensor | None = None,
        *,
        num_frames: int | None = None,
        **streams: TokenStream | Tensor | None,
    ) -> Frames:
        """The projected streams on the video's frames; arguments as for :meth:`forward`."""
        sync = self.synchroniser
        given: dict[str, Frames | TokenStream] = {}
        if visual is not None:
            given[VISUAL] = sync.as_frames(visual)
        for name, value in streams.items():
            if value is not None and name in sync.stream_rates:
                given[name] = sync.as_stream(name, value)
        return sync(num_frames=num_frames, **{**dict.fromkeys(streams), **self.input_projections(given)})

    def initial_state(
        self, batch_size: int = 1, *, streams: Collection[str] | None = None, max_wait: float | None = None
    ) -> ConnectorState:
        """The state before any input.

        Args:
            batch_size: clips.
            streams: names of the streams that will come, ``"visual"`` among them; all without it.
            max_wait: seconds, on the clip's clock, that a frame waits for a stream that is behind the others; unlimited
                by default.

        Raises:
            InvalidValueError: a window encoder that cannot stream, unknown streams, a ``max_wait`` that is negative.
        """
        device = self.projector.proj.weight.device
        return ConnectorState(
            self.synchroniser.initial_state(batch_size, streams=streams, max_wait=max_wait, device=device),
            self.projector.initial_state(batch_size),
        )

    def step(
        self,
        chunk: Mapping[str, Frames | TokenStream | Tensor | None],
        state: ConnectorState,
        *,
        watermark: Mapping[str, float | Tensor] | None = None,
        end: Bool[Tensor, " batch"] | None = None,
        partial: bool = False,
        instruction: Float[Tensor, "batch length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "batch length"] | None = None,
    ) -> tuple[StreamedEmbeddings, ConnectorState]:
        """Appends a chunk of each stream, and returns the embeddings of the windows that it completes.

        Args:
            chunk: new tokens or frames by stream, possibly none: as for :meth:`FrameSynchroniser.step`.
            state: of the clips so far; not changed.
            watermark: seconds up to which streams are complete, by name; ``inf`` where a stream has ended.
            end: ``(batch,)`` bool: clips that end; new clips follow in their rows.
            partial: also return each clip's partial window, up to the last finalised frame.
            instruction: ``(batch, length, instruction_dim)``, as for :meth:`forward`, for the windows of this step.
            instruction_mask: ``(batch, length)`` bool.

        Returns:
            The finished embeddings, and the new state.

        Raises:
            AlignmentError: times that decrease; tokens that fit no frame or no slot.
            InvalidValueError: unknown streams, widths or batches that do not fit.

        Example:
            >>> import torch
            >>> from avfusion import AudioVisualConnector
            >>> connector = AudioVisualConnector.from_dims(
            ...     visual=24, audio=24, llm=64, window_seconds=2.5, num_queries=4, hidden_size=64
            ... )
            >>> state = connector.initial_state()
            >>> out, state = connector.step({"visual": torch.randn(1, 6, 16, 24)}, state)  # 3 s of video
            >>> out, state = connector.step({"audio": torch.randn(1, 150, 24)}, state)  # and of audio
            >>> out.finished.embeddings.shape, out.finished.spans[0, 0].tolist()
            (torch.Size([1, 4, 64]), [0.0, 2.5])
            >>> connector.flush(state).finished.spans[0, 0].tolist()
            [2.5, 3.0]
        """
        mapped = {
            name: self.input_projections.project(name, value)
            for name, value in chunk.items()
            if isinstance(value, Frames | TokenStream | Tensor)
        }
        final, synchroniser = self.synchroniser.step(
            {**chunk, **mapped}, state.synchroniser, watermark=watermark, end=end
        )
        out, projector = self.projector.step(
            final.frames,
            state.projector,
            lengths=final.lengths,
            end=end,
            partial=partial,
            instruction=instruction,
            instruction_mask=instruction_mask,
        )
        return out._replace(late=final.late), ConnectorState(synchroniser, projector)

    def flush(
        self,
        state: ConnectorState,
        *,
        instruction: Float[Tensor, "batch length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "batch length"] | None = None,
    ) -> StreamedEmbeddings:
        """Finishes all clips; arguments as for :meth:`step`."""
        over = torch.ones_like(state.synchroniser.max_wait, dtype=torch.bool)
        return self.step({}, state, end=over, instruction=instruction, instruction_mask=instruction_mask)[0]

    def reset(self, state: ConnectorState, rows: Bool[Tensor, " batch"]) -> ConnectorState:
        """The state with new clips in some rows; their pending input is dropped.

        Args:
            state: of the clips so far; not changed.
            rows: ``(batch,)`` bool.
        """
        return ConnectorState(
            self.synchroniser.reset(state.synchroniser, rows), self.projector.reset(state.projector, rows)
        )
