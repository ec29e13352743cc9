"""Ragged batches: what is cut or gathered goes back to where it was; pooled grids are means of their patches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion import InvalidValueError
from avfusion.functional import cut_chunks, pool_patches, scatter_masked
from avfusion.functional.pooling import pooled_grid

shapes = st.lists(st.integers(0, 4), min_size=1, max_size=3)


@settings(max_examples=200)
@given(shapes, st.lists(st.integers(1, 3), max_size=2), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_scattering_undoes_masking(places: list[int], dims: list[int], seed: int, left_over: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*places, *dims, generator=generator)
    mask = torch.rand(places, generator=generator) < torch.rand((), generator=generator) * 1.2
    given_values = torch.cat([values[mask], torch.randn(left_over, *dims)]).requires_grad_()
    found = scatter_masked(given_values, mask)
    assert torch.equal(found, torch.where(mask.reshape(*places, *[1] * len(dims)), values, 0))
    found.sum().backward()  # all values stay in the graph
    assert given_values.grad is not None
    assert float(given_values.grad.sum()) == values[mask].numel()


def test_scattering_wants_a_value_for_each_place() -> None:
    with pytest.raises(InvalidValueError, match=r"values: must be one for each of 3 true places, found 2"):
        scatter_masked(torch.zeros(2, 4), torch.ones(1, 3, dtype=torch.bool))


@settings(max_examples=200)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.integers(1, 11), st.integers(0, 4), st.booleans())
def test_chunks_joined_are_the_clips(lengths: list[int], size: int, padding: int, wide: bool) -> None:
    values = torch.randn(len(lengths), max(lengths) + padding, *((2,) if wide else ()))
    chunks, real = cut_chunks(values, torch.tensor(lengths), size)
    assert chunks.shape[2] == size
    joined = chunks.flatten(1, 2)
    assert torch.equal(joined[:, : values.shape[1]], values)
    assert not joined[:, values.shape[1] :].any()
    assert real.sum(1).tolist() == [-(-length // size) for length in lengths]
    assert bool((real[:, 1:] <= real[:, :-1]).all())


def test_chunks_have_a_size() -> None:
    with pytest.raises(InvalidValueError, match=r"size: must be at least 1, found 0"):
        cut_chunks(torch.zeros(1, 3), torch.tensor([3]), 0)


@settings(max_examples=200)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 150))
def test_a_number_of_tokens_is_the_squarest_grid(rows: int, columns: int, tokens: int) -> None:
    squarest = max(side for side in range(1, int(tokens**0.5) + 1) if tokens % side == 0)
    if squarest > rows or tokens // squarest > columns:
        with pytest.raises(InvalidValueError, match=rf"pool: must be a grid of at most {rows} × {columns} patches"):
            pooled_grid(tokens, (rows, columns))
        return
    found = pooled_grid(tokens, (rows, columns))
    assert found == (squarest, tokens // squarest)
    patches = torch.randn(1, rows * columns, 2)
    pooled = pool_patches(patches, (rows, columns), tokens)
    edges = [
        [(n * i // k, -(-n * (i + 1) // k)) for i in range(k)] for n, k in zip((rows, columns), found, strict=True)
    ]
    grid = patches.reshape(1, rows, columns, 2)
    wanted = torch.stack([grid[:, a:b, c:d].mean((1, 2)) for a, b in edges[0] for c, d in edges[1]], 1)
    torch.testing.assert_close(pooled, wanted)


def test_patches_fill_their_grid() -> None:
    with pytest.raises(InvalidValueError, match=r"grid: 2 × 3 must be the number of patches, found 5"):
        pool_patches(torch.zeros(1, 5, 2), (2, 3), 1)
