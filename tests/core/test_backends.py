"""What each attention backend can do, what it refuses, and which of them "auto" takes."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from avfusion import CausalQFormer, InvalidValueError
from avfusion.functional import FrameCausalMask, attention
from avfusion.functional.backends import flex, sdpa, varlen
from avfusion.functional.backends.choice import choose_implementation

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
DIRECTIONS = ["causal", "reversed"]


def inputs(
    tokens: int, *, windows: int = 2, heads: int = 2, dim: int = 16, dtype: torch.dtype = torch.float32
) -> Tensor:
    return torch.randn(3, windows, heads, tokens, dim, dtype=dtype)


# --- The published window: 320 tokens, 64 over a multiple of 128, where cuDNN's backward pass fails with a mask. ---


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["auto", "sdpa", "prefix_sdpa"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_published_window_has_the_gradients_of_float64(device, dtype, backend, masked) -> None:
    given = inputs(320, dim=32).double()
    causal = FrameCausalMask(10, 32)
    key_mask = (torch.rand(2, 320) < 0.8) if masked else None
    results = []
    for kind, place, name in ((torch.float64, "cpu", "eager"), (dtype, device, backend)):
        q, k, v = (x.to(place, kind).requires_grad_() for x in given)
        real = None if key_mask is None else key_mask.to(place)
        out = attention(q, k, v, causal=causal, key_mask=real, implementation=name)
        results.append([out, *torch.autograd.grad(out.square().sum(), (q, k, v))])
    for wanted, found in zip(*results, strict=True):
        assert found.isfinite().all()
        error = (found.double().cpu() - wanted).norm() / wanted.norm()
        assert error < (2e-2 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize(
    ("queries", "keys", "masked", "right"),
    [
        (320, 320, True, False),
        (320, 320, False, True),
        (384, 384, True, True),
        (32, 320, True, False),
        (64, 128, True, False),
        (1, 128, False, False),
        (1, 320, True, False),
    ],
)
def test_cudnn_is_left_out_where_it_is_wrong(queries, keys, masked, right) -> None:
    assert sdpa.cudnn_is_right(queries, keys, masked=masked, trained=True) == right
    assert sdpa.cudnn_is_right(queries, keys, masked=masked, trained=False) == (queries != 1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["auto", "sdpa"])
def test_a_single_query_is_finite(device, backend) -> None:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q, k, v = torch.randn(2, 2, 1, 64), torch.randn(2, 2, 128, 64), torch.randn(2, 2, 128, 64)
    out = attention(*(x.to(device, dtype) for x in (q, k, v)), implementation=backend)
    torch.testing.assert_close(out.float().cpu(), attention(q, k, v, implementation="eager"), atol=2e-2, rtol=0)


@pytest.fixture
def masks_given(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor | None]]:
    """The masks that PyTorch's attention is called with."""
    seen: list[Tensor | None] = []
    original = functional.scaled_dot_product_attention

    def spy(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *rest: float) -> Tensor:
        seen.append(attn_mask)
        return original(query, key, value, attn_mask, *rest)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_are_boolean_and_made_once(masks_given, dtype) -> None:
    q, k, v = inputs(6, dtype=dtype)
    causal = FrameCausalMask(3, 2)
    for key_mask in (None, torch.rand(2, 6) < 0.5):
        for backend in ("sdpa", "prefix_sdpa"):
            attention(q, k, v, causal=causal, key_mask=key_mask, implementation=backend)
    assert {mask.dtype for mask in masks_given if mask is not None} == {torch.bool}
    masks_given.clear()
    for _ in range(2):
        attention(q, k, v, causal=causal, implementation="sdpa")
    assert masks_given[0] is masks_given[1]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_prefixes_need_no_mask_and_hold_what_is_seen(masks_given, direction) -> None:
    q, k, v = inputs(6)
    attention(q, k, v, causal=FrameCausalMask(3, 2, direction), implementation="prefix_sdpa")
    assert masks_given == [None] * 3


# --- FlexAttention. ---


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("frames", "slots"), [(10, 32), (3, 7), (2, 128), (40, 9)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_block_mask_is_the_dense_mask(direction, frames, slots, masked) -> None:
    causal, length = FrameCausalMask(frames, slots, direction), frames * slots
    key_mask = (torch.rand(2, length) < 0.5) if masked else None
    mask = flex.block_mask(causal, key_mask, (length, length), torch.device("cpu"))
    q, k = torch.arange(length)[:, None], torch.arange(length)
    for window in range(2):
        allowed = mask.mask_mod(torch.tensor(window), torch.tensor(0), q, k)
        wanted = causal.dense() if key_mask is None else causal.dense() & key_mask[window]
        assert torch.equal(allowed, wanted)
    # Blocks in which the structure allows something are computed, and no others.
    blocks = mask.to_dense()[0, 0].bool()
    for row, column in itertools.product(*map(range, blocks.shape)):
        inside = causal.dense()[row * 128 : (row + 1) * 128, column * 128 : (column + 1) * 128]
        assert blocks[row, column] == inside.any()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_refuses_by_name() -> None:
    q, k, v = inputs(6)
    with pytest.raises(InvalidValueError, match=r'"flex_attention" has no dropout, found 0.1'):
        attention(q, k, v, dropout_p=0.1, implementation="flex_attention")
    with pytest.raises(InvalidValueError, match=r'"flex_attention" has no gradients on the CPU'):
        attention(q.requires_grad_(), k, v, implementation="flex_attention")
    with torch.no_grad():
        assert attention(q, k, v, implementation="flex_attention").shape == q.shape


# --- Keys of different numbers. ---


def by_loop(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, key_ends: Tensor, longest: int, longest_key: int) -> Tensor:
    """What PyTorch's kernel, which needs a GPU, does; packed ``(token, head, dim)``."""
    assert ends.dtype == key_ends.dtype == torch.int32
    out = torch.zeros_like(q)
    for i in range(len(ends) - 1):
        rows, keys = slice(ends[i], ends[i + 1]), slice(key_ends[i], key_ends[i + 1])
        assert ends[i + 1] - ends[i] <= longest
        assert key_ends[i + 1] - key_ends[i] <= longest_key
        if key_ends[i + 1] > key_ends[i]:
            parts = (x.transpose(0, 1) for x in (q[rows], k[keys], v[keys]))
            out[rows] = functional.scaled_dot_product_attention(*parts).transpose(0, 1)
    return out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_masked_keys_are_taken_out(monkeypatch, device, masked) -> None:
    q, (_, k, v) = torch.randn(3, 2, 4, 64), inputs(7, windows=3, dim=64)
    key_mask = torch.rand(3, 7) < 0.5 if masked else None
    if key_mask is not None:
        key_mask[1, 0] = True
    wanted = attention(q, k, v, key_mask=key_mask, implementation="eager")
    if device == "cpu":
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", by_loop)
        torch.testing.assert_close(varlen.packed(q, k, v, key_mask), wanted)
        return
    real = None if key_mask is None else key_mask.to(device)
    half = (x.to(device, torch.bfloat16) for x in (q, k, v))
    out = attention(*half, key_mask=real, implementation="varlen_attn")
    torch.testing.assert_close(out.float().cpu(), wanted, atol=2e-2, rtol=0)


def test_varlen_attn_refuses_by_name() -> None:
    q, k, v = inputs(6)
    with pytest.raises(InvalidValueError, match=r'"varlen_attn" cannot express a frame-block-causal mask'):
        attention(q, k, v, causal=FrameCausalMask(3, 2), implementation="varlen_attn")
    with pytest.raises(InvalidValueError, match=r'"varlen_attn" has no dropout'):
        attention(q, k, v, dropout_p=0.5, implementation="varlen_attn")
    with pytest.raises(
        InvalidValueError, match=r'"varlen_attn" runs on CUDA in float16 or bfloat16 only, found .* on cpu'
    ):
        attention(q, k, v, implementation="varlen_attn")


@pytest.mark.parametrize("name", ["flash_attention_2", "flash_attention_3"])
def test_flash_attention_refuses_by_name_and_says_why(name) -> None:
    with pytest.raises(InvalidValueError, match=f"{name}' cannot express a mask that is causal by frame"):
        CausalQFormer(attn_implementation=name)


# --- The choice. ---


class OnCuda:
    """Stands for a tensor on a GPU."""

    is_cuda, device, requires_grad = True, torch.device("cuda"), False

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        self.dtype = dtype


def test_the_choice_follows_device_shape_dtype_and_gradients() -> None:
    def choose(*tensors: object, causal: FrameCausalMask | None = None, dropout_p: float = 0.0) -> str:
        q, k, v = tensors * 3 if len(tensors) == 1 else tensors
        return choose_implementation(q, k, v, causal, dropout_p)  # type: ignore[arg-type]

    window, long, small = FrameCausalMask(10, 32), FrameCausalMask(40, 32), FrameCausalMask(10, 4)
    plain = torch.zeros(1, 1, 1, 1)
    assert choose(plain) == "sdpa"
    assert choose(plain, causal=window) == "prefix_sdpa"
    assert choose(plain, causal=small) == "sdpa"
    trained = nn.Parameter(plain)
    assert choose(plain, plain, trained, causal=window) == "sdpa"
    with torch.no_grad():
        assert choose(plain, plain, trained, causal=window) == "prefix_sdpa"
    assert choose(OnCuda(), causal=window) == "sdpa"
    assert choose(OnCuda(), causal=long) == "flex_attention"
    assert choose(OnCuda(), causal=long, dropout_p=0.1) == "sdpa"
    assert choose(OnCuda(torch.float32), causal=long) == "sdpa"
    assert choose(OnCuda()) == "sdpa"
