"""Every script of the gallery runs: what shall learn gets gradients, what is frozen gets none, and answers come out."""

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from avfusion.models import AudioVisualLanguageModel
from avfusion.testing import check_token_stream_encoder, check_visual_encoder

FOLDER = Path(__file__).parents[2] / "examples" / "gallery"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")
ALONE = ["existing_code_base", "only_the_loss", "only_the_qformer"]
TOGETHER = [name for name in SCRIPTS if name not in ALONE]

AUDIO = ["WhisperConfig", "WavLMModel", "ASTModel", "ClapAudioModel", "Qwen2AudioEncoder", "Wav2Vec2BertModel"]
VISUAL = [
    "CLIPVisionModel",
    "SiglipVisionModel",
    "Siglip2VisionModel",
    "DINOv3ViTModel",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "InstructBlipModel",
    "VideoMAEModel",
]
LANGUAGE = [
    "LlamaForCausalLM",
    "Qwen3ForCausalLM",
    "MistralForCausalLM",
    "Gemma3ForCausalLM",
    "PhiForCausalLM",
    "GPT2LMHeadModel",
]


def learned(module: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: value.grad for name, value in module.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("name", TOGETHER)
def test_parts_train_and_answer_together(name: str) -> None:
    model, loss, ids = importlib.import_module(f"examples.gallery.{name}").main()
    assert isinstance(model, AudioVisualLanguageModel)
    assert bool(loss.isfinite())
    assert ids.dtype == torch.int64
    assert ids.shape[0] == 2
    assert 1 <= ids.shape[1] <= 5
    for part in (model.connector, model.language_model):
        grads = learned(part)
        assert [key for key, grad in grads.items() if grad is None or not bool(grad.isfinite().all())] == []
        assert any(bool(grad.any()) for grad in grads.values())
    frozen = [value for value in model.language_model.parameters() if not value.requires_grad]
    assert bool(frozen) is hasattr(model.language_model, "peft_config")
    assert all(value.grad is None for value in frozen)
    towers = [*model.audio_encoders.values(), model.visual_encoder]
    for value in (value for tower in towers for value in tower.parameters()):
        assert not value.requires_grad
        assert value.grad is None


@pytest.mark.parametrize("name", TOGETHER)
def test_encoders_fit(name: str) -> None:
    script = importlib.import_module(f"examples.gallery.{name}")
    model = script.build(importlib.import_module("examples.gallery.common").word_tokenizer())
    for encoder in model.audio_encoders.values():
        check_token_stream_encoder(encoder)
    check_visual_encoder(model.visual_encoder)


@pytest.mark.parametrize("name", ALONE)
def test_parts_train_alone(name: str) -> None:
    model, loss, out = importlib.import_module(f"examples.gallery.{name}").main()
    assert bool(loss.isfinite())
    assert bool(out.isfinite().all())
    assert any(bool(grad.any()) for grad in learned(model).values() if grad is not None)


def test_the_loss_alone_makes_queries_differ() -> None:
    without, similarity = importlib.import_module("examples.gallery.only_the_loss").main()[2].tolist()
    assert similarity < without - 0.1


def test_the_connector_hears_within_the_same_few_positions() -> None:
    script = importlib.import_module("examples.gallery.existing_code_base")
    images, mel = torch.rand(1, 8, 3, 32, 32), torch.randn(1, 80, 400)
    before, after = script.Before().eval(), script.After().eval()
    assert [len(model.encode_media(images, mel)[0]) for model in (before, after)] == [128, 8]
    with_sound, without = after.encode_media(images, mel)[0], after.encode_media(images, None)[0]
    assert with_sound.shape == without.shape
    assert not torch.allclose(with_sound, without, atol=1e-3)


def test_at_least_twelve_combinations_cover_every_part() -> None:
    combinations = set()
    for name in TOGETHER:
        text = (FOLDER / f"{name}.py").read_text()
        combinations.add(
            tuple(part for part in (*AUDIO, *VISUAL, *LANGUAGE) if f"{part}(" in text or f'"{part}"' in text)
        )
    assert len(combinations) >= 12
    assert {part for combination in combinations for part in combination} == {*AUDIO, *VISUAL, *LANGUAGE}
    assert all(len(combination) >= 3 for combination in combinations)


def test_scripts_are_short_say_where_weights_are_and_are_in_the_table() -> None:
    table = (FOLDER / "README.md").read_text()
    for name in SCRIPTS:
        text = (FOLDER / f"{name}.py").read_text()
        assert len(text.splitlines()) < 100, name
        assert f"[{name}]({name}.py)" in table
    for name in TOGETHER:
        assert (FOLDER / f"{name}.py").read_text().count("from_pretrained(") >= 3, name
