"""Text replay: the base model's own answers, whatever the adapters say, mixed into every batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from avfusion import AudioVisualConnector, InvalidTypeError, InvalidValueError, TokenStream
from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor, Clip, conversation
from avfusion.training import TextReplay, base_answers
from tests.models.templates import tokenizer_of

QUESTIONS = [*"abcdefgh", "what is it?"]


@pytest.fixture
def made() -> tuple[Any, AudioVisualProcessor, Any]:
    """A model with LoRA that says other things than its base, its processor, and the base alone."""
    tokenizer = tokenizer_of("qwen3")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=None, eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"), pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    base = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # what it says depends on the text
        base.lm_head.weight.normal_()
    alone = LlamaForCausalLM(config).eval()
    alone.load_state_dict(base.state_dict())
    lora = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False)
    connector = AudioVisualConnector.from_dims(
        audio=6, llm=16, num_queries=2, hidden_size=16, window_seconds=2.0, audio_rate=10.0
    )
    model = AudioVisualLanguageModel(
        language_model=get_peft_model(base, lora),
        connector=connector,
        placeholder_token_id=tokenizer.convert_tokens_to_ids("<av>"),
    )
    return model.eval(), AudioVisualProcessor.from_model(model, tokenizer), alone


def test_answers_are_the_base_models_own_and_only_those_that_end(made: tuple[Any, AudioVisualProcessor, Any]) -> None:
    model, processor, alone = made
    expected = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        ids = processor.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        out = alone.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
        said = out[0, ids.shape[1] :]
        if (said == alone.config.eos_token_id).any():
            text = processor.tokenizer.decode(said, skip_special_tokens=True)
            expected.append([*messages, {"role": "assistant", "content": text}])
    model.train()
    assert 0 < len(expected) < len(QUESTIONS)
    for batch_size in (1, 2, 16):
        assert base_answers(model, processor, QUESTIONS, max_new_tokens=40, batch_size=batch_size) == expected
    assert model.training
    assert base_answers(model, processor, [expected[0][:1]], max_new_tokens=40) == expected[:1]


def test_every_batch_gets_rows_and_trainer_learns_them(
    made: tuple[Any, AudioVisualProcessor, Any], tmp_path: Path
) -> None:
    model, processor, _ = made
    clip = Clip(features={"audio": TokenStream.from_rate(torch.randn(1, 20, 6), 10.0)})
    data = [[*conversation("a?", video=clip), {"role": "assistant", "content": "b"}] for _ in range(4)]
    texts = [[*conversation(text), {"role": "assistant", "content": "yes"}] for text in QUESTIONS]
    replay = TextReplay(processor.collate, texts, rows=2)
    for batch in DataLoader(data, batch_size=2, collate_fn=replay, num_workers=1):
        assert batch["media_index"].tolist() == [0, 0, -1, -1]
    torch.manual_seed(1)
    first = [replay(data[:1])["input_ids"] for _ in range(5)]
    torch.manual_seed(1)
    again = [replay(data[:1])["input_ids"] for _ in range(5)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))

    def text_loss() -> float:
        with torch.no_grad():
            return float(model.eval()(**processor.collate(texts)).loss)

    before = text_loss()
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=20, per_device_train_batch_size=2, learning_rate=1e-2, report_to="none",
        save_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=data, data_collator=replay).train()
    assert text_loss() < before


def test_what_is_wrong_is_said(made: tuple[Any, AudioVisualProcessor, Any]) -> None:
    model, processor, _ = made
    with pytest.raises(InvalidTypeError, match="questions: must be a list of questions, found one string"):
        base_answers(model, processor, "a?")
    model.train()
    with pytest.raises(InvalidValueError, match="conversation: text must not hold the character NUL"):
        base_answers(model, processor, ["a\x00"])
    assert model.training  # whatever happened
    with pytest.raises(InvalidValueError, match="max_new_tokens: must be long enough"):
        base_answers(model, processor, QUESTIONS, suppress_tokens=[model.generation_config.eos_token_id])
    end = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = None
    with pytest.raises(InvalidValueError, match="generation_config: must have an end token"):
        base_answers(model, processor, QUESTIONS)
    model.generation_config.eos_token_id = end
    for rows in (0, 2):
        with pytest.raises(InvalidValueError, match=f"rows: must be from 1 to 1, found {rows}"):
            TextReplay(processor.collate, [[]], rows=rows)
