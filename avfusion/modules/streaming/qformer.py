"""A window of the causal Q-Former that grows frame by frame.

What a frame contributes does not depend on what comes after it, so the keys and values that it adds in each layer, for
the causal attention and for the queries, are computed once and kept.
"""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from avfusion._shapes import Float, Int
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.functional.backends import eager, sdpa
from avfusion.functional.masks import let_see_something
from avfusion.modules.attention import MultiHeadAttention
from avfusion.modules.causal_qformer_layer import CausalQFormerLayer, ResidualAttention
from avfusion.modules.window_tokens import used_slots
from avfusion.types.state import joined

if TYPE_CHECKING:
    from avfusion.modules.causal_qformer import CausalQFormer

_SMALL_FRAME = 16  # below it, a call for each frame costs more than the scores that it saves


class LayerMemory(NamedTuple):
    """What a layer keeps of the tokens seen.

    Attributes:
        key: ``(row, token, input_dim)``, of the causal attention; of no tokens without one.
        value: ``(row, token, input_dim)``.
        cross_key: ``(row, token, hidden)``: what the queries look at.
        cross_value: ``(row, token, hidden)``.
    """

    key: Float[Tensor, "row token input_dim"]
    value: Float[Tensor, "row token input_dim"]
    cross_key: Float[Tensor, "row token hidden"]
    cross_value: Float[Tensor, "row token hidden"]


class CausalQFormerState(NamedTuple):
    """Windows that are not complete yet, one a row.

    Attributes:
        layers: what each layer keeps.
        frame: ``(row, token)`` int64: the frame that each kept token belongs to, counted from 1; 0 where there is none.
        num_frames: ``(row,)`` int64: frames so far.
    """

    layers: tuple[LayerMemory, ...]
    frame: Int[Tensor, "row token"]
    num_frames: Int[Tensor, " row"]


def check_streams(qformer: "CausalQFormer") -> None:
    """Raises :class:`~avfusion.InvalidValueError` if what a frame contributes depends on what comes after it."""
    if qformer.causal_direction == "reversed":
        raise InvalidValueError(
            'causal_direction: a stream needs "causal" or None, found "reversed", under which every frame of a window '
            "depends on all later ones"
        )
    if qformer.padding == "released":
        raise InvalidValueError(
            'padding: a stream needs "masked", found "released", under which frames see the padding behind them'
        )


def empty_windows(qformer: "CausalQFormer", rows: int) -> CausalQFormerState:
    """Rows that have seen nothing."""
    check_streams(qformer)
    like, wide, narrow = qformer.query_tokens, qformer.input_dim, qformer.output_dim

    def nothing() -> LayerMemory:
        return LayerMemory(*(like.new_zeros(rows, 0, width) for width in (wide, wide, narrow, narrow)))

    count = torch.zeros(rows, dtype=torch.int64, device=like.device)
    return CausalQFormerState(tuple(nothing() for _ in qformer.layers), count.new_zeros(rows, 0), count)


def append_frames(
    qformer: "CausalQFormer", tokens: Tensor, state: CausalQFormerState, mask: Tensor | None, lengths: Tensor | None
) -> CausalQFormerState:
    """The windows with ``tokens`` ``(row, frame, token, input_dim)`` behind what they hold; others as in ``step``."""
    _check(qformer, tokens, state, mask, lengths)
    rows, frames, slots, _ = tokens.shape
    device = tokens.device
    offsets = torch.arange(frames, device=device)
    real = tokens.new_ones(rows, frames, slots, dtype=torch.bool) if mask is None else mask
    real = real if lengths is None else real & (offsets < lengths[:, None])[..., None]
    number = state.num_frames[:, None] + offsets
    num_frames = state.num_frames + (frames if lengths is None else lengths)
    if bool((num_frames > qformer.window_frames).any()):
        raise InvalidValueError(
            f"tokens: a window has at most {qformer.window_frames} frames, found {int(num_frames.max())}"
        )
    places = qformer.position_embedding.view(qformer.window_frames, slots, -1)
    places = places[number.clamp(max=qformer.window_frames - 1)]
    used = used_slots(real)
    if used is not None:
        tokens, real, places = tokens.index_select(2, used), real[:, :, used], places[:, :, used]
    if mask is not None or lengths is not None:
        tokens = torch.where(real[..., None], tokens, 0)
    embedded = qformer.dropout(qformer.input_norm(tokens) + places).flatten(1, 2)

    new = torch.where(real, number[..., None] + 1, 0).flatten(1)
    view = _View.of(joined(state.frame, new), number + 1, real.shape[2])
    layers = cast("Iterable[CausalQFormerLayer]", qformer.layers)
    memories = tuple(_append(layer, embedded, memory, view) for layer, memory in zip(layers, state.layers, strict=True))
    if view.even:
        return CausalQFormerState(memories, view.frame, num_frames)
    kept = _left_aligned(view.frame)
    memories = tuple(LayerMemory(*(_at(value, kept) for value in memory)) for memory in memories)
    return CausalQFormerState(memories, view.frame.gather(1, kept), num_frames)


def read_windows(
    qformer: "CausalQFormer",
    state: CausalQFormerState,
    queries: Tensor | None,
    instruction: Tensor | None,
    instruction_mask: Tensor | None,
) -> Tensor:
    """``(row, query, hidden)``: what the windows give as they stand."""
    queries = qformer.query_tokens if queries is None else queries
    rows = state.num_frames.shape[0]
    states, state_mask = qformer._first_states(rows, queries, instruction, instruction_mask)
    if not state.frame.shape[1]:
        return states.new_zeros(rows, *queries.shape)
    real = state.frame > 0
    allowed = None if bool(real.all()) else let_see_something(real[:, None, None])
    for layer, memory in zip(cast("Iterable[CausalQFormerLayer]", qformer.layers), state.layers, strict=True):
        look = partial(_look, layer.cross_attention, memory, allowed)
        states = layer.update_states(states, state_mask, len(queries), look)
    states = states[:, : len(queries)]
    return states if allowed is None else states.masked_fill(~real.any(1)[:, None, None], 0)


class _View(NamedTuple):
    """Which tokens the new ones may see.

    Attributes:
        frame: ``(row, token)``: frames of old and new tokens.
        query_frame: ``(row, new token)``: frames of the new ones, whether they are real or not.
        slots: new tokens of a frame.
        even: whether all tokens are real: then the new ones see all old ones, and each other alike in every row.
    """

    frame: Tensor
    query_frame: Tensor
    slots: int
    even: bool

    @classmethod
    def of(cls, frame: Tensor, number: Tensor, slots: int) -> "_View":
        even = bool((frame > 0).all()) and frame.shape[0] > 0
        return cls(frame, number.repeat_interleave(slots, 1), slots, even)

    def allowed(self) -> Tensor | None:
        """``(row or 1, 1, new token, token)`` bool, or ``None``: everything."""
        if self.even and self.query_frame.shape[1] == self.slots:
            return None
        rows = 1 if self.even else None
        frame, query_frame = self.frame[:rows, None, None], self.query_frame[:rows, None, :, None]
        allowed = frame <= query_frame
        return allowed if self.even else let_see_something(allowed & (frame > 0))


def _append(layer: CausalQFormerLayer, tokens: Tensor, memory: LayerMemory, view: _View) -> LayerMemory:
    key, value, encoded = memory.key, memory.value, tokens
    if layer.causal_attention is not None:
        attend = layer.causal_attention.attention
        key, value = joined(key, attend.k_proj(tokens)), joined(value, attend.v_proj(tokens))
        mixed = _mix_causal(attend, attend.q_proj(tokens), key, value, view)
        encoded = _added(layer.causal_attention, tokens, mixed)
    look = layer.cross_attention.attention
    return LayerMemory(
        key,
        value,
        joined(memory.cross_key, look.k_proj(encoded)),
        joined(memory.cross_value, look.v_proj(encoded)),
    )


def _look(cross: ResidualAttention, memory: LayerMemory, allowed: Tensor | None, queries: Tensor) -> Tensor:
    query = cross.attention.q_proj(queries).expand(memory.cross_key.shape[0], -1, -1)
    return _added(cross, queries, _mix(cross.attention, query, memory.cross_key, memory.cross_value, allowed))


def _added(block: ResidualAttention, states: Tensor, mixed: Tensor) -> Tensor:
    return block.norm(states + block.dropout(block.attention.out_proj(mixed)))


def _mix_causal(attend: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor, view: _View) -> Tensor:
    plain = view.even and query.device.type == "cpu" and view.slots >= _SMALL_FRAME and not query.requires_grad
    if not plain:
        return _mix(attend, query, key, value, view.allowed())
    seen = key.shape[1] - query.shape[1]
    stretches = range(0, query.shape[1], view.slots)  # as in prefix_sdpa: no mask, and no score that it would remove
    ends = [(start, start + view.slots) for start in stretches]
    return torch.cat([_mix(attend, query[:, a:b], key[:, : seen + b], value[:, : seen + b], None) for a, b in ends], 1)


def _mix(attend: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    """``(row, q, width)`` of what the queries find, before the output map."""
    heads = [states.unflatten(2, (attend.num_heads, -1)).transpose(1, 2) for states in (query, key, value)]
    dropout_p = attend.dropout if attend.training else 0.0
    if attend.attn_implementation == "eager":
        scores = heads[0] @ heads[1].transpose(-1, -2) / heads[0].shape[-1] ** 0.5
        weights = torch.nn.functional.dropout(eager.masked_softmax(scores, allowed), dropout_p)
        return (weights @ heads[2]).transpose(1, 2).flatten(2)
    return sdpa.fused(heads[0], heads[1], heads[2], allowed, dropout_p).transpose(1, 2).flatten(2)


def _left_aligned(frame: Tensor) -> Tensor:
    """``(row, kept)`` int64: places of each row's tokens, those that are there first and in order."""
    there = frame > 0
    longest = int(there.sum(1).max()) if frame.shape[0] else 0
    return torch.argsort(there.to(torch.uint8), dim=1, descending=True, stable=True)[:, :longest]


def _at(value: Tensor, places: Tensor) -> Tensor:
    if not value.shape[1]:
        return value
    return value.gather(1, places[..., None].expand(-1, -1, value.shape[2]))


def _check(
    qformer: "CausalQFormer", tokens: Tensor, state: CausalQFormerState, mask: Tensor | None, lengths: Tensor | None
) -> None:
    check_streams(qformer)
    rows, slots, width = state.num_frames.shape[0], qformer.tokens_per_frame, qformer.input_dim
    if tokens.ndim != 4 or tokens.shape[0] != rows or tokens.shape[2:] != (slots, width):
        raise InvalidValueError(
            f"tokens: must be ({rows} rows, frame, {slots} tokens, {width}), found shape {tuple(tokens.shape)}"
        )
    if mask is not None and mask.dtype != torch.bool:
        raise InvalidTypeError(f"mask: must be boolean (True = real), found {mask.dtype}")
    if mask is not None and mask.shape != tokens.shape[:3]:
        raise InvalidValueError(
            f"mask: must be (row, frame, token) = {tuple(tokens.shape[:3])}, found shape {tuple(mask.shape)}"
        )
    if lengths is None:
        return
    if lengths.is_floating_point() or lengths.shape != (rows,):
        raise InvalidValueError(
            f"lengths: must be (row,) = ({rows},) whole numbers, found shape {tuple(lengths.shape)}, {lengths.dtype}"
        )
    if bool(((lengths < 0) | (lengths > tokens.shape[1])).any()):
        raise InvalidValueError(f"lengths: must be between 0 and {tokens.shape[1]}, found {lengths.tolist()}")
