"""Logits at labelled positions only: the same loss and gradients as of all logits, whatever is labelled."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

VOCAB, PLACEHOLDER = 24, 2


def llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    )


def tied_qwen() -> Any:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
        )
    )  # fmt: skip


def gpt2() -> Any:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=1, n_head=2, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0)
    )


def lora() -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))


MAKERS = {"llama": llama, "qwen3, tied": tied_qwen, "gpt2": gpt2, "lora": lora}


def loss_and_gradients(model: Any, only: bool, **inputs: Any) -> tuple[Any, dict[str, Tensor]]:
    model.labelled_logits_only = only
    model.zero_grad()
    out = model(**inputs)
    out.loss.backward()
    return out, {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from([*MAKERS]), batch=st.integers(1, 3), length=st.integers(1, 9))
def test_loss_and_gradients_are_those_of_all_logits(
    make_model: Any, data: st.DataObject, kind: str, batch: int, length: int
) -> None:
    made = make_model.__dict__.setdefault("made", {})
    if kind not in made:
        torch.manual_seed(0)
        made[kind] = make_model(language_model=MAKERS[kind]()).double().train()
    model = made[kind]
    rows = st.lists(st.integers(3, VOCAB - 1), min_size=length, max_size=length)
    ids = torch.tensor(data.draw(st.lists(rows, min_size=batch, max_size=batch)))
    chosen = st.lists(st.booleans(), min_size=length, max_size=length)
    kept = torch.tensor(data.draw(st.lists(chosen, min_size=batch, max_size=batch)))
    padded = data.draw(st.lists(st.integers(0, length - 1), min_size=batch, max_size=batch))
    right = data.draw(st.booleans())
    mask = torch.ones_like(ids)
    for row, count in enumerate(padded):
        mask[row, length - count :] = 0
    mask = mask if right else mask.flip(1)
    labels = torch.where(kept & mask.bool(), ids, -100)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if data.draw(st.booleans()):
        inputs["num_items_in_batch"] = torch.tensor(7)
    theirs, expected = loss_and_gradients(model, False, **inputs)
    ours, found = loss_and_gradients(model, True, **inputs)
    # transformers computes the loss in float32, whatever the logits are.
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-6, atol=1e-6)
    for name, gradient in expected.items():  # a parameter that nothing needs may have none
        torch.testing.assert_close(found.get(name, torch.zeros_like(gradient)), gradient, rtol=1e-5, atol=1e-6)
    learned = (labels[:, 1:] != -100).any(0)
    assert ours.logits.shape[1] == max(1, int(learned.sum()))
    if learned.any():
        positions = learned.nonzero()[:, 0]
        torch.testing.assert_close(ours.logits, theirs.logits[:, positions], rtol=1e-9, atol=1e-9)


def test_evaluation_and_generation_have_all_logits(make_model: Any) -> None:
    model = make_model(language_model=llama())
    model.labelled_logits_only = True
    ids = torch.tensor([[3, 4, 5, 6]])
    labels = torch.tensor([[-100, -100, -100, 6]])
    assert model.train()(ids, labels=labels).logits.shape[1] == 1
    assert model.train()(ids).logits.shape[1] == 4
    assert model.eval()(ids, labels=labels).logits.shape[1] == 4


def test_checkpointing_and_half_precision(make_model: Any) -> None:
    model = make_model(language_model=llama().to(torch.bfloat16)).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(3, VOCAB, (2, 8), generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(torch.arange(8) < 5, -100)
    theirs, _ = loss_and_gradients(model, False, input_ids=ids, labels=labels)
    ours, found = loss_and_gradients(model, True, input_ids=ids, labels=labels)
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-2, atol=1e-2)
    assert found


class NoChoice(torch.nn.Module):
    """A language model that always gives all logits."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = llama()
        self.config = self.inner.config
        self.calls: list[dict[str, Any]] = []

    def get_input_embeddings(self) -> Any:
        return self.inner.get_input_embeddings()

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None) -> Any:
        return self.inner(inputs_embeds=inputs_embeds, attention_mask=attention_mask, labels=labels)


@pytest.mark.parametrize("kind", ["without the argument", "a loss of its own"])
def test_a_language_model_that_cannot_choose_gives_all(make_model: Any, kind: str) -> None:
    language_model: Any = NoChoice() if kind == "without the argument" else llama()
    if kind != "without the argument":
        language_model.loss_function = lambda logits, labels, vocab_size, **_: logits.float().square().mean()
    model = make_model(language_model=language_model).train()
    model.labelled_logits_only = True
    ids = torch.tensor([[3, 4, 5, 6]])
    out = model(ids, labels=torch.tensor([[-100, -100, -100, 6]]))
    assert out.logits.shape[1] == 4
    out.loss.backward()
