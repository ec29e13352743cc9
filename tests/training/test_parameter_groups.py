"""Each part of a model has its learning rate, and only weights of layers decay."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from avfusion import AudioVisualConnector, InvalidValueError, TokenStream
from avfusion.models import AudioVisualLanguageModel, MediaBatch
from avfusion.training import parameter_groups


@pytest.fixture
def model() -> AudioVisualLanguageModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    llm: Any = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, target_modules=["q_proj"]))
    connector = AudioVisualConnector.from_dims(audio=6, llm=16, num_queries=2)
    return AudioVisualLanguageModel(language_model=llm, connector=connector, placeholder_token_id=23)


def test_every_trained_parameter_is_in_one_group(model: AudioVisualLanguageModel) -> None:
    groups = parameter_groups(model, connector_lr=1e-4, language_model_lr=1e-3, weight_decay=0.1)
    grouped = [id(value) for group in groups for value in group["params"]]
    assert sorted(grouped) == sorted(id(value) for value in model.parameters() if value.requires_grad)
    rate = {id(value): group["lr"] for group in groups for value in group["params"]}
    assert {rate[id(value)] for value in model.connector.parameters()} == {1e-4}
    lora = [value for name, value in model.named_parameters() if "lora_" in name]
    assert {rate[id(value)] for value in lora} == {1e-3}
    assert all(group["params"] for group in groups)


def test_norms_biases_and_queries_do_not_decay(model: AudioVisualLanguageModel) -> None:
    groups = parameter_groups(model, connector_lr=1e-4, language_model_lr=1e-3, weight_decay=0.1)
    decay = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
    names = {name: decay[id(value)] for name, value in model.named_parameters() if value.requires_grad}
    for name, value in names.items():
        kept = name.endswith("bias") or "norm" in name or "query_tokens" in name or "position_embedding" in name
        assert value == (0.0 if kept else 0.1), name
    assert {0.0, 0.1} == set(names.values())


def test_a_trained_table_does_not_decay_through_the_head_tied_to_it(model: AudioVisualLanguageModel) -> None:
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=24,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=True,
        )
    )
    whole = AudioVisualLanguageModel(language_model=llm, connector=model.connector, placeholder_token_id=23)
    groups = parameter_groups(whole, connector_lr=1e-4, language_model_lr=1e-3, weight_decay=0.1)
    decay = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
    assert decay[id(llm.get_input_embeddings().weight)] == 0.0


def test_a_wrapper_does_not_change_the_groups(model: AudioVisualLanguageModel) -> None:
    wrapped = torch.nn.Sequential()
    wrapped.add_module("module", model)
    of = [parameter_groups(one, connector_lr=1e-4, language_model_lr=1e-3) for one in (model, wrapped)]
    assert [(g["name"], g["lr"], len(g["params"])) for g in of[0]] == [
        (g["name"], g["lr"], len(g["params"])) for g in of[1]
    ]


def test_a_part_without_its_rate_is_refused(model: AudioVisualLanguageModel) -> None:
    with pytest.raises(InvalidValueError, match=r"language_model_lr: must be given, since language_model\..*lora"):
        parameter_groups(model, connector_lr=1e-4)
    with pytest.raises(InvalidValueError, match="model: must have parameters that are trained"):
        parameter_groups(model.requires_grad_(False), connector_lr=1e-4)


class Rows(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index


def test_trainer_schedules_the_groups(model: AudioVisualLanguageModel, tmp_path: Any) -> None:
    def collate(rows: list[int]) -> dict[str, Any]:
        features = {"audio": TokenStream.from_rate(torch.ones(len(rows), 8, 6), 8.0)}
        count = int(model.num_placeholders(features=features)[0])
        ids = torch.tensor([[23] * count + [5, 6]] * len(rows))
        labels = ids.masked_fill(ids == 23, -100)
        return {"input_ids": ids, "labels": labels, "media": MediaBatch(features=features)}

    optimiser = torch.optim.AdamW(parameter_groups(model, connector_lr=1e-4, language_model_lr=1e-3))
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=2,
        lr_scheduler_type="cosine",
        warmup_steps=2,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        remove_unused_columns=False,
    )
    seen: dict[str, list[float]] = {"connector": [], "language_model": []}

    def note(one: torch.optim.Optimizer, *_: Any) -> None:
        for name, rates in seen.items():
            (rate,) = {group["lr"] for group in one.param_groups if group["name"] == name}
            rates.append(rate)

    optimiser.register_step_pre_hook(note)
    Trainer(model, arguments, data_collator=collate, train_dataset=Rows(), optimizers=(optimiser, None)).train()
    assert seen["connector"] == pytest.approx([0.0, 5e-5, 1e-4, 5e-5])
    assert seen["language_model"] == pytest.approx([0.0, 5e-4, 1e-3, 5e-4])
