"""Embeddings into the places that the text keeps for them."""

import torch
from torch import Tensor

from avfusion._shapes import Float, Int
from avfusion.errors import InvalidTypeError, InvalidValueError, PlaceholderError
from avfusion.functional.ragged import real_first
from avfusion.types import LLMEmbeddings


def merge_embeddings(
    input_ids: Int[Tensor, "batch length"],
    inputs_embeds: Float[Tensor, "batch length llm_dim"],
    embeddings: LLMEmbeddings,
    placeholder_token_id: int,
) -> Float[Tensor, "batch length llm_dim"]:
    """Replaces the embeddings of placeholder tokens by each row's real embeddings, in order.

    Args:
        input_ids: ``(batch, length)`` integers.
        inputs_embeds: ``(batch, length, llm_dim)``: the language model's embeddings of ``input_ids``; values at
            placeholders are ignored.
        embeddings: the connector's output for the same rows; masked positions are skipped.
        placeholder_token_id: id of the placeholder token.

    Returns:
        ``(batch, length, llm_dim)`` in dtype and on the device of ``inputs_embeds``; differentiable in both.

    Raises:
        PlaceholderError: a row has a different number of placeholders than real embeddings.
        InvalidValueError: batch sizes or widths differ.

    Example:
        >>> import torch
        >>> from avfusion import LLMEmbeddings
        >>> media = LLMEmbeddings(
        ...     embeddings=torch.tensor([[[1.0], [0.0], [2.0]]]),
        ...     mask=torch.tensor([[True, False, True]]),
        ...     spans=torch.zeros(1, 3, 2),
        ...     query_states=torch.zeros(3, 1, 1),
        ... )
        >>> ids = torch.tensor([[5, 9, 9, 6]])
        >>> merge_embeddings(ids, torch.full((1, 4, 1), 7.0), media, placeholder_token_id=9).flatten().tolist()
        [7.0, 1.0, 2.0, 7.0]
    """
    values, mask = embeddings.embeddings, embeddings.mask
    if inputs_embeds.shape[:2] != input_ids.shape:
        raise InvalidValueError(
            f"inputs_embeds: must be {tuple(input_ids.shape)} × llm_dim, found shape {tuple(inputs_embeds.shape)}"
        )
    if values.shape[0] != input_ids.shape[0] or values.shape[2] != inputs_embeds.shape[2]:
        raise InvalidValueError(
            f"embeddings: must be ({input_ids.shape[0]} rows, position, width {inputs_embeds.shape[2]}), "
            f"found shape {tuple(values.shape)}"
        )
    values, mask = values.to(inputs_embeds), mask.to(inputs_embeds.device)
    places = input_ids == placeholder_token_id
    _check_counts(places.sum(1), mask.sum(1), placeholder_token_id)

    # The k-th placeholder of a row takes its k-th real position; everything else looks at a spare place at the end,
    # which also keeps the embeddings in the graph where no row has any.
    spare = values.shape[1]
    values = torch.cat([values, values.new_zeros(values.shape[0], 1, values.shape[2])], 1)
    order = real_first(mask)
    order = torch.nn.functional.pad(order, (0, 1), value=spare)
    source = order.gather(1, torch.where(places, places.cumsum(1) - 1, spare))
    taken = values.gather(1, source[..., None].expand(-1, -1, values.shape[2]))
    return torch.where(places[..., None], taken, inputs_embeds)


def _check_counts(found: Tensor, wanted: Tensor, placeholder_token_id: int) -> None:
    if torch.equal(found, wanted):
        return
    pairs = zip(found.tolist(), wanted.tolist(), strict=True)
    wrong = [f"row {row} has {has}, needs {needs}" for row, (has, needs) in enumerate(pairs) if has != needs]
    more = f" and {len(wrong) - 5} more rows" if len(wrong) > 5 else ""
    raise PlaceholderError(
        f"input_ids: each row must hold its placeholder token ({placeholder_token_id}) once for each embedding of its "
        f"clip; {'; '.join(wrong[:5])}{more}"
    )


def select_clips(embeddings: LLMEmbeddings, index: Int[Tensor, " row"]) -> LLMEmbeddings:
    """The embeddings of each row's clip, so that several questions share one clip.

    Args:
        embeddings: embeddings of all clips.
        index: ``(row,)`` int64: clip of each row, ``-1`` for a row without a clip.

    Returns:
        Embeddings of each row.

    Raises:
        InvalidValueError: an index without a clip.

    Example:
        >>> import torch
        >>> from avfusion import LLMEmbeddings
        >>> clips = LLMEmbeddings(
        ...     torch.tensor([[[1.0]], [[2.0]]]), torch.ones(2, 1).bool(), torch.zeros(2, 1, 2), torch.zeros(2, 1, 4)
        ... )
        >>> rows = select_clips(clips, torch.tensor([1, 1, 0, -1]))
        >>> rows.embeddings.flatten().tolist(), rows.mask.flatten().tolist()
        ([2.0, 2.0, 1.0, 0.0], [True, True, True, False])
    """
    clips = embeddings.mask.shape[0]
    check_index(index, clips)
    index = index.to(embeddings.mask.device)
    windows, per_window = embeddings.query_states.shape[:2]
    states = embeddings.query_states.reshape(clips, windows // clips, per_window, -1)
    return LLMEmbeddings(
        embeddings=select_rows(embeddings.embeddings, index),
        mask=select_rows(embeddings.mask, index),
        spans=select_rows(embeddings.spans, index),
        query_states=select_rows(states, index).flatten(0, 1),
    )


def check_index(index: Tensor, clips: int, rows: int | None = None) -> None:
    """Refuses an index that does not name, for each of ``rows`` rows, one of ``clips`` clips or ``-1``."""
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        found = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise InvalidTypeError(f"media_index: must be an int64 tensor, found {found}")
    if rows is not None and index.shape != (rows,):
        raise InvalidValueError(f"media_index: must be (row,) = ({rows},), found shape {tuple(index.shape)}")
    if index.ndim != 1 or bool(((index < -1) | (index >= clips)).any()):
        raise InvalidValueError(
            f"media_index: must be one of {clips} clips for each row, or -1 for none, found {index.tolist()}"
        )


def select_rows(values: Tensor, index: Tensor) -> Tensor:
    """``values[index]``, with zeros (``False``) for ``-1``."""
    index = index.to(values.device)
    if values.shape[0] == 0:
        return values.new_zeros(index.shape[0], *values.shape[1:])
    keep = (index >= 0).reshape(-1, *(1,) * (values.ndim - 1))
    return values[index.clamp(min=0)].masked_fill(~keep, 0)
