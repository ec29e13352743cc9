"""An assembly with its encoders, its language model and a live session, on the device."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.device.best import BEST, assert_near, move, needs_gpu
from tests.models.live import tiny

GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6}


def asked(model: Any, clip: dict[str, Any]) -> dict[str, Any]:
    return {**tiny.inputs("e", int(model.num_placeholders(**clip))), **clip}


def learned(given: dict[str, Any]) -> Tensor:
    """All of the text, as labels."""
    ids: Tensor = given["input_ids"]
    return ids.masked_fill(ids == tiny.PLACEHOLDER, -100)


@needs_gpu
@pytest.mark.parametrize("llm", ["llama", "gemma3", "gpt2", "lora"])
def test_losses_gradients_and_answers_are_those_of_the_cpu(llm: str) -> None:
    clip = tiny.Clip(9).until(99)
    found: list[tuple[Tensor, Tensor, list[Tensor]]] = []
    for place in ("cpu", BEST):
        model = tiny.model(llm).to(place)
        given = asked(model, clip) if place == "cpu" else move(asked(model, clip))
        out = model(**given, labels=learned(given))
        out.loss.backward()
        answer = model.generate(**given, **GREEDY)
        grads = [p.grad.cpu() for p in model.parameters() if p.grad is not None]
        found.append((out.logits.detach().cpu(), answer.cpu(), grads))
    (logits, answer, grads), (same, again, others) = found
    assert torch.equal(again, answer)
    assert_near([same, *others], [logits, *grads], 1e-4)  # language models turn positions in float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_under_autocast(dtype: torch.dtype) -> None:
    model = tiny.model().float().to(BEST).train()
    given = move(asked(model, tiny.Clip(9).until(99)))
    optimiser = torch.optim.AdamW(model.connector.parameters(), lr=1e-2, fused=True)
    losses = []
    for _ in range(12):
        with torch.autocast(BEST, dtype=dtype, enabled=dtype != torch.float32):
            loss = model(**given, labels=learned(given)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("llm", ["llama", "gemma3"])
def test_a_session_answers_what_the_clip_at_once_does(llm: str) -> None:
    model, clip = tiny.model(llm).to(BEST), tiny.Clip(9)
    session = tiny.session(model)
    for part in clip.parts():
        session.watch(**move(part))
    session.watch(ended=True)
    given = move(asked(model, clip.until(99)))
    wanted = tiny.tokenizer().decode(model.generate(**given, **GREEDY)[0], skip_special_tokens=True)
    assert session.answer("e", **GREEDY) == wanted
    assert "".join(session.ask("e", **GREEDY)) == wanted
    again = tiny.session(model)
    again.restore(session.snapshot())
    assert again.answer("e", **GREEDY) == wanted
