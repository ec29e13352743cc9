"""The assembled model: every kind of input, alone and in a batch; what is trained; what is saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor

from avfusion import Video, Waveform
from avfusion.models import conversation
from examples.favor import FavorForConditionalGeneration
from examples.favor.loading import load
from examples.favor.presets import PRESETS, full_config, lora_config
from examples.favor.processing_favor import FavorProcessor
from examples.favor.streams import feature_names, media_inputs
from examples.favor.tiny import tiny, tiny_config


def sound(seconds: float, seed: int = 0) -> Waveform:
    noise = torch.Generator().manual_seed(seed)
    return Waveform.from_samples([0.1 * torch.randn(round(16_000 * seconds), generator=noise)], 16_000)


def pictures(frames: int, seed: int = 0) -> Video:
    noise = torch.Generator().manual_seed(seed)
    return Video.from_rate(torch.randint(0, 255, (1, frames, 3, 28, 28), generator=noise).byte(), 2.0)


def still(seed: int = 0) -> Video:
    noise = torch.Generator().manual_seed(seed)
    return Video.from_image(torch.randint(0, 255, (1, 3, 28, 28), generator=noise).byte())


def mixed() -> list[list[dict[str, Any]]]:
    """Every kind of input: video with sound, silent video, sound alone, picture, picture and sound, text, dialogue."""
    film, noise = pictures(9), sound(4.7)
    dialogue = [
        *conversation("What is it?", video=film, audio=noise),
        {"role": "assistant", "content": "A dog."},
        {"role": "user", "content": "Where?"},
    ]
    return [
        conversation("What is it?", video=film, audio=noise),
        conversation("Silent?", video=pictures(5, 1)),
        conversation("Who speaks?", audio=sound(2.3, 2)),
        conversation("A picture?", image=still(3)),
        conversation("And this?", image=still(4), audio=sound(1.2, 4)),
        conversation("No media at all?"),
        conversation("A second question?", video=film, audio=noise),
        dialogue,
    ]


@pytest.fixture(scope="module", params=PRESETS)
def preset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tiny_twin(preset: str) -> tuple[FavorForConditionalGeneration, FavorProcessor]:
    return tiny(preset)


def logits_of(model: Any, inputs: Any) -> list[Tensor]:
    with torch.no_grad():
        logits = model(**inputs).logits
    return [row[keep.bool()] for row, keep in zip(logits, inputs["attention_mask"], strict=True)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_alone_equals_the_row_in_a_mixed_batch(tiny_twin: Any, side: str) -> None:
    model, processor = tiny_twin
    asked = mixed()
    together = logits_of(model, processor.apply_chat_template(asked, padding_side=side))
    for messages, row in zip(asked, together, strict=True):
        (alone,) = logits_of(model, processor.apply_chat_template([messages]))
        torch.testing.assert_close(row, alone, atol=2e-5, rtol=1e-4)


def test_generation_in_a_mixed_batch_equals_generation_alone(tiny_twin: Any) -> None:
    model, processor = tiny_twin
    model.generation_config.eos_token_id = None
    inputs = processor.apply_chat_template(mixed())
    options = {"max_new_tokens": 5, "do_sample": False}
    together = model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    beams = model.generate(**inputs, max_new_tokens=5, num_beams=2)[:, inputs["input_ids"].shape[1] :]
    for index, messages in enumerate(mixed()):
        one = processor.apply_chat_template([messages])
        length = one["input_ids"].shape[1]
        assert torch.equal(model.generate(**one, **options)[0, length:], together[index])
        assert torch.equal(model.generate(**one, max_new_tokens=5, num_beams=2)[0, length:], beams[index])


def test_what_padding_holds_does_not_matter(tiny_twin: Any) -> None:
    model, processor = tiny_twin
    inputs = processor.apply_chat_template(mixed())
    before = logits_of(model, inputs)
    inputs["pixel_values_videos"][~inputs["video_mask"]] = torch.nan
    inputs["video_spans"][~inputs["video_mask"]] = -7
    for after, row in zip(logits_of(model, inputs), before, strict=True):
        assert torch.equal(after, row)


def test_kept_features_give_what_media_give(tiny_twin: Any) -> None:
    model, processor = tiny_twin
    inputs = processor.apply_chat_template(mixed())
    with torch.no_grad():
        features = model.encode(**{name: inputs[name] for name in media_inputs() if name in inputs})
    assert features.keys() <= set(feature_names())
    kept = {name: value for name, value in inputs.items() if name not in media_inputs()} | features
    for ours, theirs in zip(logits_of(model, kept), logits_of(model, inputs), strict=True):
        assert torch.equal(ours, theirs)


def trained(model: Any) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_same_parameters_get_gradients_whatever_the_batch_holds(preset: str) -> None:
    model, processor = tiny(preset)
    peft = get_peft_model(model, lora_config(preset, lora_dropout=0.0))
    answer = {"role": "assistant", "content": "yes"}
    touched = []
    for messages in mixed():
        peft.zero_grad()
        peft.train()
        peft(**processor.apply_chat_template([[*messages, answer]], return_labels=True)).loss.backward()
        gradients = trained(peft)
        assert all(value is not None and torch.isfinite(value).all() for value in gradients.values())
        touched.append(set(gradients))
    assert all(names == touched[0] for names in touched)
    assert any("lora_A" in name for name in touched[0])
    assert any("query_tokens" in name for name in touched[0])
    assert not any("tower" in name or "qformer." in name for name in touched[0])


def test_frozen_towers_keep_no_graph_and_stay_in_evaluation_mode() -> None:
    model, processor = tiny()
    peft = get_peft_model(model, lora_config("favor-vicuna-7b")).train()
    assert model.connector.training
    assert not model.visual_encoder.training
    assert not model.audio_encoder.training
    inputs = processor.apply_chat_template(mixed())
    features = model.encode(**{name: inputs[name] for name in media_inputs() if name in inputs})
    assert not any(value.requires_grad for value in features.values())
    assert peft.training


def test_saved_and_loaded_it_is_the_same(tiny_twin: Any, tmp_path: Path) -> None:
    model, processor = tiny_twin
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, theirs = load(tmp_path)
    inputs = theirs.apply_chat_template(mixed())
    for ours, row in zip(logits_of(again, inputs), logits_of(model, inputs), strict=True):
        assert torch.equal(ours, row)


@pytest.mark.filterwarnings("ignore")  # bitsandbytes warns of what it casts
@pytest.mark.parametrize(("kind", "layer"), [("4bit", "Linear4bit"), ("8bit", "Linear8bitLt")])
def test_only_the_language_model_is_quantised(kind: str, layer: str, tmp_path: Path) -> None:
    _, processor = load("tiny")
    config = tiny_config("favor-vicuna-7b")
    config.text_config.hidden_size, config.text_config.head_dim = 64, 32  # a block of four bits is 64 wide
    model = FavorForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    quantised, _ = load(tmp_path, device="cpu", quantize=kind)

    def layers(of: Any) -> set[str]:
        return {type(module).__name__ for name, module in of.named_modules() if name.endswith("_proj")}

    assert layers(quantised.language_model) == {layer}
    assert layers(quantised.connector) == layers(quantised.audio_encoder) == {"Linear"}
    inputs = processor.apply_chat_template(mixed())
    for row, exact in zip(logits_of(quantised, inputs), logits_of(model, inputs), strict=True):
        torch.testing.assert_close(row.float(), exact, atol=0.2, rtol=0.1)
    assert quantised.generate(**inputs, max_new_tokens=3).shape[1] == inputs["input_ids"].shape[1] + 3


def test_device_map_spreads_it(tmp_path: Path) -> None:
    model, processor = load("tiny")
    model.save_pretrained(tmp_path)
    spread = FavorForConditionalGeneration.from_pretrained(tmp_path, device_map="auto", dtype=torch.bfloat16)
    assert spread.dtype == torch.bfloat16
    inputs = processor.apply_chat_template(mixed()).to(spread.device, dtype=torch.bfloat16)
    whole = FavorForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for row, exact in zip(logits_of(spread, inputs), logits_of(whole, inputs), strict=True):
        assert torch.equal(row, exact)


def test_lora_and_connector_save_alone_and_merge(tmp_path: Path) -> None:
    model, processor = load("tiny")
    peft = get_peft_model(model, lora_config("favor-vicuna-7b", init_lora_weights=False))
    with torch.no_grad():
        peft.base_model.model.connector.projector.proj.weight.add_(0.1)
    peft.save_pretrained(tmp_path, save_embedding_layers=False)  # else it asks the hub for the base
    inputs = processor.apply_chat_template(mixed())
    expected = logits_of(peft.eval(), inputs)
    again, _ = load(tmp_path)
    assert isinstance(again, PeftModel)
    for merged in (False, True):
        model = again.merge_and_unload() if merged else again
        for row, wanted in zip(logits_of(model, inputs), expected, strict=True):
            torch.testing.assert_close(row, wanted, atol=1e-5, rtol=1e-4)
    assert not torch.equal(expected[0], logits_of(tiny()[0], inputs)[0])


def test_gradient_checkpointing_changes_no_gradient() -> None:
    model, processor = tiny()
    inputs = processor.apply_chat_template(
        [[*messages, {"role": "assistant", "content": "yes"}] for messages in mixed()], return_labels=True
    )
    found = []
    for on in (False, True):
        model.zero_grad()
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            assert model.connector.projector.window_encoder.gradient_checkpointing
        torch.manual_seed(0)  # InstructBLIP has dropout
        model.train()(**inputs).loss.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_the_diversity_loss_is_averaged_over_the_windows_it_is_told(tiny_twin: Any) -> None:
    model, processor = tiny_twin
    answer = {"role": "assistant", "content": "yes"}
    inputs = processor.apply_chat_template([[*mixed()[0], answer]], return_labels=True)
    alone = model(**inputs)
    doubled = model(**inputs, num_windows_in_batch=2 * 3)  # nine frames and 4.7 s of sound: ten frames, three windows
    torch.testing.assert_close(doubled.diversity_loss, alone.diversity_loss / 2)
    torch.testing.assert_close(doubled.loss - doubled.diversity_loss, alone.loss - alone.diversity_loss)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(dtype: torch.dtype) -> None:
    model, processor = tiny()
    inputs = processor.apply_chat_template(mixed())
    wanted = logits_of(model, inputs)
    for row, exact in zip(logits_of(model.to(dtype), inputs.to(dtype=dtype)), wanted, strict=True):
        assert row.dtype == dtype
        assert torch.isfinite(row).all()
        torch.testing.assert_close(row.float(), exact, atol=0.02, rtol=0.05)


def connector_size(dim: int, llm: int, frames: int, queries: int, maps: int, *, fine: int = 0) -> int:
    """Parameters of the published connector: two layers, 768 wide, 32 slots a frame."""
    hidden, inner = 768, 3072

    def linear(before: int, after: int) -> int:
        return before * after + after

    causal = 4 * linear(dim, dim) + 2 * dim
    own = 4 * linear(hidden, hidden) + 2 * hidden
    cross = 2 * linear(hidden, hidden) + 2 * linear(dim, hidden) + 2 * hidden
    forward = linear(hidden, inner) + linear(inner, hidden) + 2 * hidden
    places = 2 * dim + frames * 32 * dim + (queries + fine) * hidden + 2 * hidden
    return 2 * (causal + own + cross + forward) + places + linear(hidden * (2 if fine else 1), llm) + maps


AUDIO = 1280 * 768 + 768
TRAINED = {
    "favor-vicuna-7b": connector_size(1536, 4096, 10, 32, AUDIO) + 32 * 4 * 32 * (4096 + 4096),
    "favor-vicuna-13b": connector_size(1536, 5120, 10, 32, AUDIO) + 40 * 4 * 32 * (5120 + 5120),
    "video-salmonn-13b": connector_size(2304, 5120, 10, 30, AUDIO + 768 * 768 + 768, fine=3)
    + 40 * 4 * 32 * (5120 + 5120),
    "modern": connector_size(1536, 4096, 10, 32, AUDIO + 1152 * 768 + 768)
    + 36 * 32 * (2 * (4096 + 4096) + 2 * (4096 + 1024)),
}


@pytest.mark.parametrize("preset", TRAINED)
def test_full_size_on_the_meta_device(preset: str) -> None:
    with torch.device("meta"):
        peft = get_peft_model(FavorForConditionalGeneration(full_config(preset)), lora_config(preset))
    assert sum(value.numel() for value in peft.parameters() if value.requires_grad) == TRAINED[preset]
    model = peft.get_base_model()
    towers = {name: sum(value.numel() for value in tower.parameters()) for name, tower in model.towers.items()}
    assert 630e6 < towers["audio_encoder"] < 640e6  # Whisper large's encoder
    assert 0.4e9 < towers["visual_encoder"] < 1.2e9  # the Q-Former, if there is one, included
    # Half a minute: 60 frames, 6 windows.
    assert model.connector.num_output_tokens(30.0) == 6 * model.config.num_queries
