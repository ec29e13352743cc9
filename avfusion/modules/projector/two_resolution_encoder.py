"""A window encoder that encodes every window twice: as a whole, and in parts."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError
from avfusion.modules.component import Component
from avfusion.modules.projector.offers import Offers, encode_windows
from avfusion.types import BoundedWindowEncoder, QuerySetWindowEncoder, SizedWindowEncoder
from avfusion.types.state import joined, put_rows, take_rows


class TwoResolutionEncoder(Component):
    """A window encoder with two sets of queries: one for whole windows, one for their parts, with the same weights.

    There are as many states of one kind as of the other; they are joined on the feature axis, the parts' first, part by
    part in time (video-SALMONN, arXiv 2406.15704).

    Args:
        window_encoder: a :class:`~avfusion.QuerySetWindowEncoder`; its own queries are those for whole windows.
        window_frames: frames a window.
        fine_window_frames: frames a part; must divide ``window_frames``.
        fine_num_queries: queries a part; ``window_frames / fine_window_frames`` times as many must be the encoder's.

    Raises:
        InvalidTypeError: a window encoder that takes no other queries.
        InvalidValueError: parts that do not fit the window, or numbers of states that differ.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer
        >>> from avfusion.modules import TwoResolutionEncoder
        >>> qformer = CausalQFormer(input_dim=24, hidden_size=16, num_heads=2, num_queries=8, tokens_per_frame=5)
        >>> encoder = TwoResolutionEncoder(
        ...     window_encoder=qformer, window_frames=4, fine_window_frames=1, fine_num_queries=2
        ... )
        >>> encoder(torch.randn(3, 4, 5, 24)).shape
        torch.Size([3, 8, 32])
    """

    def __init__(
        self, *, window_encoder: nn.Module, window_frames: int, fine_window_frames: int, fine_num_queries: int
    ) -> None:
        super().__init__()
        self.offers = Offers.of(window_encoder, QuerySetWindowEncoder)
        encoder: Any = window_encoder
        if fine_window_frames < 1 or window_frames % fine_window_frames:
            raise InvalidValueError(
                f"fine_window_frames: must divide window_frames = {window_frames}, found {fine_window_frames}"
            )
        parts = window_frames // fine_window_frames
        if parts * fine_num_queries != encoder.num_queries:
            raise InvalidValueError(
                f"fine_num_queries: {parts} parts a window must give the encoder's {encoder.num_queries} states, "
                f"found {fine_num_queries} a part"
            )
        self.window_encoder = window_encoder
        self.num_queries = int(encoder.num_queries)
        self.output_dim = 2 * int(encoder.output_dim)
        bounded, sized = isinstance(encoder, BoundedWindowEncoder), isinstance(encoder, SizedWindowEncoder)
        self.window_frames = min(window_frames, encoder.window_frames) if bounded else window_frames
        self.fine_window_frames = fine_window_frames
        self.instruction_dim = encoder.instruction_dim if self.offers.conditioning else None
        self.input_dim = encoder.input_dim if sized else None
        self.tokens_per_frame = encoder.tokens_per_frame if sized else None
        self.fine_query_tokens = nn.Parameter(torch.empty(fine_num_queries, encoder.output_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises the parts' queries."""
        nn.init.normal_(self.fine_query_tokens, std=0.02)

    @property
    def frame_multiple(self) -> int | None:
        """Short windows end between parts; ``None`` where the encoder takes none."""
        encoder: Any = self.window_encoder
        return math.lcm(self.fine_window_frames, encoder.frame_multiple) if self.offers.short_windows else None

    def forward(
        self,
        tokens: Float[Tensor, "window frame token dim"] | Float[Tensor, "row token dim"],
        mask: Bool[Tensor, "window frame token"] | None = None,
        *,
        frame_index: Int[Tensor, "window frame"] | None = None,
        instruction: Float[Tensor, "window length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "window length"] | None = None,
    ) -> Float[Tensor, "window query hidden"]:
        """The joined states of windows of a whole number of parts; arguments as for :class:`~avfusion.CausalQFormer`.

        States of masked parts, and of parts that a short window lacks, are zero. If the window encoder takes no short
        windows, masked parts have the states that it returns for them.
        """
        frames = (tokens if frame_index is None else frame_index).shape[1]
        if frames % self.fine_window_frames:
            size = self.fine_window_frames
            raise InvalidValueError(f"tokens: must be of whole parts of {size} frames, found {frames} frames")
        given = {"instruction": instruction, "instruction_mask": instruction_mask}
        conditioning = {name: value for name, value in given.items() if value is not None}
        whole = encode_windows(self.window_encoder, self.offers, tokens, mask, frame_index, **conditioning)
        return _join(self.encode_parts(tokens, mask, frame_index, **conditioning), whole)

    def encode_parts(
        self, tokens: Tensor, mask: Tensor | None, frame_index: Tensor | None = None, **conditioning: Tensor
    ) -> Float[Tensor, "window part_query hidden"]:
        """The states of the windows' parts alone, part by part; arguments as for :meth:`forward`."""
        windows, frames = (tokens if frame_index is None else frame_index).shape[:2]
        parts = frames // self.fine_window_frames

        def split(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.unflatten(1, (parts, self.fine_window_frames)).flatten(0, 1)

        cut, real = split(tokens) if frame_index is None else tokens, split(mask)
        states = encode_windows(
            self.window_encoder,
            self.offers,
            tokens if cut is None else cut,
            real,
            split(frame_index),
            queries=self.fine_query_tokens,
            **{name: value.repeat_interleave(parts, 0) for name, value in conditioning.items()},
        )
        if real is not None and (self.frame_multiple or self.window_frames) < self.window_frames:
            states = states.masked_fill(~real.flatten(1).any(1)[:, None, None], 0)
        return states.reshape(windows, parts * states.shape[1], states.shape[2])

    def attention_maps(
        self, tokens: Tensor, mask: Tensor | None = None, **conditioning: Tensor
    ) -> Float[Tensor, "layer window head query frame token"]:
        """Cross-attention weights for whole windows; see :meth:`avfusion.CausalQFormer.attention_maps`."""
        encoder: Any = self.window_encoder
        maps: Tensor = encoder.attention_maps(tokens, mask, **conditioning)
        return maps


class TwoResolutionState(NamedTuple):
    """Windows that are not complete yet, one a row.

    Attributes:
        whole: the window encoder's state of the whole windows.
        parts: ``(row, part query, hidden)``: states of the parts that are complete.
        tokens: ``(row, frame, token, dim)``: frames of parts without states.
        mask: ``(row, frame, token)`` bool.
        num_frames: ``(row,)`` int64: frames so far.
    """

    whole: Any
    parts: Float[Tensor, "row part_query hidden"]
    tokens: Float[Tensor, "row frame token dim"]
    mask: Bool[Tensor, "row frame token"]
    num_frames: Int[Tensor, " row"]


class StreamingTwoResolutionEncoder(TwoResolutionEncoder):
    """A :class:`TwoResolutionEncoder` whose window encoder takes windows frame by frame.

    A part is encoded when it is complete. If the encoder takes an instruction, all parts are encoded in ``flush``,
    because only ``flush`` gets the instruction.
    """

    def initial_state(self, batch_size: int = 1) -> TwoResolutionState:
        """Windows without frames, one a row."""
        encoder: Any = self.window_encoder
        whole, like = encoder.initial_state(batch_size), self.fine_query_tokens
        count = torch.zeros(batch_size, dtype=torch.int64, device=like.device)
        return TwoResolutionState(
            whole,
            like.new_zeros(batch_size, 0, like.shape[1]),
            like.new_zeros(batch_size, 0, 0, 0),
            count.new_zeros(batch_size, 0, 0, dtype=torch.bool),
            count,
        )

    def step(
        self,
        tokens: Float[Tensor, "row frame token dim"],
        state: TwoResolutionState,
        *,
        mask: Bool[Tensor, "row frame token"] | None = None,
    ) -> tuple[None, TwoResolutionState]:
        """Appends frames to each row's window; arguments as for :meth:`avfusion.CausalQFormer.step`."""
        counts = state.num_frames.tolist()
        if len(set(counts)) > 1:
            after = state
            for rows in _rows_of_each(state.num_frames):
                real = None if mask is None else mask[rows]
                _, part = self.step(tokens[rows], take_rows(state, rows), mask=real)
                after = put_rows(after, rows, part)
            return None, after
        encoder: Any = self.window_encoder
        _, whole = encoder.step(tokens, state.whole, mask=mask)
        done, held = self._parts_of(counts)
        mask = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device) if mask is None else mask
        tokens, mask = joined(state.tokens[:, :held], tokens), joined(state.mask[:, :held], mask)
        parts, complete = state.parts[:, :done], 0
        if not self.offers.conditioning:
            complete = tokens.shape[1] // self.fine_window_frames * self.fine_window_frames
        if complete:
            real = mask[:, :complete]
            new = self.encode_parts(tokens[:, :complete], None if bool(real.all()) else real)
            parts = joined(parts, new)
        num_frames = state.num_frames + (tokens.shape[1] - held)
        return None, TwoResolutionState(whole, parts, tokens[:, complete:], mask[:, complete:], num_frames)

    def flush(self, state: TwoResolutionState, **conditioning: Tensor) -> Float[Tensor, "row query hidden"]:
        """What :meth:`forward` returns for the frames so far; ``conditioning`` are its ``instruction`` arguments."""
        counts = state.num_frames.tolist()
        if len(set(counts)) > 1:
            groups = _rows_of_each(state.num_frames)
            states = [
                self.flush(take_rows(state, rows), **{name: value[rows] for name, value in conditioning.items()})
                for rows in groups
            ]
            return torch.cat(states)[torch.cat(groups).argsort()]
        encoder: Any = self.window_encoder
        whole = encoder.flush(state.whole, **conditioning)
        done, held = self._parts_of(counts)
        parts = state.parts[:, :done]
        room = -counts[0] % (self.frame_multiple or self.window_frames) if counts else 0
        if held + room:
            mask = pad(state.mask[:, :held], (0, 0, 0, room))
            tokens = pad(state.tokens[:, :held], (0, 0, 0, 0, 0, room))
            parts = joined(parts, self.encode_parts(tokens, None if bool(mask.all()) else mask, **conditioning))
        return _join(parts, whole)

    def _parts_of(self, counts: list[int]) -> tuple[int, int]:
        """How many states of parts, and frames without them, rows of so many frames hold."""
        count, size = (counts or [0])[0], self.fine_window_frames
        parts = 0 if self.offers.conditioning else count // size
        return parts * len(self.fine_query_tokens), count - parts * size


def _rows_of_each(counts: Tensor) -> list[Tensor]:
    """The rows of each distinct count."""
    return [(counts == count).nonzero().flatten() for count in counts.unique()]


def _join(parts: Tensor, whole: Tensor) -> Tensor:
    """States of parts, zero for those that a short window lacks, beside those of whole windows."""
    return torch.cat([pad(parts, (0, 0, 0, whole.shape[1] - parts.shape[1])), whole], -1)
