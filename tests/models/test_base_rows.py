"""Rows without a clip may be answered by the base model."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import IA3Config, LoraConfig, get_peft_model

from avfusion import InvalidValueError
from avfusion.models import prepare_inputs

QUESTIONS = ["which", "red blue", "on on on", "blue"]


def adapted(base: Any, config: Any) -> Any:
    """A copy with an adapter that changes its answers."""
    model = get_peft_model(copy.deepcopy(base), config)
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "ia3" in name:
            torch.nn.init.normal_(parameter, std=2.0)
    return model.eval()


@pytest.fixture(scope="module")
def lora() -> LoraConfig:
    return LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from(QUESTIONS), st.booleans()), min_size=1, max_size=4), beams=st.integers(1, 2)
)
def test_rows_without_a_clip_are_the_base_models(
    rows: list[tuple[str, bool]],
    beams: int,
    lora: LoraConfig,
    make_model: Any,
    language_models: Any,
    tokenizer: Any,
    media: Any,
) -> None:
    torch.manual_seed(0)
    base = language_models["llama"]().eval()
    model = make_model(language_model=adapted(base, lora))
    clips = media([4] * len(rows), [240] * len(rows)).batch()
    counts = [
        int(count) if heard else 0 for count, (_, heard) in zip(model.num_placeholders(**clips), rows, strict=True)
    ]
    inputs = prepare_inputs(tokenizer, [f"<av> {text}" if heard else text for text, heard in rows], counts)
    index = torch.tensor([row if heard else -1 for row, (_, heard) in enumerate(rows)])
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "num_beams": beams}
    ids = model.generate(**inputs, **clips, media_index=index, text_only="base", **options)
    usual = model.generate(**inputs, **clips, media_index=index, **options)
    for row, (text, heard) in enumerate(rows):
        alone = prepare_inputs(tokenizer, [text], [0])
        expected = usual[row] if heard else base.generate(**alone, **options)[0, alone["input_ids"].shape[1] :]
        assert torch.equal(ids[row], expected)


def test_the_adapter_of_these_tests_matters(
    lora: LoraConfig, make_model: Any, language_models: Any, tokenizer: Any
) -> None:
    torch.manual_seed(0)
    model = make_model(language_model=adapted(language_models["llama"]().eval(), lora))
    inputs = prepare_inputs(tokenizer, QUESTIONS, [0] * len(QUESTIONS))
    answers = [model.generate(**inputs, text_only=who, max_new_tokens=4) for who in ("adapted", "base")]
    assert not torch.equal(*answers)


def test_adapters_that_cannot_be_mixed_are_refused(
    make_model: Any, language_models: Any, tokenizer: Any, media: Any
) -> None:
    config = IA3Config(target_modules=["v_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    model = make_model(language_model=adapted(language_models["llama"](), config))
    clips = media([4], [240]).batch()
    count = int(model.num_placeholders(**clips))
    inputs = prepare_inputs(tokenizer, ["<av> which", "which"], [count, 0])
    with pytest.raises(InvalidValueError, match=r'text_only: must be "adapted" where some rows .* found IA3'):
        model.generate(**inputs, **clips, media_index=torch.tensor([0, -1]), text_only="base")
    inputs = prepare_inputs(tokenizer, ["which", "which"], [0, 0])
    assert len(model.generate(**inputs, text_only="base", max_new_tokens=2)) == 2
    with pytest.raises(InvalidValueError, match=r"text_only: must be .* found 'none'"):
        model.generate(**inputs, text_only="none")
