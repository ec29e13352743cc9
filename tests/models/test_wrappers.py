"""Whatever wraps a language model, the assembled model computes, generates and saves the same."""

import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from avfusion import InvalidValueError, PlaceholderError
from avfusion.models import AudioVisualLanguageModel, prepare_inputs

FAMILIES = ["llama", "gpt2"]


class PassesOn(nn.Module):
    """Hides the parameters of what it wraps."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def wrapped_forward(llm: Any) -> Any:
    forward = llm.forward

    @functools.wraps(forward)
    def passed_on(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    llm.forward = passed_on
    return llm


def opaque_forward(llm: Any) -> Any:
    forward = llm.forward

    def passed_on(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    llm.forward = passed_on
    return llm


def adapted(llm: Any) -> Any:
    target = "c_attn" if hasattr(llm, "transformer") else "q_proj"
    options = {"fan_in_fan_out": True} if target == "c_attn" else {}
    return get_peft_model(llm, LoraConfig(r=2, target_modules=[target], task_type="CAUSAL_LM", **options)).eval()


def compiled(llm: Any) -> Any:
    return torch.compile(llm, backend="eager")


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "compiled": compiled,
    "compiled in place": lambda llm: (llm.compile(backend="eager"), llm)[1],
    "adapted": adapted,
    "adapted and compiled": lambda llm: compiled(adapted(llm)),
    "DDP": DistributedDataParallel,
    "DDP of compiled": lambda llm: DistributedDataParallel(compiled(llm)),
    "module of one's own": PassesOn,
    "two modules of one's own": lambda llm: PassesOn(PassesOn(llm)),
    "functools.wraps": wrapped_forward,
    "opaque forward": opaque_forward,
    "hooked by accelerate": lambda llm: add_hook_to_module(llm, ModelHook()),
}


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("wrapper", "llm"),
    [
        (name, llm) for name in WRAPPERS for llm in FAMILIES if llm == "gpt2" or "compiled" not in name
    ],  # compiling takes time
)
@torch.no_grad()
def test_a_wrapper_changes_nothing(
    make_model: Any, language_models: Any, tokenizer: Any, media: Any, tmp_path: Path, llm: str, wrapper: str
) -> None:
    base = language_models[llm]().eval()
    plain = make_model(language_model=copy.deepcopy(base), audio_encoders=None)
    parts = {"connector": plain.connector, "visual_encoder": plain.visual_encoder, "audio_encoders": None}
    model = make_model(language_model=WRAPPERS[wrapper](copy.deepcopy(base)), **parts)
    clips = {"video": media([6, 1, 4], [0, 0, 0]).batch()["video"]}
    counts = plain.num_placeholders(**clips)
    inputs = prepare_inputs(tokenizer, ["<av> which", "<av> which colour was on", "<av> on"], counts)
    assert not inputs["attention_mask"].all()
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(model(**inputs, **clips).logits[real], plain(**inputs, **clips).logits[real])
    options = {"max_new_tokens": 2, "min_new_tokens": 2, "repetition_penalty": 1.3}
    if wrapper != "opaque forward":  # of which transformers' generate itself asks what it takes
        assert torch.equal(model.generate(**inputs, **clips, **options), plain.generate(**inputs, **clips, **options))
    model.save_pretrained(tmp_path, save_language_model=True)
    again = AudioVisualLanguageModel.from_pretrained(tmp_path, visual_encoder=plain.visual_encoder)
    torch.testing.assert_close(
        again(**inputs, **clips).logits[real], plain(**inputs, **clips).logits[real], rtol=1e-4, atol=1e-5
    )
    if "compiled" in wrapper:
        return
    model.set_attn_implementation("eager")
    torch.testing.assert_close(
        model(**inputs, **clips).logits[real], plain(**inputs, **clips).logits[real], rtol=1e-4, atol=1e-5
    )
    model.gradient_checkpointing_enable()
    assert model.is_activation_checkpointing
    model.gradient_checkpointing_disable()


@pytest.mark.parametrize("trained", [False, True])
def test_the_language_model_alone_may_be_sharded(
    make_model: Any, language_models: Any, media: Any, trained: bool
) -> None:
    model, clips = make_model(), media([5, 3], [200, 0]).batch()
    model.language_model.requires_grad_(trained)
    counts = model.num_placeholders(**clips).tolist()
    ids = torch.tensor([[0] * (max(counts) - count) + [2] * count + [4, 5] for count in counts])
    mask = (ids > 0).long()
    expected = model(ids, mask, **clips).logits
    answer = model.generate(ids, mask, **clips, max_new_tokens=2)
    fully_shard(model.language_model)
    if trained:
        with pytest.raises(InvalidValueError, match="language_model: its table of input embeddings must be frozen"):
            model(ids, mask, **clips)
        return
    torch.testing.assert_close(model(ids, mask, **clips).logits, expected)
    assert torch.equal(model.generate(ids, mask, **clips, max_new_tokens=2), answer)


def test_tokens_may_be_trained_in_an_adapter(make_model: Any, language_models: Any, tokenizer: Any, media: Any) -> None:
    """Of an adapter's wrappers of the table, not all say how wide it is."""
    for options in ({"trainable_token_indices": [4]}, {"modules_to_save": ["embed_tokens"]}):
        lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **options)
        model = make_model(language_model=get_peft_model(language_models["llama"](), lora)).train()
        clips = media([5], [200]).batch()
        inputs = prepare_inputs(tokenizer, ["<av> which"], model.num_placeholders(**clips), answers=["red"])
        model(**inputs, **clips).loss.backward()
        learned = {name for name, value in model.language_model.named_parameters() if value.grad is not None}
        assert any("trainable_tokens" in name or "embed_tokens.modules_to_save" in name for name in learned)
        model.eval().generate(**prepare_inputs(tokenizer, ["which"], [0]), max_new_tokens=2)


@pytest.mark.parametrize("placeholder", [2, 99])
def test_labels_that_cannot_be_learned(make_model: Any, media: Any, placeholder: int) -> None:
    model, clips = make_model(placeholder_token_id=placeholder), media([3], [0]).batch()
    ids = torch.tensor([[4, placeholder, placeholder, 5]])
    with pytest.raises(PlaceholderError, match=f"labels: must be -100 .* found {placeholder}"):
        model(ids, labels=ids, video=clips["video"])
    for wrong in (-1, 24, 1000):
        with pytest.raises(InvalidValueError, match=f"labels: must be -100 or one of 24 tokens, found {wrong}"):
            model(ids, labels=torch.tensor([[-100, -100, -100, wrong]]), video=clips["video"])


def test_the_vocabulary_is_not_listed(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(tokenizer), "get_vocab", lambda _: pytest.fail("it takes long"))
    assert prepare_inputs(tokenizer, ["<av> on"], [2])["input_ids"].tolist() == [[2, 2, 6]]
    for unknown in ("<video>", "which colour", ""):
        with pytest.raises(InvalidValueError, match="must be one token of the tokenizer"):
            prepare_inputs(tokenizer, ["on"], [0], placeholder=unknown)
