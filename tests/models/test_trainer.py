"""transformers' own Trainer with the assembled model, as with any model of transformers."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from avfusion import CheckpointError, Frames, InvalidValueError, TokenStream
from avfusion.models import AudioVisualLanguageModel

VOCAB, PLACES, STEPS = 24, 6, 4
TRAINED = ["frozen", "lora", "lora and head", "full"]
# peft warns of a head that is trained beside its tied embeddings, and so unties them.
pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
TABLE = list(itertools.product(TRAINED, ["tied", "untied"]))
PAIRS = list(zip(TRAINED, itertools.cycle(["untied", "tied"]), strict=False))  # each way to train, each tying


@pytest.fixture
def make(make_model: Any) -> Callable[..., AudioVisualLanguageModel]:
    """The same model each time, ready to train from features."""

    def build(trained: str = "lora", tying: str = "tied", **options: Any) -> AudioVisualLanguageModel:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=tying == "tied",
            attention_dropout=0.1,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
        llm: Any = LlamaForCausalLM(config)
        if trained == "frozen":
            llm.requires_grad_(False)
        if trained.startswith("lora"):
            saved = ["lm_head"] if trained == "lora and head" else None
            lora = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=saved, lora_dropout=0.1)
            llm = get_peft_model(llm, lora)
        return make_model(language_model=llm, audio_encoders=None, visual_encoder=None, **options).train()

    return build


class Clips(Dataset[dict[str, torch.Tensor]]):
    """Six clips of four pictures and their sound, with a question and an answer."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        noise = torch.Generator().manual_seed(index)
        return {
            "visual": torch.randn(6, 3, 5, generator=noise),
            "audio": torch.randn(24, 6, generator=noise),
            "text": torch.tensor([3 + index, 9, 4 + index % 3]),
        }


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    text = torch.stack([row["text"] for row in rows])
    ids = torch.cat([torch.full((len(rows), PLACES), 2), text], 1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": ids.masked_fill(torch.arange(ids.shape[1]) < PLACES + 1, -100),
        "visual": torch.stack([row["visual"] for row in rows]),
        "audio": torch.stack([row["audio"] for row in rows]),
    }


class MediaTrainer(Trainer):
    """Makes the library's values of the tensors that Trainer moved."""

    def compute_loss(self, model: Any, inputs: Any, **kwargs: Any) -> Any:
        visual, audio = inputs["visual"], inputs["audio"]
        features = {"visual": Frames.from_rate(visual, 2.0), "audio": TokenStream.from_rate(audio, 8.0)}
        rest = {name: value for name, value in inputs.items() if name not in features}
        return super().compute_loss(model, {**rest, "features": features}, **kwargs)


def trainer_for(model: Any, folder: Path, **options: Any) -> Trainer:
    own = ("compute_metrics", "preprocess_logits_for_metrics", "callbacks", "eval_dataset")
    given = {name: options.pop(name) for name in own if name in options}
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "max_steps": STEPS,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_steps": 2,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    arguments = TrainingArguments(**{**defaults, **options})
    data: dict[str, Any] = {"train_dataset": Clips(), "eval_dataset": Clips()}
    return MediaTrainer(model=model, args=arguments, data_collator=collate, **{**data, **given})


def losses(trainer: Trainer) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def accuracy(prediction: Any) -> dict[str, float]:
    assert isinstance(prediction.predictions, np.ndarray)
    assert prediction.predictions.shape[:2] == prediction.label_ids.shape
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


@pytest.mark.parametrize(("trained", "tying"), TABLE)
def test_a_resumed_run_is_the_whole_run(make: Any, tmp_path: Path, trained: str, tying: str) -> None:
    whole = trainer_for(make(trained, tying), tmp_path, save_total_limit=2)
    whole.train()
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    again = trainer_for(make(trained, tying), tmp_path)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert losses(again) == losses(whole)
    for name, value in values(again.model).items():
        assert torch.equal(value, whole.model.get_parameter(name)), name


@pytest.mark.parametrize(("trained", "tying"), TABLE)
def test_a_checkpoint_holds_what_was_trained(make: Any, tmp_path: Path, trained: str, tying: str) -> None:
    model = make(trained, tying)
    start = values(model)
    model.frozen_in_state_dict = frozen = tying == "tied"
    trainer_for(model, tmp_path).train()
    changed = {name for name, value in values(model).items() if not torch.equal(value, start[name])}
    assert changed == {name for name, value in model.named_parameters() if value.requires_grad}
    saved = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    assert changed <= set(saved)
    for name in changed:
        assert torch.equal(saved[name], model.get_parameter(name)), name
    assert frozen or set(saved) == changed
    fresh = make(trained, tying)
    fresh.frozen_in_state_dict = frozen
    assert not any(fresh.load_state_dict(saved))  # nothing is missing, nothing unknown
    for name, value in values(fresh).items():
        assert torch.equal(value, model.get_parameter(name)), name


@pytest.mark.parametrize(("trained", "tying"), PAIRS)
def test_the_best_model_is_loaded_at_the_end(make: Any, tmp_path: Path, trained: str, tying: str) -> None:
    best = {"metric_for_best_model": "accuracy", "greater_is_better": False}  # of the first, if all are alike
    model = make(trained, tying)
    trainer = trainer_for(
        model,
        tmp_path,
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        compute_metrics=accuracy,
        **best,
    )
    trainer.train()
    saved = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    for name, value in saved.items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize(("trained", "tying"), TABLE)
def test_saved_by_trainer_and_by_the_model(make: Any, tmp_path: Path, trained: str, tying: str) -> None:
    model = make(trained, tying)
    trainer = trainer_for(model, tmp_path, save_strategy="no")
    trainer.train()
    trainer.save_model()
    fresh = make(trained, tying)
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    inputs = collate([Clips()[0], Clips()[1]])
    inputs["features"] = {
        "visual": Frames.from_rate(inputs.pop("visual"), 2.0),
        "audio": TokenStream.from_rate(inputs.pop("audio"), 8.0),
    }
    expected = model.eval()(**inputs).logits
    assert torch.equal(fresh.eval()(**inputs).logits, expected)
    with pytest.raises(CheckpointError, match="checkpoint of Trainer"):
        AudioVisualLanguageModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "own")
    llm = make(trained, tying).language_model
    base = {} if trained == "full" else {"language_model": llm.unload() if "lora" in trained else llm}
    loaded = AudioVisualLanguageModel.from_pretrained(tmp_path / "own", **base)
    assert torch.equal(loaded(**inputs).logits, expected)


@pytest.mark.parametrize(("trained", "tying"), PAIRS)
def test_accelerate_saves_and_loads_its_state(make: Any, tmp_path: Path, trained: str, tying: str) -> None:
    states = []
    for folder in (None, tmp_path):
        accelerator = Accelerator(cpu=True)
        model = accelerator.prepare(make(trained, tying))
        if folder is None:
            with torch.no_grad():
                for value in model.parameters():
                    value.add_(1) if value.requires_grad else None
            accelerator.save_state(str(tmp_path))
        else:
            accelerator.load_state(str(folder))
        states.append(values(model))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


EVALUATED = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"}


@pytest.mark.parametrize("trained", ["lora"])
@pytest.mark.parametrize(
    "options",
    [
        {"gradient_checkpointing": True, "neftune_noise_alpha": 1.0, "bf16": True},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"gradient_accumulation_steps": 2, "include_num_input_tokens_seen": "non_padding", "save_only_model": True},
        {"auto_find_batch_size": True, "optim": "adafactor", "lr_scheduler_type": "cosine", "max_grad_norm": 0.5},
        {"bf16_full_eval": True, "prediction_loss_only": True, "eval_on_start": True, **EVALUATED},
        {
            "include_for_metrics": ["inputs", "loss"],
            "eval_accumulation_steps": 1,
            "compute_metrics": accuracy,
            **EVALUATED,
        },
        {"batch_eval_metrics": True, "compute_metrics": lambda found, compute_result: {}, **EVALUATED},
        {"label_names": ["labels"], "compute_metrics": accuracy, "save_strategy": "best", **EVALUATED},
        {"callbacks": [EarlyStoppingCallback(1)], "load_best_model_at_end": True, **EVALUATED},
    ],
    ids=",".join,
)
def test_options_of_trainer(make: Any, tmp_path: Path, trained: str, options: dict[str, Any]) -> None:
    trainer = trainer_for(make(trained), tmp_path, **{"max_steps": 2, **options})
    trainer.train()
    assert all(np.isfinite(loss) for loss in losses(trainer).values())
    assert (tmp_path / "checkpoint-2" / "model.safetensors").is_file()
    if "eval_strategy" in options:
        assert any("eval_loss" in entry for entry in trainer.state.log_history)


@pytest.mark.parametrize("more", [{}, {"every_n_layers": 2}, {"every_n_layers": 1, "offload": False}])
@pytest.mark.parametrize("name", ["gradient", "activation"])
@pytest.mark.parametrize("trained", TRAINED)
def test_checkpointing_takes_what_the_language_model_takes(
    make: Any, trained: str, name: str, more: dict[str, Any]
) -> None:
    model = make(trained)
    llm = model.language_model
    layers = (llm.get_base_model() if "lora" in trained else llm).model.layers
    if more and not hasattr(llm, "activation_checkpointing_enable"):
        more = {}  # this transformers has no such arguments
    getattr(model, f"{name}_checkpointing_enable")({"use_reentrant": False}, **more)
    step = more.get("every_n_layers", 1)
    assert [layer.gradient_checkpointing for layer in layers] == [place % step == 0 for place in range(2)]
    assert model.is_activation_checkpointing
    getattr(model, f"{name}_checkpointing_disable")()
    assert not model.is_activation_checkpointing


@pytest.mark.parametrize("trained", TRAINED)
def test_predictions_are_the_logits(make: Any, tmp_path: Path, trained: str) -> None:
    model = make(trained)
    trainer = trainer_for(model, tmp_path, compute_metrics=accuracy)
    found = trainer.predict(Clips())
    assert found.predictions.shape == (6, PLACES + 3, VOCAB)
    assert {"test_loss", "test_accuracy"} <= set(found.metrics)
    assert {"eval_loss", "eval_accuracy"} <= set(trainer.evaluate())
    assert {"eval_a_loss", "eval_b_loss"} <= set(trainer.evaluate({"a": Clips(), "b": Clips()}))
    trainer.preprocess_logits_for_metrics = lambda logits, labels: logits.argmax(-1)
    trainer.compute_metrics = None
    assert trainer.predict(Clips()).predictions.shape == (6, PLACES + 3)
    trainer.preprocess_logits_for_metrics = None
    everything = trainer.predict(Clips(), ignore_keys=["cache", "past_key_values"]).predictions
    assert isinstance(everything, tuple)
    assert {"embeddings", "mask", "spans", "query_states"} == set(everything[-1])


def test_trainer_takes_settings_of_the_language_model(make: Any, tmp_path: Path) -> None:
    model = make("full")
    trainer_for(model, tmp_path)
    assert model.language_model.config.use_cache is False  # as Trainer sets it for any model
    assert json.loads(model.config.to_json_string())["model_type"] == "llama"
    with pytest.raises(InvalidValueError, match="label_smoothing_factor: must be 0"):
        trainer_for(model, tmp_path, label_smoothing_factor=0.1)


@pytest.mark.parametrize(("trained", "tying"), TABLE)
@pytest.mark.parametrize("items", [None, 0, 3, torch.tensor(0)])
def test_nothing_to_learn_is_a_loss_of_zero(make: Any, trained: str, tying: str, items: Any) -> None:
    model = make(trained, tying, diversity_loss=None)
    inputs = collate([Clips()[0], Clips()[1]])
    features = {
        "visual": Frames.from_rate(inputs.pop("visual"), 2.0),
        "audio": TokenStream.from_rate(inputs.pop("audio"), 8.0),
    }
    counts = {} if items is None else {"num_items_in_batch": items}
    model(**inputs, features=features).loss.backward()
    usual = {name for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    labels = torch.full_like(inputs["labels"], -100)
    labels[:, 0] = 5  # nothing comes before it, so nothing can be learned
    for nothing in (labels, torch.full_like(labels, -100)):
        out = model(**{**inputs, "labels": nothing}, features=features, **counts)
        assert out.loss == out.language_model_loss == 0
        out.loss.backward()
        grads = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        assert set(grads) == usual
        assert not any(grad.any() for grad in grads.values())  # NaN is not false
