"""The causal Q-Former against a plain float64 reference, and what has to hold of it whatever its weights."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avfusion import CausalQFormer, DiversityLoss, InvalidTypeError, InvalidValueError
from avfusion.modules import MultiHeadAttention

SIZES: dict[str, Any] = {
    "input_dim": 8,
    "hidden_size": 4,
    "num_heads": 2,
    "num_queries": 3,
    "window_frames": 4,
    "tokens_per_frame": 2,
    "dropout": 0.0,
}
JUNK = [float("nan"), float("inf")]


def make(*, dtype: torch.dtype = torch.float64, **changes: Any) -> CausalQFormer:
    """A small Q-Former whose every parameter matters."""
    qformer = CausalQFormer(**(SIZES | changes)).to(dtype)
    with torch.no_grad():
        for parameter in qformer.parameters():
            parameter.normal_(std=0.5)
    return qformer


def clips(windows: int = 3, frames: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Windows with ragged masks; the last one wholly masked."""
    mask = torch.rand(windows, frames, 2) < 0.6
    mask[:, 0, 0] = True
    mask[-1] = False
    return torch.randn(windows, frames, 2, 8, dtype=dtype), mask


# --- The reference: the published computation, a window, a head and a query at a time, over real tokens only. ---


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(x: Tensor, weights: dict[str, Tensor], name: str, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def block(x: Tensor, y: Tensor, seen: list[list[int]], heads: int, weights: dict[str, Tensor], name: str) -> Tensor:
    """x[i] attends to y[j] for every j in seen[i]; residual, norm."""
    q = linear(x, weights, f"{name}.attention.q_proj")
    k = linear(y, weights, f"{name}.attention.k_proj")
    v = linear(y, weights, f"{name}.attention.v_proj")
    width = q.shape[1] // heads
    mixed = torch.zeros_like(q)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for i, keys in enumerate(seen):
            exponents = [math.exp(float(q[i, part] @ k[j, part]) / math.sqrt(width)) for j in keys]
            for e, j in zip(exponents, keys, strict=True):
                mixed[i, part] += e / sum(exponents) * v[j, part]
    return norm(x + linear(mixed, weights, f"{name}.attention.out_proj"), weights, f"{name}.norm", 1e-12)


def feed_forward(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    inner = linear(x, weights, f"{name}.up")
    inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    return norm(x + linear(inner, weights, f"{name}.down"), weights, f"{name}.norm", 1e-12)


def reference(
    qformer: CausalQFormer,
    tokens: Tensor,
    mask: Tensor,
    heads: int,
    direction: str | None,
    words: Tensor | None = None,
    word_mask: Tensor | None = None,
) -> Tensor:
    weights = {name: value.detach() for name, value in qformer.state_dict().items()}
    windows, _, slots, _ = tokens.shape
    queries = weights["query_tokens"]
    out = torch.zeros(windows, *queries.shape, dtype=torch.float64)
    for w in range(windows):
        places = [i for i, real in enumerate(mask[w].flatten().tolist()) if real]
        if not places:
            continue
        x = norm(tokens[w].flatten(0, 1)[places], weights, "input_norm", 1e-5) + weights["position_embedding"][places]
        frame = [place // slots for place in places]
        visible = [
            [j for j, other in enumerate(frame) if (other <= own if direction == "causal" else other >= own)]
            for own in frame
        ]
        h = norm(queries, weights, "query_norm", 1e-12)
        if words is not None:
            assert word_mask is not None
            said = [i for i, real in enumerate(word_mask[w].tolist()) if real]
            text = linear(words[w][said], weights, "instruction_embedding.proj")
            text = text + weights["instruction_embedding.position_embedding"][said]
            h = torch.cat([h, norm(text, weights, "query_norm", 1e-12)])
        for layer in range(len(qformer.layers)):
            name = f"layers.{layer}"
            c = x if direction is None else block(x, x, visible, heads, weights, f"{name}.causal_attention")
            h = block(h, h, [list(range(len(h)))] * len(h), heads, weights, f"{name}.self_attention")
            q, text = h[: len(queries)], h[len(queries) :]
            q = block(q, c, [list(range(len(c)))] * len(q), heads, weights, f"{name}.cross_attention")
            h = feed_forward(q, weights, f"{name}.query_feed_forward")
            if words is not None:
                h = torch.cat([h, feed_forward(text, weights, f"{name}.instruction_feed_forward")])
        out[w] = h[: len(queries)]
    return out


@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    head_dims=st.tuples(st.integers(1, 3), st.integers(2, 3)),
    queries=st.integers(1, 4),
    frames=st.integers(1, 3),
    more_frames=st.integers(0, 2),
    slots=st.integers(1, 3),
    direction=st.sampled_from(["causal", "reversed", None]),
    backend=st.sampled_from(["eager", "sdpa"]),
    length=st.one_of(st.none(), st.integers(0, 3)),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_equals_the_published_computation(
    layers, heads, head_dims, queries, frames, more_frames, slots, direction, backend, length, seed
) -> None:
    torch.manual_seed(seed)
    width = 2 * heads * head_dims[0]
    qformer = make(
        input_dim=width,
        hidden_size=heads * head_dims[1],
        num_layers=layers,
        num_heads=heads,
        num_queries=queries,
        intermediate_size=5,
        window_frames=frames + more_frames,
        tokens_per_frame=slots,
        causal_direction=direction,
        instruction_dim=None if length is None else 3,
        max_instruction_tokens=3,
        attn_implementation=backend,
    )
    tokens = torch.randn(3, frames, slots, width, dtype=torch.float64)
    mask = torch.rand(3, frames, slots) < 0.7
    words = None if length is None else torch.randn(3, length, 3, dtype=torch.float64)
    word_mask = None if length is None else torch.rand(3, length) < 0.7
    out = qformer(tokens, mask, instruction=words, instruction_mask=word_mask)
    expected = reference(qformer, tokens, mask, heads, direction, words, word_mask)
    torch.testing.assert_close(out, expected, atol=1e-10, rtol=1e-10)


# --- Masks and causality. ---


@pytest.mark.parametrize("direction", ["causal", "reversed"])
def test_causal_attention_depends_on_the_frames_it_may_see_and_no_others(direction) -> None:
    qformer = make(causal_direction=direction)
    tokens = torch.randn(1, 4, 2, 8, dtype=torch.float64)

    def encode(tokens: Tensor) -> Tensor:
        encoded = []
        hook = qformer.layers[1].causal_attention.register_forward_hook(lambda *given: encoded.append(given[-1]))
        qformer(tokens)
        hook.remove()
        return encoded[0]

    jacobian = torch.autograd.functional.jacobian(encode, tokens)  # (1, 8, dim, 1, 4, 2, dim)
    depends = jacobian.abs().amax((0, 2, 3, 6)).flatten(1) > 0
    for i in range(8):
        for j in range(8):
            assert depends[i, j] == (j // 2 <= i // 2 if direction == "causal" else j // 2 >= i // 2)


@pytest.mark.parametrize("direction", ["causal", "reversed", None])
def test_states_depend_on_every_real_token_of_their_window_and_on_nothing_else(direction) -> None:
    qformer = make(causal_direction=direction)
    tokens, mask = clips()
    jacobian = torch.autograd.functional.jacobian(lambda t: qformer(t, mask), tokens)
    depends = jacobian.abs().amax((1, 2, 6)) > 0  # (window of states, window of tokens, frame, token)
    for i in range(3):
        for j in range(3):
            assert torch.equal(depends[i, j], mask[j] if i == j else torch.zeros_like(mask[j]))


@pytest.mark.parametrize("direction", ["causal", "reversed", None])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("junk", JUNK)
def test_what_masked_tokens_hold_changes_neither_states_nor_gradients(direction, backend, junk) -> None:
    qformer = make(causal_direction=direction, attn_implementation=backend, instruction_dim=5)
    tokens, mask = clips()
    words, word_mask = torch.randn(3, 4, 5, dtype=torch.float64), torch.rand(3, 4) < 0.5
    results = []
    for filling in (0.0, junk):
        given = torch.where(mask[..., None], tokens, filling).requires_grad_()
        said = torch.where(word_mask[..., None], words, filling).requires_grad_()
        states = qformer(given, mask, instruction=said, instruction_mask=word_mask)
        wanted = [given, said, *qformer.parameters()]
        results.append([states, *torch.autograd.grad(states.square().sum(), wanted)])
    for clean, dirty in zip(*results, strict=True):
        assert clean.isfinite().all()
        assert torch.equal(clean, dirty)


@given(st.integers(0, 100), st.sampled_from(["causal", "reversed", None]))
@settings(deadline=None, max_examples=15)
def test_a_window_alone_is_as_among_others_and_with_more_padding(seed, direction) -> None:
    torch.manual_seed(seed)
    qformer = make(causal_direction=direction)
    tokens, mask = clips(frames=3)
    together = qformer(tokens, mask)
    alone = torch.cat([qformer(tokens[i : i + 1], mask[i : i + 1]) for i in range(3)])
    longer = qformer(
        torch.cat([tokens, torch.full_like(tokens[:, :1], torch.nan)], 1), torch.cat([mask, mask[:, :1] & False], 1)
    )
    torch.testing.assert_close(alone, together, atol=1e-12, rtol=0)
    torch.testing.assert_close(longer, together, atol=1e-12, rtol=0)
    assert (together[-1] == 0).all()


def test_no_mask_means_all_real() -> None:
    qformer = make()
    tokens, mask = clips()
    torch.testing.assert_close(qformer(tokens), qformer(tokens, torch.ones_like(mask)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_a_window_of_padding_is_exactly_zero_with_finite_gradients(dtype, backend) -> None:
    qformer = make(dtype=dtype, attn_implementation=backend)
    tokens = torch.full((2, 4, 2, 8), torch.nan, dtype=dtype, requires_grad=True)
    states = qformer(tokens, torch.zeros(2, 4, 2, dtype=torch.bool))
    assert (states == 0).all()
    states.sum().backward()
    assert all((p.grad == 0).all() for p in [tokens, *qformer.parameters()])


def test_the_order_of_frames_and_of_slots_matters_through_positions() -> None:
    qformer = make(causal_direction=None)
    tokens = torch.randn(1, 4, 2, 8, dtype=torch.float64)
    assert (qformer(tokens) - qformer(tokens.flip(1))).abs().max() > 1e-3
    assert (qformer(tokens) - qformer(tokens.flip(2))).abs().max() > 1e-3


def test_other_queries_take_the_place_of_the_modules_own() -> None:
    qformer = make()
    tokens, mask = clips()
    torch.testing.assert_close(qformer(tokens, mask, queries=qformer.query_tokens), qformer(tokens, mask))
    assert qformer(tokens, mask, queries=torch.randn(5, 4, dtype=torch.float64)).shape == (3, 5, 4)


# --- Instructions. ---


def test_an_empty_instruction_is_none_and_its_parameters_still_get_a_gradient() -> None:
    qformer = make(instruction_dim=5)
    tokens, mask = clips()
    nothing = qformer(tokens, mask)
    assert torch.equal(nothing, qformer(tokens, mask, instruction=torch.empty(3, 0, 5, dtype=torch.float64)))
    masked = torch.full((3, 4, 5), torch.nan, dtype=torch.float64)
    unsaid = qformer(tokens, mask, instruction=masked, instruction_mask=torch.zeros(3, 4, dtype=torch.bool))
    torch.testing.assert_close(unsaid, nothing, atol=1e-12, rtol=0)
    nothing.sum().backward()
    assert [name for name, p in qformer.named_parameters() if p.grad is None] == []
    for name, parameter in qformer.named_parameters():
        if "instruction" in name:
            assert (parameter.grad == 0).all(), name


def test_every_instruction_parameter_learns_from_an_instruction() -> None:
    qformer = make(instruction_dim=5, max_instruction_tokens=4)
    tokens, mask = clips()
    qformer(tokens, mask, instruction=torch.randn(3, 4, 5, dtype=torch.float64)).square().sum().backward()
    last = f"layers.{len(qformer.layers) - 1}.instruction"  # nothing reads the words after the last layer
    for name, parameter in qformer.named_parameters():
        if "instruction" in name and not name.startswith(last):
            assert parameter.grad.abs().max() > 0, name


def test_what_is_said_and_in_which_order_matters() -> None:
    qformer = make(instruction_dim=5)
    tokens, mask = clips()
    words = torch.randn(3, 4, 5, dtype=torch.float64)
    out = qformer(tokens, mask, instruction=words)
    assert (out - qformer(tokens, mask))[:2].abs().amin() > 0
    assert (out - qformer(tokens, mask, instruction=words.flip(1)))[:2].abs().max() > 1e-4
    # Words that are said to one window do not reach another.
    other = torch.cat([words[:1], -words[1:]])
    torch.testing.assert_close(qformer(tokens, mask, instruction=other)[0], out[0], atol=1e-12, rtol=0)


# --- Where the queries look. ---


@pytest.mark.parametrize("direction", ["causal", None])
def test_attention_maps_are_what_forward_mixes(direction) -> None:
    qformer = make(causal_direction=direction, instruction_dim=5)
    tokens, mask = clips()
    said = {"instruction": torch.randn(3, 2, 5, dtype=torch.float64)}
    mixed: list[tuple[Tensor, Tensor]] = []

    def keep(module: MultiHeadAttention, inputs: tuple[Tensor, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        mixed.append((inputs[1], output))

    handles = [
        layer.cross_attention.attention.register_forward_hook(keep, with_kwargs=True) for layer in qformer.layers
    ]
    qformer(tokens, mask, **said)
    for handle in handles:
        handle.remove()
    maps = qformer.attention_maps(tokens, mask, **said)
    assert maps.shape == (2, 3, 2, 3, 4, 2)
    assert not maps.requires_grad
    for layer, looks, (encoded, output) in zip(qformer.layers, maps, mixed, strict=True):
        attend = layer.cross_attention.attention
        values = attend.v_proj(encoded).unflatten(-1, (2, 2)).transpose(1, 2)
        again = attend.out_proj((looks.flatten(-2) @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(again, output, atol=1e-12, rtol=0)
    assert (maps.masked_select(~mask[None, :, None, None]) == 0).all()
    torch.testing.assert_close(maps[:, :-1].sum((-1, -2)), torch.ones(2, 2, 2, 3, dtype=torch.float64))
    assert (maps[:, -1] == 0).all()


# --- Training: dropout, checkpointing, dtypes, devices. ---


def test_dropout_only_in_training() -> None:
    qformer = make(dropout=0.5)
    tokens, mask = clips()
    assert not torch.equal(qformer(tokens, mask), qformer(tokens, mask))
    qformer.eval()
    assert torch.equal(qformer(tokens, mask), qformer(tokens, mask))
    torch.testing.assert_close(qformer(tokens, mask), reference(qformer, tokens, mask, 2, "causal"))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("direction", ["causal", "reversed", None])
def test_gradient_checkpointing_computes_the_same(dropout, direction) -> None:
    qformer = make(dropout=dropout, causal_direction=direction, instruction_dim=5)
    tokens, mask = clips()
    words = torch.randn(3, 2, 5, dtype=torch.float64)
    runs = []
    calls = []
    qformer.layers[0].register_forward_pre_hook(lambda *_: calls.append(None))
    for qformer.gradient_checkpointing in (False, True):
        torch.manual_seed(3)
        given = tokens.clone().requires_grad_()
        states = qformer(given, mask, instruction=words)
        runs.append([states, *torch.autograd.grad(states.square().sum(), [given, *qformer.parameters()])])
    assert len(calls) == 3, "the checkpointed layer runs again in the backward pass"
    for off, on in zip(*runs, strict=True):
        assert torch.equal(off, on)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_half_precision_is_near_float64_and_trains(dtype, backend) -> None:
    qformer = make(attn_implementation=backend)
    tokens, mask = clips()
    expected = qformer(tokens, mask)
    qformer.to(dtype)
    states = qformer(tokens.to(dtype), mask)
    assert states.dtype == dtype
    torch.testing.assert_close(states.double(), expected, atol=0.25, rtol=0.1)
    (states.square().sum() + DiversityLoss()(states, mask.any((1, 2)))).backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in qformer.parameters())


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_autocast(backend) -> None:
    qformer = make(dtype=torch.float32, attn_implementation=backend, instruction_dim=5)
    tokens, mask = clips(dtype=torch.float32)
    words = torch.randn(3, 2, 5)
    expected = qformer(tokens, mask, instruction=words)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = qformer(tokens, mask, instruction=words)
    torch.testing.assert_close(states.float(), expected, atol=0.25, rtol=0.1)
    states.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in qformer.parameters())


def test_builds_and_runs_on_the_meta_device_and_comes_back() -> None:
    with torch.device("meta"):
        qformer = CausalQFormer(**SIZES, instruction_dim=5)
    assert all(p.is_meta for p in qformer.parameters())
    mask = torch.ones(2, 4, 2, dtype=torch.bool, device="meta")
    out = qformer(torch.empty(2, 4, 2, 8, device="meta"), mask)
    assert out.is_meta
    assert out.shape == (2, 3, 4)
    qformer.to_empty(device="cpu")
    qformer.load_state_dict(make(dtype=torch.float32, instruction_dim=5).state_dict())
    assert qformer(torch.randn(2, 4, 2, 8)).isfinite().all()


# --- Compilers. ---


def test_compiles_in_one_graph() -> None:
    qformer = make(num_layers=1).eval()
    compiled = torch.compile(qformer, fullgraph=True, backend="eager", dynamic=True)
    for windows, frames in ((3, 4), (2, 3)):
        tokens, mask = clips(windows, frames)
        torch.testing.assert_close(compiled(tokens, mask), qformer(tokens, mask), atol=1e-12, rtol=0)


def test_exports_with_windows_and_frames_of_any_number() -> None:
    qformer = make().eval()
    auto = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    program = torch.export.export(qformer, clips(), dynamic_shapes=(auto, auto))
    for windows, frames in ((3, 4), (2, 3), (5, 2)):
        tokens, mask = clips(windows, frames)
        torch.testing.assert_close(program.module()(tokens, mask), qformer(tokens, mask), atol=1e-12, rtol=0)


# --- Bad input. ---


@pytest.mark.parametrize("name", ["num_layers", "num_queries", "window_frames", "tokens_per_frame"])
def test_counts_must_be_positive(name) -> None:
    with pytest.raises(InvalidValueError, match=f"{name}: must be a whole number of at least 1, found 0"):
        CausalQFormer(**SIZES | {name: 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"causal_direction": "true"}, "causal_direction"),
        ({"padding": "zero"}, "padding"),
        ({"attn_implementation": "fast"}, "attn_implementation"),
        ({"num_heads": 3}, "num_heads: must divide"),
    ],
)
def test_bad_arguments_are_named(changes, message) -> None:
    with pytest.raises(InvalidValueError, match=message):
        CausalQFormer(**SIZES | changes)


def test_bad_inputs_are_named() -> None:
    qformer = make()
    tokens, mask = clips()
    for shape in ((3, 5, 2, 8), (3, 0, 2, 8), (3, 4, 3, 8), (3, 4, 2, 7), (3, 8, 8)):
        with pytest.raises(InvalidValueError, match="tokens: must be"):
            qformer(torch.zeros(shape))
        with pytest.raises(InvalidValueError, match="tokens: must be"):
            qformer.attention_maps(torch.zeros(shape))
    with pytest.raises(InvalidTypeError, match="mask: must be boolean"):
        qformer(tokens, mask.float())
    with pytest.raises(InvalidValueError, match="mask: must be"):
        qformer(tokens, mask[:2])
    with pytest.raises(InvalidValueError, match="built without instruction_dim"):
        qformer(tokens, mask, instruction=torch.zeros(3, 2, 5))
    with pytest.raises(InvalidValueError, match="attn_implementation"):
        qformer.set_attn_implementation("fast")
    for shape in ((2,), (2, 5), (1, 2, 4)):
        with pytest.raises(InvalidValueError, match="queries: must be"):
            qformer(tokens, mask, queries=torch.zeros(shape, dtype=torch.float64))
    asked = make(instruction_dim=5, max_instruction_tokens=4)
    with pytest.raises(InvalidValueError, match="instruction_mask: must come with an instruction"):
        asked(tokens, mask, instruction_mask=torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(InvalidValueError, match="instruction: must be of 3 windows"):
        asked(tokens, mask, instruction=torch.zeros(2, 2, 5, dtype=torch.float64))
    for shape in ((3, 5, 5), (3, 2, 6), (3, 5)):
        with pytest.raises(InvalidValueError, match="instruction: must be"):
            asked(tokens, mask, instruction=torch.zeros(shape, dtype=torch.float64))
    words = torch.zeros(3, 2, 5, dtype=torch.float64)
    with pytest.raises(InvalidTypeError, match="instruction_mask: must be boolean"):
        asked(tokens, mask, instruction=words, instruction_mask=torch.ones(3, 2))
    with pytest.raises(InvalidValueError, match="instruction_mask: must be"):
        asked(tokens, mask, instruction=words, instruction_mask=torch.ones(3, 3, dtype=torch.bool))


def test_the_backend_changes_everywhere() -> None:
    qformer = make()
    qformer.set_attn_implementation("eager")
    found = [m.attn_implementation for m in qformer.modules() if isinstance(m, MultiHeadAttention)]
    assert found == ["eager"] * 6
