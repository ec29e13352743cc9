"""Attention: every backend does what the written-out softmax does, under any mask."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avfusion import InvalidValueError
from avfusion.functional import FrameCausalMask, attention, attention_weights
from avfusion.modules import MultiHeadAttention

TRAINED = ["auto", "eager", "sdpa", "prefix_sdpa"]  # on any device, with gradients and dropout
BACKENDS = [*TRAINED, "flex_attention"]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
# FlexAttention says so on the CPU, where there is nothing else to be had.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def reference(
    query: Tensor, key: Tensor, value: Tensor, causal: FrameCausalMask | None, key_mask: Tensor | None, average: bool
) -> Tensor:
    """Attention of one query after the other, over the keys that it sees and no others."""
    out = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=query.dtype)
    for window in range(query.shape[0]):
        for head in range(query.shape[1]):
            for i in range(query.shape[2]):
                seen = [j for j in range(key.shape[2]) if key_mask is None or key_mask[window, j]]
                if causal is not None:
                    frame, slots = i // causal.tokens_per_frame, causal.tokens_per_frame
                    earlier = causal.direction == "causal"
                    seen = [j for j in seen if (j // slots <= frame if earlier else j // slots >= frame)]
                values = value[window, head]
                if not seen:
                    out[window, head, i] = values.mean(0) if average else 0
                    continue
                scores = torch.stack([query[window, head, i] @ key[window, head, j] for j in seen])
                weights = (scores / math.sqrt(query.shape[-1])).exp()
                out[window, head, i] = (weights / weights.sum()) @ values[seen]
    return out


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, FrameCausalMask | None, Tensor | None]:
    windows, heads, dim = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    frames, slots = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    direction = draw(st.sampled_from(["causal", "reversed", None]))
    keys = frames * slots
    queries = keys if direction else draw(st.integers(1, 3))
    torch.manual_seed(draw(st.integers(0, 1000)))
    q, k, v = (torch.randn(windows, heads, n, dim, dtype=torch.float64) for n in (queries, keys, keys))
    causal = FrameCausalMask(frames, slots, direction) if direction else None
    masked = draw(st.booleans())
    bits = draw(st.lists(st.booleans(), min_size=windows * keys, max_size=windows * keys))
    return q, k, v, causal, torch.tensor(bits).reshape(windows, keys) if masked else None


@pytest.mark.parametrize("backend", BACKENDS)
@given(case=cases(), average=st.booleans())
@settings(deadline=None, max_examples=40)
def test_equals_a_loop_over_the_keys_each_query_sees(backend, case, average) -> None:
    q, k, v, causal, key_mask = case
    out = attention(q, k, v, causal=causal, key_mask=key_mask, average_unseen=average, implementation=backend)
    torch.testing.assert_close(out, reference(q, k, v, causal, key_mask, average), atol=1e-10, rtol=0)


@given(case=cases())
@settings(deadline=None, max_examples=25)
def test_weights_are_what_is_mixed_and_sum_to_one_over_what_is_seen(case) -> None:
    q, k, v, causal, key_mask = case
    weights = attention_weights(q, k, causal=causal, key_mask=key_mask)
    torch.testing.assert_close(weights @ v, attention(q, k, v, causal=causal, key_mask=key_mask), atol=1e-10, rtol=0)
    sums = weights.sum(-1)
    assert (torch.isclose(sums, torch.ones_like(sums)) | (sums == 0)).all()
    if key_mask is not None:
        assert (weights.masked_select(~key_mask[:, None, None]) == 0).all()
        assert (sums[~key_mask.any(1)] == 0).all()
        if causal is None:
            assert (sums[key_mask.any(1)] > 0.5).all()
    if causal is not None:
        assert (weights.masked_select(~causal.dense()) == 0).all()


TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", TRAINED)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_every_dtype_follows_the_inputs_and_float64(backend, dtype, device) -> None:
    q, k, v = torch.randn(3, 2, 2, 6, 8, dtype=torch.float64).unbind()
    key_mask = torch.tensor([[True, True, False, True, True, False], [False] * 6])
    causal = FrameCausalMask(3, 2)
    expected = reference(q, k, v, causal, key_mask, False)
    q, k, v = (t.to(device, dtype).requires_grad_() for t in (q, k, v))
    out = attention(q, k, v, causal=causal, key_mask=key_mask.to(device), implementation=backend)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double().cpu(), expected, atol=TOLERANCES[dtype], rtol=0)
    out.square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (q, k, v))


@pytest.mark.parametrize("backend", TRAINED)
@pytest.mark.parametrize("direction", ["causal", "reversed", None])
def test_a_query_that_sees_nothing_is_zero_with_finite_gradients(backend, direction) -> None:
    q, k, v = (torch.randn(2, 2, 4, 3, requires_grad=True) for _ in range(3))
    # The first window is wholly masked; the second's first frame sees nothing of it, or the last, by the direction.
    key_mask = torch.tensor([[False] * 4, [direction == "reversed"] * 2 + [direction == "causal"] * 2])
    causal = FrameCausalMask(2, 2, direction) if direction else None
    out = attention(q, k, v, causal=causal, key_mask=key_mask, implementation=backend)
    unseen = {"causal": slice(0, 2), "reversed": slice(2, 4), None: slice(0, 4)}[direction]
    assert (out[0] == 0).all()
    assert (out[1, :, unseen] == 0).all()
    out.sum().backward()
    for tensor in (q, k, v):
        assert tensor.grad.isfinite().all()
        assert (tensor.grad[0] == 0).all()


@pytest.mark.parametrize("backend", TRAINED)
def test_gradients_are_those_of_finite_differences(backend) -> None:
    q, k, v = (torch.randn(1, 1, 4, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    key_mask = torch.tensor([[False, True, True, False]])

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, causal=FrameCausalMask(4, 1), key_mask=key_mask, implementation=backend)

    assert torch.autograd.gradcheck(run, (q, k, v))


@pytest.mark.parametrize("backend", TRAINED)
def test_dropout_keeps_the_mean_and_drops_weights(backend) -> None:
    q, k = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 20, 4)
    v = torch.eye(20).expand(1, 1, 20, 20)
    weights = torch.cat([attention(q, k, v, dropout_p=0.5, implementation=backend) for _ in range(200)])
    assert (weights == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert weights.mean().item() == pytest.approx(1 / 20, abs=0.005)


def test_modules_drop_only_in_training() -> None:
    attend = MultiHeadAttention(query_dim=8, num_heads=2, dropout=0.5)
    x = torch.randn(1, 5, 8)
    assert not torch.equal(attend(x, x), attend(x, x))
    attend.eval()
    assert torch.equal(attend(x, x), attend(x, x))


def test_errors_name_the_parameter() -> None:
    q = torch.zeros(1, 1, 1, 1)
    with pytest.raises(
        InvalidValueError, match=r"attn_implementation: must be one of 'auto', 'eager', .*, found 'fast'"
    ):
        attention(q, q, q, implementation="fast")
    with pytest.raises(InvalidValueError, match="attn_implementation"):
        MultiHeadAttention(query_dim=4, num_heads=2, attn_implementation="fast")
    for heads in (0, 3, -1):
        with pytest.raises(InvalidValueError, match=f"num_heads: must divide the width 4, found {heads}"):
            MultiHeadAttention(query_dim=4, num_heads=heads)
