"""Embeddings and gradients of every backend in every dtype, beside those of float64 on the CPU."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from avfusion import Frames, SlidingWindowProjector
from tests.device.best import BEST, assert_near, move, needs_gpu
from tests.device.parts import DENSE, RAGGED, frames, projector

ERRORS = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 6e-3}
SCALE = 2.0**10  # of losses, as in training in float16, where gradients would else be rounded to nothing
BACKENDS = ["auto", "eager", "sdpa", "prefix_sdpa", "flex_attention"]
WORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "dense": (DENSE, {}),
    "ragged": (RAGGED, {}),
    "reversed": (RAGGED, {"causal_direction": "reversed"}),
    "released": (RAGGED, {"padding": "released"}),
    "without causal attention": (RAGGED, {"causal_direction": None}),
    "overlapping": (RAGGED, {"stride": 4}),
}


def results(whole: SlidingWindowProjector, given: Frames, *, trained_tokens: bool) -> tuple[list[Tensor], Tensor]:
    """Embeddings without gradients and with them, the gradients, and which embeddings are real."""
    given = given._replace(tokens=given.tokens.requires_grad_(trained_tokens))
    with torch.inference_mode():
        answer = whole(given._replace(tokens=given.tokens.detach())).embeddings
    out = whole(given)
    (SCALE * out.embeddings.square().mean()).backward()
    found = [answer, out.embeddings.detach(), *(p.grad for p in whole.parameters()), given.tokens.grad]
    return [x.double().cpu() for x in found if x is not None], out.mask.cpu()


@cache
def wanted(work: str, trained_tokens: bool) -> tuple[list[Tensor], Tensor]:
    lengths, changes = WORKS[work]
    whole = projector(**changes, attn_implementation="eager")
    return results(whole, frames(lengths), trained_tokens=trained_tokens)


def check(work: str, backend: str, dtype: torch.dtype, *, trained_tokens: bool = False) -> None:
    lengths, changes = WORKS[work]
    whole = projector(**changes, attn_implementation=backend).to(BEST, dtype)
    given = move(frames(lengths))
    given = given._replace(tokens=given.tokens.to(dtype))
    found, mask = results(whole, given, trained_tokens=trained_tokens)
    exact, real = wanted(work, trained_tokens)
    assert torch.equal(mask, real)
    assert not found[0][~mask].any()
    assert not found[1][~mask].any()
    assert_near(found[:2], exact[:2], ERRORS[dtype])
    assert_near(found[2:], exact[2:], ERRORS[dtype])


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("dtype", ERRORS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_is_near_float64(backend: str, dtype: torch.dtype, work: str) -> None:
    if BEST == "cpu" and (backend == "flex_attention" or dtype != torch.float32):
        pytest.skip("no gradients of FlexAttention on the CPU; half precision there has tests of its own")
    check(work, backend, dtype)


@pytest.mark.parametrize("work", ["ragged", "overlapping"])
def test_gradients_reach_the_tokens(work: str) -> None:
    check(work, "auto", torch.float32, trained_tokens=True)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_packed_keys_are_near_float64(dtype: torch.dtype) -> None:
    check("without causal attention", "varlen_attn", dtype)
