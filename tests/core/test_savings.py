"""Whatever is saved, the result is that of the plain path: keys never formed, shared factors, slots left out."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from avfusion import CausalQFormer
from avfusion.functional.absorbed_attention import absorption_pays, is_plain
from avfusion.functional.factored_tokens import factoring_pays
from avfusion.modules import MultiHeadAttention

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
WIDE: dict[str, Any] = {  # of proportions in which every saving pays
    "input_dim": 32,
    "hidden_size": 16,
    "num_heads": 2,
    "num_queries": 3,
    "window_frames": 5,
    "tokens_per_frame": 16,
    "dropout": 0.0,
}


def pair(**changes: Any) -> tuple[CausalQFormer, CausalQFormer]:
    """The same weights twice: plain, and as fast as can be."""
    plain = CausalQFormer(**WIDE | changes, attn_implementation="eager").double()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.normal_(std=0.3)
    fast = CausalQFormer(**WIDE | changes).double()
    fast.load_state_dict(plain.state_dict())
    return plain, fast


def run(qformer: CausalQFormer, *arguments: Any, **options: Any) -> list[Tensor]:
    """States, and the gradients of all parameters and of the tokens if they want one."""
    states = qformer(*arguments, **options)
    wanted = [*qformer.parameters(), *(x for x in arguments if isinstance(x, Tensor) and x.requires_grad)]
    return [states, *torch.autograd.grad(states.square().sum(), wanted)]


def assert_equal(plain: list[Tensor], fast: list[Tensor]) -> None:
    for wanted, found in zip(plain, fast, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-7)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the savings were taken."""
    seen: list[str] = []
    places = {
        "absorbed": ("avfusion.modules.attention.multi_head_attention", "absorbed_attention"),
        "factored": ("avfusion.modules.qformer.window_tokens", "FactoredTokens"),
    }
    for name, (module, attribute) in places.items():
        original = getattr(__import__(module, fromlist=[attribute]), attribute)

        def spy(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            seen.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(f"{module}.{attribute}", spy)
    return seen


@pytest.mark.parametrize("direction", ["causal", "reversed", None])
@pytest.mark.parametrize("padding", ["masked", "released"])
@pytest.mark.parametrize("windows", [1, 14])
@pytest.mark.parametrize("frozen", [True, False])
def test_all_savings_together_give_the_plain_result_and_gradients(taken, direction, padding, windows, frozen) -> None:
    plain, fast = pair(causal_direction=direction, padding=padding)
    tokens = torch.randn(windows, 5, 16, 32, dtype=torch.float64, requires_grad=not frozen)
    mask = torch.rand(windows, 5, 16) < 0.7
    mask[-1, 2:] = False
    mask[:, :, 9:] = False
    for real in (None, mask, torch.zeros_like(mask)):
        assert_equal(run(plain, tokens, real), run(fast, tokens, real))
    assert "absorbed" in taken
    assert ("factored" in taken) == (frozen and windows == 14)


@pytest.mark.parametrize("average_unseen", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_absorbed_attention_alone_is_the_plain_one_with_its_dropout_and_its_unseen_windows(
    taken, dropout, average_unseen
) -> None:
    plain, fast = (
        MultiHeadAttention(query_dim=8, key_dim=32, num_heads=2, dropout=dropout, attn_implementation=name).double()
        for name in ("eager", "auto")
    )
    fast.load_state_dict(plain.state_dict())
    query, tokens = torch.randn(3, 2, 8, dtype=torch.float64), torch.randn(3, 40, 32, dtype=torch.float64)
    mask = torch.rand(3, 40) < 0.7
    mask[1] = False
    found = []
    for attend in (plain, fast):
        torch.manual_seed(0)  # both draw one number for each weight, in the same order
        found.append(attend(query, tokens, key_mask=mask, average_unseen=average_unseen))
    torch.testing.assert_close(found[1], found[0], atol=1e-12, rtol=0)
    assert taken == ["absorbed"]


@pytest.mark.parametrize("parts", [1, 2])
def test_instructions_and_other_queries_too(parts) -> None:
    plain, fast = pair(instruction_dim=6)
    tokens, words = torch.randn(14, 5, 16, 32, dtype=torch.float64), torch.randn(14, 4, 6, dtype=torch.float64)
    others = torch.randn(parts, 16, dtype=torch.float64)
    heard = torch.rand(14, 4) < 0.5
    options = {"instruction": words, "instruction_mask": heard, "queries": others}
    torch.testing.assert_close(fast(tokens, **options), plain(tokens, **options), atol=1e-9, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_lower_precision_is_as_near_to_float64_as_the_plain_path(device, dtype, autocast) -> None:
    plain, fast = pair()
    tokens = torch.randn(14, 5, 16, 32, dtype=torch.float64)
    wanted = plain(tokens)
    kind = torch.float32 if autocast else dtype
    errors = []
    for qformer in (plain.to(device, kind), fast.to(device, kind)):
        with torch.autocast(device, dtype=dtype, enabled=autocast and dtype != torch.float32):
            states = qformer(tokens.to(device, kind))
        states.float().square().sum().backward()
        assert all(p.grad.isfinite().all() for p in qformer.parameters())
        errors.append((states.double().cpu() - wanted).norm() / wanted.norm())
    assert errors[1] < 2 * errors[0] + 1e-6


def test_dropout_is_of_the_weights_that_would_have_mixed_the_formed_values() -> None:
    plain = MultiHeadAttention(query_dim=16, key_dim=64, num_heads=2, dropout=0.5, attn_implementation="sdpa")
    fast = MultiHeadAttention(query_dim=16, key_dim=64, num_heads=2, dropout=0.5)
    fast.load_state_dict(plain.state_dict())
    query, tokens = torch.randn(1, 3, 16).expand(3000, -1, -1), torch.randn(1, 40, 64).expand(3000, -1, -1)
    assert fast.absorbs(query, tokens, None)
    with torch.no_grad():
        one, two = plain(query, tokens), fast(query, tokens)
    assert not torch.equal(two[0], two[1])
    torch.testing.assert_close(one.mean(0), two.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(one.var(0), two.var(0), atol=0.02, rtol=0.15)


# --- When they are taken. ---


def test_absorption_needs_few_queries_and_wide_tokens() -> None:
    def pays(queries: int, tokens: int, wide: int, width: int, heads: int) -> bool:
        return absorption_pays(torch.empty(1, queries, width), torch.empty(1, tokens, wide), width, heads)

    assert pays(32, 320, 1536, 768, 12)
    assert not pays(32, 32, 1536, 768, 12)
    assert not pays(320, 320, 1536, 768, 12)
    assert not pays(32, 320, 768, 768, 48)


def test_factoring_needs_windows_to_share_with() -> None:
    tokens = torch.empty(14, 2, 2, 4)
    assert factoring_pays(tokens, 14, None, wants_gradients=True)
    assert not factoring_pays(tokens, 5, None, wants_gradients=True)
    assert not factoring_pays(tokens, 14, None, wants_gradients=False)
    assert not factoring_pays(tokens.requires_grad_(), 14, None, wants_gradients=True)
    index = torch.zeros(20, 10, dtype=torch.int64)
    assert factoring_pays(torch.empty(110, 2, 4), 20, index, wants_gradients=False)
    assert not factoring_pays(torch.empty(200, 2, 4), 20, index, wants_gradients=False)


def wrapped(linear: nn.Linear) -> nn.Module:
    """As an adapter wraps a map."""

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.weight, self.out_features = linear, linear.weight, linear.out_features

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + 1.0

    return Adapter()


@pytest.mark.parametrize("name", ["causal_attention", "cross_attention"])
@pytest.mark.parametrize("projection", ["q_proj", "k_proj", "v_proj"])
@pytest.mark.parametrize("how", ["adapter", "hook", "pre_hook"])
def test_maps_with_adapters_or_hooks_are_called(name, projection, how) -> None:
    plain, fast = pair()
    for qformer in (plain, fast):
        attend = getattr(qformer.layers[0], name).attention
        linear = getattr(attend, projection)
        if how == "adapter":
            setattr(attend, projection, wrapped(linear))
        elif how == "hook":
            linear.register_forward_hook(lambda module, given, output: output * 1.5)
        else:
            linear.register_forward_pre_hook(lambda module, given: (given[0] * 1.5,))
    assert not is_plain(getattr(getattr(fast.layers[0], name).attention, projection))
    tokens = torch.randn(14, 5, 16, 32, dtype=torch.float64)
    torch.testing.assert_close(fast(tokens), plain(tokens), atol=1e-9, rtol=0)


# --- Slots that nobody fills. ---


@given(seed=st.integers(0, 100), kept=st.integers(1, 16), direction=st.sampled_from(["causal", "reversed", None]))
@settings(deadline=None, max_examples=25)
def test_slots_that_no_window_fills_are_left_out_without_a_difference(seed, kept, direction) -> None:
    torch.manual_seed(seed)
    plain, fast = pair(causal_direction=direction)
    mask = torch.rand(3, 5, 16) < 0.8
    mask[:, :, torch.randperm(16)[kept:]] = False
    tokens = torch.where(mask[..., None], torch.randn(3, 5, 16, 32, dtype=torch.float64), torch.nan)
    seen: list[int] = []
    fast.layers[0].register_forward_pre_hook(lambda module, given: seen.append(given[2].tokens.shape[1]))
    torch.testing.assert_close(fast(tokens, mask), plain(tokens, mask), atol=1e-9, rtol=0)
    used = int(mask.any(1).any(0).sum())
    assert seen == [5 * (used if 0 < used <= 14 else 16)]


# --- Frames that windows share. ---


@pytest.mark.parametrize("direction", ["causal", "reversed", None])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("wants", [False, True])
def test_shared_frames_are_mapped_once(taken, direction, masked, wants) -> None:
    plain, fast = pair(causal_direction=direction)
    frames = torch.randn(17, 16, 32, dtype=torch.float64, requires_grad=wants)
    index = torch.arange(13)[:, None] + torch.arange(5)
    real = torch.rand(17, 16) < 0.6
    mask = real[index] if masked else None
    assert_equal(
        run(plain, frames, mask, frame_index=index),
        run(fast, frames, mask, frame_index=index),
    )
    windows = frames.detach()[index]
    torch.testing.assert_close(fast(frames, mask, frame_index=index), plain(windows, mask), atol=1e-9, rtol=0)
    assert "factored" in taken
