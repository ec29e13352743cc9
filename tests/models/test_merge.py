import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion import InvalidTypeError, InvalidValueError, LLMEmbeddings, PlaceholderError
from avfusion.models import merge_embeddings, select_clips

TOKEN = 9


def embeddings_of(mask: torch.Tensor, dim: int = 3, dtype: torch.dtype = torch.float32) -> LLMEmbeddings:
    values = torch.randn(*mask.shape, dim, dtype=dtype).masked_fill(~mask[..., None], float("nan"))
    batch, positions = mask.shape
    return LLMEmbeddings(values, mask, torch.rand(batch, positions, 2), torch.randn(batch * positions, 1, 2))


def ids_for(counts: list[int], length: int, seed: int) -> torch.Tensor:
    """Rows with so many placeholders, anywhere."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, TOKEN, (len(counts), length), generator=draw)
    for row, count in enumerate(counts):
        ids[row, torch.randperm(length, generator=draw)[:count]] = TOKEN
    return ids


@settings(deadline=None, max_examples=40)
@given(
    mask=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4),
    extra=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_kth_placeholder_takes_kth_real_embedding(mask: list[list[bool]], extra: int, seed: int) -> None:
    media = embeddings_of(torch.tensor(mask))
    ids = ids_for([sum(row) for row in mask], 5 + extra, seed)
    text = torch.randn(*ids.shape, 3)
    merged = merge_embeddings(ids, text, media, TOKEN)
    for row in range(len(mask)):
        expected = text[row].clone()
        expected[ids[row] == TOKEN] = media.embeddings[row][media.mask[row]]
        assert torch.equal(merged[row], expected)


def test_gradient_reaches_exactly_what_is_used() -> None:
    mask = torch.tensor([[True, False, True], [False, False, True]])
    media = embeddings_of(mask)
    values = media.embeddings.clone().requires_grad_()
    ids = ids_for([2, 1], 4, seed=0)
    text = torch.randn(2, 4, 3, requires_grad=True)
    merge_embeddings(ids, text, media._replace(embeddings=values), TOKEN).sum().backward()
    assert values.grad is not None
    assert text.grad is not None
    assert torch.equal(values.grad, mask[..., None].expand(-1, -1, 3).float())
    assert torch.equal(text.grad, (ids != TOKEN)[..., None].expand(-1, -1, 3).float())


@pytest.mark.parametrize("positions", [0, 2])
def test_unused_embeddings_stay_in_the_graph(positions: int) -> None:
    values = torch.zeros(1, positions, 3, requires_grad=True)
    media = LLMEmbeddings(
        values, torch.zeros(1, positions, dtype=torch.bool), torch.zeros(1, positions, 2), torch.zeros(positions, 1, 2)
    )
    merge_embeddings(torch.tensor([[1, 2]]), torch.randn(1, 2, 3), media, TOKEN).sum().backward()
    assert values.grad is not None
    assert not values.grad.any()


def test_result_has_the_dtype_of_the_text() -> None:
    media = embeddings_of(torch.ones(1, 1, dtype=torch.bool), dtype=torch.float64)
    text = torch.randn(1, 2, 3, dtype=torch.bfloat16)
    merged = merge_embeddings(torch.tensor([[TOKEN, 1]]), text, media, TOKEN)
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged[0, 0], media.embeddings[0, 0].bfloat16())


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 1, 0], "row 0 has 1, needs 2$"),
        ([2, 2, 0], "row 1 has 2, needs 1$"),
        ([1, 2, 0], "row 0 has 1, needs 2; row 1 has 2, needs 1$"),
        ([2, 1, 3], "row 2 has 3, needs 0$"),
        ([0, 0, 0], "row 0 has 0, needs 2; row 1 has 0, needs 1$"),
    ],
)
def test_counts_that_differ_are_named(counts: list[int], message: str) -> None:
    media = embeddings_of(torch.tensor([[True, True], [True, False], [False, False]]))
    with pytest.raises(PlaceholderError, match=message):
        merge_embeddings(ids_for(counts, 4, seed=0), torch.zeros(3, 4, 3), media, TOKEN)


def test_long_lists_of_differences_are_cut() -> None:
    media = embeddings_of(torch.ones(8, 1, dtype=torch.bool))
    with pytest.raises(PlaceholderError, match="row 4 has 0, needs 1 and 3 more rows"):
        merge_embeddings(torch.zeros(8, 2, dtype=torch.int64), torch.zeros(8, 2, 3), media, TOKEN)


@pytest.mark.parametrize(
    ("ids", "text", "message"),
    [
        ((2, 4), (2, 3, 3), "inputs_embeds: must be (2, 4) × llm_dim"),
        ((3, 4), (3, 4, 3), "embeddings: must be (3 rows"),
        ((2, 4), (2, 4, 5), "width 5"),
    ],
)
def test_shapes_that_differ_are_refused(ids: tuple[int, ...], text: tuple[int, ...], message: str) -> None:
    media = embeddings_of(torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(InvalidValueError, match=re.escape(message)):
        merge_embeddings(torch.zeros(ids, dtype=torch.int64), torch.zeros(text), media, TOKEN)


@pytest.mark.parametrize("queries", [1, 2])
def test_selected_rows_are_their_clips(queries: int) -> None:
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    clips = embeddings_of(mask)._replace(query_states=torch.randn(2 * 4 // queries, queries, 5))
    rows = select_clips(clips, torch.tensor([1, -1, 0]))
    assert rows.mask.tolist() == [mask[1].tolist(), [False] * 4, mask[0].tolist()]
    states = clips.query_states.unflatten(0, (2, -1))
    for row, clip in ((0, 1), (2, 0)):
        assert torch.equal(rows.embeddings[row][rows.mask[row]], clips.embeddings[clip][mask[clip]])
        assert torch.equal(rows.spans[row], clips.spans[clip])
        assert torch.equal(rows.query_states.unflatten(0, (3, -1))[row], states[clip])
    assert rows.window_mask.unflatten(0, (3, -1))[:, -1].tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (torch.tensor([0, 2]), InvalidValueError, r"one of 2 clips .* found \[0, 2\]"),
        (torch.tensor([-2, 0]), InvalidValueError, r"found \[-2, 0\]"),
        (torch.tensor([[0]]), InvalidValueError, r"found \[\[0\]\]"),
        (torch.tensor([0.0]), InvalidTypeError, "int64 tensor, found torch.float32"),
        ([0], InvalidTypeError, "int64 tensor, found list"),
    ],
)
def test_bad_index_is_refused(index: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        select_clips(embeddings_of(torch.ones(2, 1, dtype=torch.bool)), index)
