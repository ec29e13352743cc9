"""Encoders from checkpoints in a directory: the same tokens, nothing missing in silence, no pickles, no remote code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    InstructBlipForConditionalGeneration,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from avfusion import CheckpointError, InvalidValueError
from avfusion.encoders import (
    HFAudioEncoder,
    HFVisionEncoder,
    InstructBlipVisualEncoder,
    TimmVisualEncoder,
    WhisperAudioEncoder,
)
from tests.encoders import tiny


def forget(folder: Path, part: str) -> None:
    """Takes the weights whose name holds ``part`` out of a saved model."""
    file = folder / "model.safetensors"
    kept = {key: value for key, value in load_file(file).items() if part not in key}
    save_file(kept, file, metadata={"format": "pt"})


@pytest.mark.parametrize("head", [False, True])
def test_whisper(tmp_path: Path, head: bool) -> None:
    model = WhisperForConditionalGeneration(tiny.whisper_config()).eval()
    extractor = WhisperFeatureExtractor(feature_size=8)
    (model if head else model.model).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    wave = tiny.clips(9000, 100)
    wanted = WhisperAudioEncoder(model=model, feature_extractor=extractor)(wave)
    loaded = WhisperAudioEncoder.from_pretrained(str(tmp_path), attn_implementation="eager")
    assert loaded.model.config._attn_implementation == "eager"
    tiny.assert_same_stream(loaded(wave), wanted)
    assert WhisperAudioEncoder.from_pretrained(str(tmp_path), torch_dtype=torch.bfloat16).dtype == torch.bfloat16

    forget(tmp_path, "encoder.layers.1.fc1")
    with pytest.raises(
        CheckpointError, match=r"lacks 2: encoder\.layers\.1\.fc1\.bias, encoder\.layers\.1\.fc1\.weight"
    ):
        WhisperAudioEncoder.from_pretrained(str(tmp_path))


@pytest.mark.parametrize("name", [*tiny.SPEECH, "ast"])
def test_hf_audio(tmp_path: Path, name: str) -> None:
    encoder = tiny.AUDIO[name]()
    encoder.model.save_pretrained(tmp_path)
    encoder.feature_extractor.save_pretrained(tmp_path)
    wave = tiny.clips(9000, 3000)
    tiny.assert_same_stream(HFAudioEncoder.from_pretrained(str(tmp_path))(wave), encoder(wave))


@pytest.mark.parametrize("name", ["clip", "clip_both", "siglip", "dinov2", "convnext"])
def test_hf_vision(tmp_path: Path, name: str) -> None:
    encoder = tiny.picture(name)
    whole = tiny.CLIPModel(
        tiny.CLIPConfig(vision_config=tiny.VIT, text_config={**tiny.TOWER, "vocab_size": 8, "eos_token_id": 1})
    )
    if name == "clip_both":
        whole.vision_model.load_state_dict(encoder.model.state_dict())
    (whole if name == "clip_both" else encoder.model).save_pretrained(tmp_path)
    encoder.image_processor.save_pretrained(tmp_path)
    video = tiny.film(2)
    loaded = HFVisionEncoder.from_pretrained(str(tmp_path))
    torch.testing.assert_close(loaded(video).tokens, encoder(video).tokens, atol=1e-5, rtol=0)


def test_instructblip(tmp_path: Path) -> None:
    model = InstructBlipForConditionalGeneration(tiny.blip_config()).eval()
    torch.nn.init.normal_(model.query_tokens)
    processor = tiny.BlipImageProcessor(size={"height": 28, "width": 28})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    video = tiny.film(2)
    wanted = InstructBlipVisualEncoder(model=model, image_processor=processor)(video)
    loaded = InstructBlipVisualEncoder.from_pretrained(str(tmp_path))
    torch.testing.assert_close(loaded(video).tokens, wanted.tokens, atol=1e-5, rtol=0)
    forget(tmp_path, "query_tokens")
    with pytest.raises(CheckpointError, match=r"lacks 1: query_tokens"):
        InstructBlipVisualEncoder.from_pretrained(str(tmp_path))


def test_timm(tmp_path: Path) -> None:
    encoder = tiny.timm_picture()
    name, options = tiny.TIMM["vit"]
    normalisation = {key: encoder.model.pretrained_cfg[key] for key in ("input_size", "mean", "std", "interpolation")}
    config = {"architecture": name, "num_classes": 0, "pretrained_cfg": normalisation, "model_args": options}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(encoder.model.state_dict(), tmp_path / "model.safetensors")
    video = tiny.film(2)
    loaded = TimmVisualEncoder.from_pretrained(f"local-dir:{tmp_path}", dtype=torch.float64)
    torch.testing.assert_close(loaded(video).tokens.float(), encoder(video).tokens, atol=1e-5, rtol=0)
    forget(tmp_path, "blocks.1")
    with pytest.raises(CheckpointError, match=r"must hold the weights of local-dir:.*Missing key.*blocks\.1"):
        TimmVisualEncoder.from_pretrained(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("classes", [0, 7, 1000])
@pytest.mark.parametrize("family", tiny.TIMM)
def test_timm_from_a_file_with_any_head(tmp_path: Path, family: str, classes: int) -> None:
    name, options = tiny.TIMM[family]
    model = timm.create_model(name, num_classes=classes, **options).eval()
    file = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), file)
    size = {"image_size": (64, 64)} if family == "nchw" else {}
    loaded = TimmVisualEncoder.from_pretrained(name, checkpoint_path=file, pool=1, **size, **options)
    assert not [key for key in loaded.state_dict() if key.startswith(("model.head.fc", "model.head.w"))]
    video = tiny.film(2, size=loaded.image_size)
    wanted = TimmVisualEncoder(model=model, pool=1, **size)(video)
    assert torch.equal(loaded(video).tokens, wanted.tokens)

    kept = {key: value for key, value in load_file(file).items() if "norm" not in key}
    save_file(kept, file)
    with pytest.raises(CheckpointError, match=rf"weights\.safetensors: must hold the weights of {name}.*Missing key"):
        TimmVisualEncoder.from_pretrained(name, checkpoint_path=file, **options)


def test_timm_refuses_other_files(tmp_path: Path) -> None:
    name, options = tiny.TIMM["vit"]
    torch.save(tiny.timm_model("vit").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InvalidValueError, match=r"checkpoint_path: must be a \.safetensors file, found .*weights\.pth"):
        TimmVisualEncoder.from_pretrained(name, checkpoint_path=tmp_path / "weights.pth", **options)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for file in ("broken", "absent"):
        with pytest.raises(CheckpointError, match=rf"checkpoint_path: .*{file}\.safetensors cannot be read"):
            TimmVisualEncoder.from_pretrained(name, checkpoint_path=tmp_path / f"{file}.safetensors", **options)


def test_timm_pictures_of_another_size(tmp_path: Path) -> None:
    name, options = tiny.TIMM["vit"]
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model(name, **options).state_dict(), file)
    loaded = TimmVisualEncoder.from_pretrained(name, checkpoint_path=file, image_size=(48, 64), **options)
    assert (loaded.image_size, loaded.tokens_per_frame) == ((48, 64), 12)
    assert loaded(tiny.film(2)).tokens.shape == (1, 2, 12, 16)


def test_parts_that_are_given_are_not_loaded(tmp_path: Path) -> None:
    encoder = tiny.speech()
    encoder.model.save_pretrained(tmp_path)  # without its feature extractor
    loaded = HFAudioEncoder.from_pretrained(str(tmp_path), feature_extractor=encoder.feature_extractor, frozen=False)
    wave = tiny.clips(9000)
    tiny.assert_same_stream(loaded.eval()(wave), encoder(wave))
    assert not loaded.frozen


def test_any_module_s_weights_are_loaded_strictly(tmp_path: Path) -> None:
    encoder = tiny.speech()
    encoder.model.save_pretrained(tmp_path)
    encoder.feature_extractor.save_pretrained(tmp_path)
    forget(tmp_path, "encoder.layers.0")
    with pytest.raises(
        CheckpointError, match=r"must hold the weights of Wav2Vec2Model; it lacks \d+: encoder\.layers\.0"
    ):
        HFAudioEncoder.from_pretrained(str(tmp_path))
    assert AutoModel.from_pretrained(str(tmp_path)) is not None  # transformers itself makes the missing ones up


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    encoder = tiny.speech()
    encoder.model.save_pretrained(tmp_path)
    encoder.feature_extractor.save_pretrained(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        HFAudioEncoder.from_pretrained(str(tmp_path))


@pytest.mark.parametrize("cls", [WhisperAudioEncoder, HFAudioEncoder, HFVisionEncoder, InstructBlipVisualEncoder])
@pytest.mark.parametrize("option", [{"trust_remote_code": True}, {"use_safetensors": False}])
def test_refuses_pickles_and_remote_code(cls: Any, option: dict[str, bool]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(option))):
        cls.from_pretrained("nowhere", **option)


def without(package: str, code: str) -> str:
    """What an interpreter says in which ``package`` is not installed."""
    code = f"import sys; sys.modules[{package!r}] = None\n{code}"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_missing_extra_is_named() -> None:
    assert "ImportError: avfusion.encoders needs transformers: pip install avfusion[hf]" in without(
        "transformers", "import avfusion.encoders"
    )
    code = (
        "import torch\nfrom avfusion.encoders import TimmVisualEncoder as T\nprint('imported')\nT.from_pretrained('x')"
    )
    said = without("timm", code)
    assert "imported" in said
    assert "ImportError: TimmVisualEncoder needs timm: pip install avfusion[hf]" in said
