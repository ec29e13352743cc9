"""The diversity loss: mean cosine between a window's queries, finite whatever they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avfusion import DiversityLoss, InvalidTypeError, InvalidValueError
from avfusion.functional import query_similarity

HALVES = [torch.float16, torch.bfloat16]


def reference(states: Tensor) -> float:
    """Mean cosine over the pairs of one window's queries."""
    cosines = []
    for i in range(len(states)):
        for j in range(len(states)):
            if i != j:
                lengths = states[i].norm() * states[j].norm()
                cosines.append(float(states[i] @ states[j] / lengths) if lengths > 0 else 0.0)
    return sum(cosines) / len(cosines) if cosines else 0.0


@given(
    windows=st.integers(1, 3),
    queries=st.integers(1, 4),
    hidden=st.integers(1, 4),
    scale=st.floats(-100, 100),
    weight=st.floats(0, 10),
    seed=st.integers(0, 100),
    data=st.data(),
)
@settings(deadline=None, max_examples=50)
def test_equals_a_loop_over_pairs_of_real_windows(windows, queries, hidden, scale, weight, seed, data) -> None:
    torch.manual_seed(seed)
    states = torch.randn(windows, queries, hidden, dtype=torch.float64) * 10**scale
    zero = torch.tensor(data.draw(st.lists(st.booleans(), min_size=windows * queries, max_size=windows * queries)))
    states[zero.reshape(windows, queries)] = 0
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=windows, max_size=windows)))
    each = [reference(window) for window in states]
    real = [value for value, is_real in zip(each, mask.tolist(), strict=True) if is_real]
    mean = sum(real) / len(real) if real else 0.0

    torch.testing.assert_close(query_similarity(states).tolist(), each, atol=1e-10, rtol=0)
    assert DiversityLoss(weight=weight)(states, mask).item() == pytest.approx(weight * mean, abs=1e-9)
    values = DiversityLoss(weight=weight, reduction="none")(states, mask)
    assert values.shape == (windows,)
    expected = [weight * v * m for v, m in zip(each, mask.tolist(), strict=True)]
    torch.testing.assert_close(values.tolist(), expected, atol=1e-9, rtol=0)
    assert DiversityLoss(weight=weight)(states).item() == pytest.approx(weight * sum(each) / windows, abs=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    states = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda s: DiversityLoss(weight=1.0)(s, mask), (states,))
    assert torch.autograd.gradcheck(DiversityLoss(weight=1.0, reduction="none"), (states,))


def test_a_zero_vector_is_similar_to_nothing_and_has_no_gradient() -> None:
    states = torch.randn(1, 3, 4)
    states[0, 1] = 0
    states.requires_grad_()
    value = query_similarity(states)
    value.sum().backward()
    assert value.item() == pytest.approx(reference(states[0].detach()), abs=1e-6)
    assert (states.grad[0, 1] == 0).all()
    assert states.grad[0, ::2].abs().amin() > 0


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
@pytest.mark.parametrize("queries", [1, 2, 5])
def test_finite_from_the_smallest_to_the_largest_number(dtype, queries) -> None:
    info = torch.finfo(dtype)
    for size in (0.0, info.smallest_normal, info.smallest_normal * info.eps, info.eps, 1.0, info.max):
        states = torch.tensor([1.0, -1.0, 0.5]).repeat(2, queries, 1).to(dtype) * size
        states[:, ::2, 0] *= -1
        states.requires_grad_()
        loss = DiversityLoss(weight=1.0)(states)
        loss.backward()
        assert loss.isfinite(), (dtype, size)
        assert states.grad.isfinite().all(), (dtype, size)
        assert loss.abs() <= 1 + 1e-6


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
@pytest.mark.parametrize("size", ["smallest_normal", "max"])
def test_length_does_not_matter_down_to_the_smallest_normal_number(dtype, size) -> None:
    states = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=dtype) * getattr(torch.finfo(dtype), size)
    assert query_similarity(states).item() == pytest.approx(0.5**0.5, abs=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_computed_in_float32(dtype) -> None:
    states = torch.randn(2, 8, 64).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = query_similarity(states)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, query_similarity(states.double()).float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("junk", [float("nan"), float("inf")])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_what_masked_windows_hold_reaches_neither_value_nor_gradient(junk, reduction) -> None:
    mask = torch.tensor([True, False, True])
    clean = torch.randn(3, 4, 5)
    loss = DiversityLoss(reduction=reduction)
    results = []
    for filling in (0.0, junk):
        states = clean.clone()
        states[1] = filling
        states.requires_grad_()
        value = loss(states, mask)
        value.sum().backward()
        results.append((value.detach(), states.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert (results[1][1][1] == 0).all()


def test_no_real_window_gives_a_zero_that_is_part_of_the_graph() -> None:
    states = torch.randn(2, 3, 4, requires_grad=True)
    loss = DiversityLoss()(states, torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert (states.grad == 0).all()
    assert DiversityLoss()(torch.zeros(0, 3, 4)).item() == 0


def test_identical_queries_cost_the_weight_and_orthogonal_ones_nothing() -> None:
    assert DiversityLoss(weight=0.3)(torch.ones(2, 4, 4)).item() == pytest.approx(0.3)
    assert DiversityLoss(weight=0.3)(torch.eye(4)[None]).item() == pytest.approx(0, abs=1e-7)
    assert DiversityLoss().weight == 0.01


def test_bad_input_is_named() -> None:
    for weight in (-1.0, float("nan")):
        with pytest.raises(InvalidValueError, match="weight: must be at least 0"):
            DiversityLoss(weight=weight)
    with pytest.raises(InvalidValueError, match='reduction: must be "mean" or "none", found \'sum\''):
        DiversityLoss(reduction="sum")
    with pytest.raises(
        InvalidValueError, match=r"query_states: must be \(window, query, hidden\), found shape \(3, 4\)"
    ):
        DiversityLoss()(torch.zeros(3, 4))
    with pytest.raises(InvalidTypeError, match="window_mask: must be boolean"):
        DiversityLoss()(torch.zeros(3, 4, 5), torch.ones(3))
    with pytest.raises(InvalidValueError, match=r"window_mask: must be \(window,\) = \(3,\), found \(2,\)"):
        DiversityLoss()(torch.zeros(3, 4, 5), torch.ones(2, dtype=torch.bool))


def test_compiles_without_a_graph_break() -> None:
    loss = DiversityLoss(weight=1.0)
    states, mask = torch.randn(3, 4, 5), torch.tensor([True, False, True])
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(states, mask), loss(states, mask))
