"""A model from pretrained parts by name: it is put together, saved, and loaded from its directory alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from avfusion import AudioVisualConnector, CheckpointError, InvalidTypeError, InvalidValueError, Video, Waveform
from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor, embedding_norm, match_scale
from avfusion.models.fingerprint import check_fingerprint, fingerprint

WORDS = ["<unk>", "<s>", "</s>", "red", "blue", "what", "?"]
SIZES = {"window_seconds": 2.0, "num_queries": 2, "hidden_size": 32}


def write_language_model(directory: Path, seed: int, **sizes: Any) -> None:
    torch.manual_seed(seed)
    defaults = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=16, **{**defaults, **sizes})).save_pretrained(directory)
    rule = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rule, **tokens)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(directory)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of tiny parts, as pretrained ones lie on a disk."""
    root = tmp_path_factory.mktemp("parts")
    write_language_model(root / "llm", seed=0)
    write_language_model(root / "other", seed=1)
    torch.manual_seed(2)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    SiglipVisionModel(SiglipVisionConfig(image_size=8, patch_size=4, **small)).save_pretrained(root / "eye")
    SiglipImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(root / "eye")
    sizes = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "max_source_positions": 100}
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "vocab_size": 8}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    WhisperModel(WhisperConfig(d_model=16, num_mel_bins=8, **sizes, **decoder, **ids)).save_pretrained(root / "ear")
    WhisperFeatureExtractor(feature_size=8, chunk_length=2).save_pretrained(root / "ear")
    return {name: root / name for name in ("llm", "other", "eye", "ear")}


def build(parts: dict[str, Path], **options: Any) -> AudioVisualLanguageModel:
    torch.manual_seed(3)
    named = {"language_model": parts["llm"], "visual_encoder": parts["eye"], "audio_encoder": parts["ear"]}
    return AudioVisualLanguageModel.from_pretrained_parts(**{**named, **SIZES, **options})


@pytest.fixture
def clip() -> dict[str, Any]:
    draw = torch.Generator().manual_seed(4)
    video = Video.from_rate(torch.rand(1, 6, 3, 8, 8, generator=draw), 2.0)
    samples = torch.randn(1, 48000, generator=draw)
    waveform = Waveform(samples, torch.ones(1, 48000, dtype=torch.bool), 16000, torch.zeros(1, dtype=torch.float64))
    return {"video": video, "waveform": waveform}


def answer(model: AudioVisualLanguageModel, clip: dict[str, Any]) -> torch.Tensor:
    [count] = model.num_placeholders(**clip).tolist()
    ids = torch.tensor([[5, *[model.placeholder_token_id] * int(count), 3]])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), **clip).logits


def test_a_saved_directory_is_all_that_loading_needs(
    parts: dict[str, Path], clip: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(parts["llm"].parent)
    model = build({name: Path(path.name) for name, path in parts.items()})  # relative to the working directory
    assert not any(parameter.requires_grad for parameter in model.language_model.parameters())
    model.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    again = AudioVisualLanguageModel.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(answer(again, clip), answer(model, clip), rtol=0, atol=0)
    saved = {path.name for path in (tmp_path / "model").iterdir()}
    assert "language_model" not in saved  # the parts stay where they are
    processors = [AudioVisualProcessor.from_model(one) for one in (model, again)]
    assert processors[0].placeholder == "<av>"
    ids = {one.tokenizer.convert_tokens_to_ids("<av>") for one in processors}
    assert ids == {model.placeholder_token_id} == {again.placeholder_token_id}


def test_a_model_that_was_loaded_can_be_saved_again(
    parts: dict[str, Path], clip: dict[str, Any], tmp_path: Path
) -> None:
    model = build(parts)
    model.save_pretrained(tmp_path / "one")
    AudioVisualLanguageModel.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    again = AudioVisualLanguageModel.from_pretrained(tmp_path / "two")
    torch.testing.assert_close(answer(again, clip), answer(model, clip), rtol=0, atol=0)


def test_features_need_no_encoders(parts: dict[str, Path], tmp_path: Path) -> None:
    build(parts).save_pretrained(tmp_path)
    again = AudioVisualLanguageModel.from_pretrained(tmp_path, with_encoders=False)
    assert again.visual_encoder is None
    assert not again.audio_encoders


@pytest.mark.parametrize("part", ["language_model", "visual_encoder", "audio_encoders"])
def test_another_part_of_the_same_shapes_is_an_error(part: str, parts: dict[str, Path], tmp_path: Path) -> None:
    build(parts).save_pretrained(tmp_path)
    other = build({**parts, "llm": parts["other"]})
    for encoder in other.encoders.values():
        for parameter in encoder.parameters():
            nn.init.normal_(parameter)
    given = getattr(other, part)
    given = dict(given.items()) if part == "audio_encoders" else given
    name = {"language_model": "language_model", "visual_encoder": "visual", "audio_encoders": "audio"}[part]
    with pytest.raises(CheckpointError, match=f"^{name}: must be the one of .* same shapes with other values"):
        AudioVisualLanguageModel.from_pretrained(tmp_path, **{part: given})
    AudioVisualLanguageModel.from_pretrained(tmp_path, **{part: given}, verify=False)


def test_another_base_of_other_shapes_is_an_error(parts: dict[str, Path], tmp_path: Path) -> None:
    build(parts).save_pretrained(tmp_path / "model")
    write_language_model(tmp_path / "deeper", seed=0, num_hidden_layers=2)
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "deeper")
    with pytest.raises(CheckpointError, match=r"language_model: must be the one of .* other tensors or shapes"):
        AudioVisualLanguageModel.from_pretrained(tmp_path / "model", language_model=other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_part_is_the_same_part(dtype: torch.dtype, parts: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(parts["llm"])
    wanted = fingerprint(model)
    assert wanted is not None
    check_fingerprint("llm", model.to(dtype), wanted, "here")


def test_dtype_is_of_the_pretrained_parts(parts: dict[str, Path], tmp_path: Path) -> None:
    model = build(parts, dtype=torch.bfloat16)
    assert {model.language_model.dtype, model.visual_encoder.model.dtype} == {torch.bfloat16}
    assert model.connector.projector.proj.weight.dtype == torch.float32
    model.save_pretrained(tmp_path)
    assert AudioVisualLanguageModel.from_pretrained(tmp_path).language_model.dtype == torch.bfloat16


def test_parts_that_are_missing_are_one_error(parts: dict[str, Path], tmp_path: Path) -> None:
    named = {"visual_encoder": tmp_path / "eye", "audio_encoder": tmp_path / "ear"}
    with pytest.raises(InvalidValueError, match=r"visual_encoder: must be a pretrained .*; audio_encoder: must be"):
        build(parts, **named)
    with pytest.raises(InvalidValueError, match="language_model: must be a pretrained model"):
        build(parts, language_model=tmp_path / "llm")
    with pytest.raises(InvalidValueError, match="at least one must be given, found neither"):
        build(parts, visual_encoder=None, audio_encoder=None)
    with pytest.raises(InvalidValueError, match=r"encoder_options: must be for \['audio', 'visual'\], found \['eye'\]"):
        build(parts, encoder_options={"eye": {}})
    with pytest.raises(InvalidValueError, match="placeholder_token_id: must be given"):
        build(parts, language_model=LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=16, num_attention_heads=2)))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("language_model", 3, r"parts.language_model: must be an object"),
        ("visual", {"source": ["TimmVisualEncoder"]}, r"parts.visual.source: must be \[loader"),
        ("visual", {"source": ["os.system", "x", None, {"dtype": "float32"}]}, "loader: must be one of"),
        ("visual", {"source": ["HFVisionEncoder", "x", None, {"dtype": "load"}]}, "dtype: must be one of torch's"),
    ],
)
def test_a_file_that_states_no_parts_is_refused(
    name: str, value: Any, message: str, parts: dict[str, Path], tmp_path: Path
) -> None:
    build(parts).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["parts"][name] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        AudioVisualLanguageModel.from_pretrained(tmp_path)


def test_a_file_cannot_ask_for_code(parts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(parts).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for part in config["parts"].values():
        part["source"][3]["trust_remote_code"] = True
    seen: list[dict[str, Any]] = []
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda name, **options: (seen.append(options), load(name, **options))[1],
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidValueError, match="trust_remote_code"):
        AudioVisualLanguageModel.from_pretrained(tmp_path)
    AudioVisualLanguageModel.from_pretrained(tmp_path, with_encoders=False)
    assert seen
    assert not any("trust_remote_code" in options for options in seen)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_embeddings_begin_with_the_norm_of_words(scale: float, parts: dict[str, Path], tmp_path: Path) -> None:
    llm = AutoModelForCausalLM.from_pretrained(parts["llm"])
    with torch.no_grad():
        llm.get_input_embeddings().weight.mul_(scale)
    words = llm.get_input_embeddings().weight.norm(dim=-1).median().item()
    assert embedding_norm(llm) == pytest.approx(words, rel=1e-5)
    connector = AudioVisualConnector.from_dims(visual=8, llm=64, hidden_size=64)
    match_scale(connector, words)
    found = connector(visual=torch.randn(2, 40, 16, 8)).embeddings.norm(dim=-1).mean().item()
    assert 0.6 * words < found < 1.6 * words


def test_scaling_refuses_what_it_cannot_scale() -> None:
    connector = AudioVisualConnector.from_dims(visual=8, llm=16, hidden_size=16)
    with pytest.raises(InvalidTypeError, match="must have an output projection"):
        match_scale(nn.Linear(2, 2), 1.0)
    for norm in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InvalidValueError, match="norm: must be positive and finite"):
            match_scale(connector, norm)
    nn.init.zeros_(connector.projector.proj.weight)
    nn.init.zeros_(connector.projector.proj.bias)
    with pytest.raises(InvalidValueError, match="must not be zero"):
        match_scale(connector, 1.0)
    with pytest.raises(InvalidValueError, match="found meta or sharded"):
        match_scale(connector.to("meta"), 1.0)
