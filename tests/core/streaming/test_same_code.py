"""A stream runs what forward runs: the same backend, refusals, hooks, adapters, dtypes and checkpoints."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from avfusion import CausalQFormer, InvalidValueError
from avfusion.functional import FrameCausalMask, attention
from avfusion.functional.backends import BACKENDS
from tests.core.streaming.cutting import build_qformer

# FlexAttention says so on the CPU, where there is nothing else to be had.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

SLOTS, FRAMES = 20, 6


def build(**changes: Any) -> CausalQFormer:
    torch.manual_seed(0)
    return build_qformer(8, SLOTS, FRAMES, hidden_size=8, num_heads=2, num_layers=2, **changes).double()


def windows(rows: int = 2) -> Tensor:
    return torch.randn(rows, FRAMES, SLOTS, 8, dtype=torch.float64)


def stream(
    qformer: CausalQFormer, tokens: Tensor, sizes: tuple[int, ...] = (1, 3, 2), **conditioning: Tensor
) -> Tensor:
    state = qformer.initial_state(len(tokens))
    for part in tokens.split(sizes, 1):
        _, state = qformer.step(part, state)
    return qformer.flush(state, **conditioning)


@pytest.mark.parametrize("direction", ["causal", None])
@pytest.mark.parametrize("name", ["eager", "sdpa", "prefix_sdpa", "flex_attention"])
def test_every_backend_is_called_in_a_stream(monkeypatch, name, direction) -> None:
    qformer, calls = build(causal_direction=direction, attn_implementation=name), []
    original = BACKENDS[name]
    for other in BACKENDS:
        monkeypatch.setitem(BACKENDS, other, lambda *_, other=other: pytest.fail(f"{other} was called"))
    monkeypatch.setitem(BACKENDS, name, lambda *given: calls.append(given[3]) or original(*given))
    tokens = windows()
    with torch.no_grad():
        found = stream(qformer, tokens)
        steps, structures = len(calls), {causal for causal in calls if causal is not None}
        torch.testing.assert_close(found, qformer(tokens), rtol=0, atol=1e-10)
    assert len(calls) > steps > 0
    seen = {FrameCausalMask(n, SLOTS, "causal", past * SLOTS) for n, past in ((1, 0), (3, 1), (2, 4))}
    assert structures == (seen if direction else set())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attn_implementation": "varlen_attn"}, '"varlen_attn" cannot express a frame-block-causal mask'),
        ({"attn_implementation": "varlen_attn", "causal_direction": None}, '"varlen_attn" runs on CUDA'),
        ({"attn_implementation": "flex_attention"}, '"flex_attention" has no gradients on the CPU'),
        ({"attn_implementation": "flex_attention", "dropout": 0.5}, '"flex_attention" has no dropout'),
    ],
)
def test_a_stream_refuses_what_forward_refuses(changes, message) -> None:
    qformer, tokens = build(**changes), windows()
    for run in (qformer, lambda given: stream(qformer, given), lambda given: stream(qformer, given, (1,) * FRAMES)):
        with pytest.raises(InvalidValueError, match=message):
            run(tokens)


@pytest.mark.parametrize("direction", ["causal", None])
@pytest.mark.parametrize("instruction", [False, True])
def test_hooks_that_forward_fires_fire_in_a_stream(direction, instruction) -> None:
    qformer = build(causal_direction=direction, instruction_dim=3 if instruction else None)
    fired: set[str] = set()
    for name, module in qformer.named_modules():
        if name and not isinstance(module, nn.ModuleList):
            module.register_forward_hook(lambda *_, name=name: fired.add(name))
    said = {"instruction": torch.randn(2, 4, 3, dtype=torch.float64)} if instruction else {}
    tokens = windows()
    # Without plain attention no key is formed by its map, as long as the map has no hook; here each has one.
    qformer(tokens, **said)
    forward = set(fired)
    fired.clear()
    stream(qformer, tokens, **said)
    assert fired == forward == {name for name, module in qformer.named_modules() if name and name != "layers"}


MODULES = [name for name, module in build(instruction_dim=3).named_modules() if name and isinstance(module, nn.Linear)]


@given(
    name=st.sampled_from(MODULES),
    how=st.sampled_from(["hook", "pre-hook", "adapter"]),
    sizes=st.sampled_from([(6,), (1,) * 6, (2, 4), (5, 1)]),
    backend=st.sampled_from(["auto", "eager"]),
)
@settings(deadline=None, max_examples=200)
@torch.no_grad()
def test_what_changes_a_map_changes_it_in_a_stream(name, how, sizes, backend) -> None:
    qformer = build(instruction_dim=3, attn_implementation=backend)
    tokens, words = windows(), torch.randn(2, 4, 3, dtype=torch.float64)
    before = qformer(tokens, instruction=words)
    module, parent = qformer.get_submodule(name), qformer.get_submodule(name.rpartition(".")[0])
    if how == "hook":
        module.register_forward_hook(lambda module, given, output: output * 1.5 + 0.1 * output.sin())
    elif how == "pre-hook":
        module.register_forward_pre_hook(lambda module, given: (given[0] * 1.5 + 0.1 * given[0].sin(),))
    else:
        parent.register_module(name.rpartition(".")[2], LowRank(module))
    wanted = qformer(tokens, instruction=words)
    torch.testing.assert_close(stream(qformer, tokens, sizes, instruction=words), wanted, rtol=0, atol=1e-9)
    last = "layers.1.instruction"  # nothing reads the words after the last layer
    assert name.startswith(last) or not torch.equal(before, wanted)


class LowRank(nn.Module):
    """A map as PEFT wraps it."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(base.in_features, 2).double(), nn.Linear(2, base.out_features).double()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def test_layers_are_checkpointed_in_a_stream() -> None:
    qformer, tokens, runs, calls = build(), windows(), [], []
    qformer.layers[0].register_forward_pre_hook(lambda *_: calls.append(None))
    counts = []
    for qformer.gradient_checkpointing in (False, True):
        calls.clear()
        given = tokens.clone().requires_grad_()
        states = stream(qformer, given)
        runs.append([states, *torch.autograd.grad(states.square().sum(), [given, *qformer.parameters()])])
        counts.append(len(calls))
    assert counts == [4, 8], "three steps and a flush run again in the backward pass"
    for off, on in zip(*runs, strict=True):
        torch.testing.assert_close(on, off, rtol=0, atol=1e-12)


def test_autocast_gives_a_stream_the_dtypes_of_forward() -> None:
    qformer, tokens = build().float(), windows().float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        state = qformer.step(tokens, qformer.initial_state(2))[1]
        found, wanted = qformer.flush(state), qformer(tokens)
    assert found.dtype == wanted.dtype
    assert {value.dtype for cache in state.layers for kv in cache for value in kv} == {torch.bfloat16}
    torch.testing.assert_close(found, wanted, rtol=0.1, atol=0.1)


@given(
    frames=st.integers(1, 3),
    slots=st.sampled_from([1, 2, 17]),
    cached=st.integers(0, 5),
    masked=st.booleans(),
    backend=st.sampled_from(["auto", "sdpa", "prefix_sdpa", "flex_attention"]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=200)
@torch.no_grad()
def test_cached_keys_are_those_of_earlier_frames(frames, slots, cached, masked, backend, seed) -> None:
    """Queries of the last frames give what they give among all, under any mask of the keys."""
    torch.manual_seed(seed)
    past, total = cached * slots, (cached + frames) * slots
    q, k, v = torch.randn(3, 2, 2, total, 4, dtype=torch.float64)
    key_mask = torch.rand(2, total) < 0.6 if masked else None
    whole = attention(
        q, k, v, causal=FrameCausalMask(cached + frames, slots), key_mask=key_mask, implementation="eager"
    )
    causal = FrameCausalMask(frames, slots, cached_tokens=past)
    found = attention(q[:, :, past:], k, v, causal=causal, key_mask=key_mask, implementation=backend)
    torch.testing.assert_close(found, whole[:, :, past:], rtol=0, atol=1e-10)
