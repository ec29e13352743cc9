"""Released checkpoints to this assembly: every tensor accounted for, the same numbers, and every way to fail."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avfusion import Frames, TokenStream
from avfusion.interop import connector_from_release, connector_to_release
from avfusion.models import conversation
from examples.favor.__main__ import main
from examples.favor.connector import build_connector
from examples.favor.convert import infer_preset
from examples.favor.loading import load
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.tiny import tiny, tiny_config
from tests.examples.favor.media import clip

FAVOR, SALMONN = "favor-vicuna-7b", "video-salmonn-13b"
RANK = 3
GOLDEN = Path(__file__).parents[2] / "golden"
LORA = "llama_model.base_model.model.model.layers.{}.self_attn.{}_proj.lora_{}.default.weight"
OTHER_NAMES = {
    "ln_joint": ("ln_video", "ln_speech"),
    "joint_frame_position_embedding": ("video_frame_position_embedding",),
    "joint_query_tokens": ("video_query_tokens", "speech_query_tokens"),
    "joint_Qformer": ("video_Qformer", "speech_Qformer"),
    "llama_proj_joint": ("llama_proj", "llama_proj_speech"),
}
FROZEN = (
    *("visual_encoder.cls_token", "visual_encoder.blocks.0.attn.qkv.weight", "ln_vision.weight", "query_tokens"),
    *("Qformer.bert.encoder.layer.0.attention.self.query.weight", "speech_encoder.conv1.weight"),
    "llama_model.base_model.model.model.layers.0.self_attn.q_proj.weight",
)


def used(preset: str) -> dict[str, Tensor]:
    """A tensor for each of the release's names that is read."""
    config = tiny_config(preset)
    config.slots, config.event_config = 32, None
    noise = torch.Generator().manual_seed(1)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in connector_to_release(build_connector(config)).items()}  # type: ignore[arg-type]
    rows, width = shapes["joint_frame_position_embedding.weight"]
    shapes["joint_frame_position_embedding.weight"] = torch.Size((rows + 7, width))  # longer than a window
    for layer in range(2):
        for module in "qkvo":
            shapes[LORA.format(layer, module, "A")] = torch.Size((RANK, 32))
            shapes[LORA.format(layer, module, "B")] = torch.Size((32, RANK))
    return {name: 0.3 * torch.randn(shape, generator=noise) for name, shape in shapes.items()}


def duplicates(tensors: dict[str, Tensor]) -> dict[str, str]:
    """The other names of the same tensors."""
    pairs = {}
    for name in tensors:
        top, dot, rest = name.partition(".")
        pairs.update({other + dot + rest: name for other in OTHER_NAMES.get(top, ())})
    return pairs


def released(preset: str = FAVOR) -> dict[str, Tensor]:
    """A state dict with every released name, frozen parts and buffers."""
    tensors = used(preset)
    return {  # the other names first: that the joint ones are read does not hang on the order
        **{other: tensors[name].clone() for other, name in duplicates(tensors).items()},
        **tensors,
        **{name: torch.ones(2, 2) for name in FROZEN},
        "joint_Qformer.bert.embeddings.position_ids": torch.arange(4)[None],
    }


def arguments(path: Path, out: Path, *more: str, preset: str = FAVOR) -> list[str]:
    sizes = ["--window-frames", "4", "--fine-window-frames", "2"]
    return ["convert", str(path), "--out", str(out), "--base", f"tiny:{preset}", *sizes, *more]


def convert(folder: Path, tensors: dict[str, Tensor], *more: str, preset: str = FAVOR) -> tuple[Path, dict[str, Any]]:
    torch.save({"model": tensors, "epoch": 3}, folder / "release.pt")
    assert main(arguments(folder / "release.pt", folder / "out", *more, preset=preset)) == 0
    return folder / "out", json.loads((folder / "out" / "conversion.json").read_text())


def features(config: Any) -> dict[str, Tensor]:
    """What the towers give for a clip of 3 s, with sound of 2.6 s."""
    noise = torch.Generator().manual_seed(2)
    edges = torch.arange(7) * 500_000
    return {
        "visual_features": torch.randn(1, 6, 4, config.visual_dim, generator=noise),
        "video_mask": torch.ones(1, 6, dtype=torch.bool),
        "video_spans": torch.stack([edges[:-1], edges[1:]], -1)[None],
        "audio_features": torch.randn(1, 130, config.audio_config.d_model, generator=noise),
        "audio_mask": torch.ones(1, 130, dtype=torch.bool),
        "audio_times": (torch.arange(130) * 20_000 + 10_000)[None],
    }


@pytest.mark.parametrize("merge", [False, True], ids=["adapter", "merged"])
@pytest.mark.parametrize("preset", [FAVOR, SALMONN])
@torch.no_grad()
def test_the_model_computes_what_the_weights_did(tmp_path: Path, preset: str, merge: bool) -> None:
    tensors = released(preset)
    out, _ = convert(tmp_path, tensors, *["--merge"] * merge, preset=preset)
    model, processor = load(out)
    fine = 2 if preset == SALMONN else None
    reference = connector_from_release(
        used(preset), num_heads=2, window_frames=4, causal_direction="reversed", fine_window_frames=fine
    )
    given = features(model.config)
    expected = reference(
        visual=Frames.from_rate(given["visual_features"], 2.0),
        audio=TokenStream.from_rate(given["audio_features"], 50.0),
    )
    found = model.get_media_embeddings(**given)
    torch.testing.assert_close(found.embeddings, expected.embeddings, atol=1e-5, rtol=0)
    assert found.embeddings.abs().max() > 0.1

    inputs = processor.apply_chat_template(conversation("what?", audio=clip(tmp_path / "a.mp4", seconds=1.0)))
    logits = model(**inputs).logits
    if not merge:
        model = model.merge_and_unload()
    plain = load(f"tiny:{preset}")[0]
    for layer in range(2):
        for module in "qkvo":
            name = f"language_model.model.layers.{layer}.self_attn.{module}_proj.weight"
            a, b = (tensors[LORA.format(layer, module, part)] for part in "AB")
            change = model.get_parameter(name) - plain.get_parameter(name)
            torch.testing.assert_close(change, b @ a * (32 / RANK), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(**inputs).logits, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("preset", [FAVOR, SALMONN])
def test_every_tensor_is_in_the_report_once(tmp_path: Path, preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = released(preset)
    out, report = convert(tmp_path, {**tensors, "something.weight": torch.ones(1)}, preset=preset)
    assert report["used"].keys() == used(preset).keys()
    assert report["duplicates"] == duplicates(used(preset))
    assert report["unused"].keys() == {*FROZEN, "joint_Qformer.bert.embeddings.position_ids", "something.weight"}
    assert report["unused"]["speech_encoder.conv1.weight"] == "frozen: the base has Whisper"
    assert report["unused"]["something.weight"] == "unknown"
    assert report["missing"] == []
    stored = load_file(out / "adapter_model.safetensors")
    assert {f"base_model.model.{name}" for name in report["used"].values()} == stored.keys()
    for old, new in report["used"].items():
        kept = stored[f"base_model.model.{new}"]
        given = tensors[old][0] if old.endswith("query_tokens") else tensors[old]
        assert torch.equal(kept, given[: len(kept)]), old
        assert len(kept) == len(given) or "position" in old
    printed = capsys.readouterr().out
    assert f"connector {len(used(preset)) - 16}, LoRA 16" in printed
    assert "1 unknown: something.weight" in printed


def test_the_options_of_the_release_go_with_the_weights(tmp_path: Path) -> None:
    out, report = convert(tmp_path, released(SALMONN), preset=SALMONN)
    model, processor = load(out)
    for name, value in {
        "causal_direction": "reversed",
        "padding": "released",
        "slots": 32,
        "window_frames": 4,
        "fine_window_frames": 2,
        "fine_num_queries": 2,
        "num_queries": 4,
        "event_config": None,
    }.items():
        assert getattr(model.config, name) == value, name
        assert report["options"][name] == value
    assert model.event_encoder is None
    assert (processor.slots, processor.sound_grids) == (32, {})
    inputs = processor.apply_chat_template(conversation("what?", video=clip(tmp_path / "a.mp4", seconds=3.0)))
    assert model.generate(**inputs, max_new_tokens=2, min_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2
    assert (out / "tokenizer.json").is_file()


@torch.no_grad()
def test_golden_vectors_through_the_command(tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "released_mask.json").read_text())
    state_dict = load_file(GOLDEN / "released_mask.state_dict.safetensors")
    tensors = load_file(GOLDEN / "released_mask.tensors.safetensors")
    config, processor = tiny_config(FAVOR), tiny(FAVOR)[1]
    config.qformer_config.hidden_size = config.stream_dim = golden["visual_dim"]
    config.audio_config.d_model, config.text_config.hidden_size = golden["audio_raw_dim"], golden["llm_dim"]
    config.connector_heads = golden["num_heads"]
    FavorForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    for layer in range(2):
        for module in "qkvo":
            width, inner = (32, 40) if module == "o" else (40, 32)
            state_dict[LORA.format(layer, module, "A")] = torch.zeros(RANK, width)
            state_dict[LORA.format(layer, module, "B")] = torch.zeros(inner, RANK)
    save_file(state_dict, tmp_path / "release.safetensors")
    source, out = str(tmp_path / "release.safetensors"), str(tmp_path / "out")
    base = ["--base", str(tmp_path / "base"), "--window-frames", str(golden["window_frames"])]
    assert main(["convert", source, "--out", out, *base]) == 0
    model, _ = load(out)
    clips, frames = tensors["input.visual_tokens"].shape[:2]
    edges = torch.arange(frames + 1) * 500_000
    length = tensors["input.audio_tokens"].shape[1]
    found = model.get_media_embeddings(
        visual_features=tensors["input.visual_tokens"],
        video_mask=torch.ones(clips, frames, dtype=torch.bool),
        video_spans=torch.stack([edges[:-1], edges[1:]], -1).expand(clips, -1, -1),
        audio_features=tensors["input.audio_tokens"],
        audio_mask=torch.ones(clips, length, dtype=torch.bool),
        audio_times=(torch.arange(length) * 20_000 + 10_000).expand(clips, -1),
    )
    torch.testing.assert_close(found.embeddings, tensors["output.llm_embeds"], atol=1e-5, rtol=0)


def _legacy(tensors: dict[str, Tensor], path: Path) -> Path:
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    return path


def _wrapped(tensors: dict[str, Tensor], path: Path) -> Path:
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}, "optimizer": {}}, path)
    return path


def _old_peft(tensors: dict[str, Tensor], path: Path) -> Path:
    torch.save({name.replace(".default", ""): tensor for name, tensor in tensors.items()}, path)
    return path


def _one_name_each(tensors: dict[str, Tensor], path: Path) -> Path:
    # Files that hold a shared tensor once may keep any of its names.
    for name in [name for name in tensors if name.startswith(("llama_proj_joint", "joint_Qformer", "ln_joint"))]:
        del tensors[name]
    path = path.with_suffix(".safetensors")
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("write", [_legacy, _wrapped, _old_peft, _one_name_each])
def test_files_of_other_forms_give_the_same(tmp_path: Path, write: Callable[[dict[str, Tensor], Path], Path]) -> None:
    expected = load_file(convert(tmp_path, released())[0] / "adapter_model.safetensors")
    path = write(released(), tmp_path / "other.pt")
    assert main(arguments(path, tmp_path / "other")) == 0
    found = load_file(tmp_path / "other" / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class _Code:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class _Command(_Code):
    """Unpickled, it runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def _spoilt(name: str, change: Callable[[Tensor], Tensor] | None) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        tensors = released() if "video" in name else used(FAVOR)  # one name for each: no other can stand in
        tensors.pop(name) if change is None else tensors.update({name: change(tensors[name])})
        torch.save(tensors, path)

    return write


def _wider(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor[..., :1]], -1)


SELF = "joint_Qformer.bert.encoder.layer.1.attention.self.query.weight"
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no projection": (_spoilt("llama_proj_joint.bias", None), "missing 1: llama_proj_joint.bias"),
    "no queries": (_spoilt("joint_query_tokens", None), "missing 1: joint_query_tokens"),
    "no audio map": (_spoilt("speech_pre_qformer_proj.weight", None), "missing 1: speech_pre_qformer_proj.weight"),
    "no attention": (_spoilt(SELF, None), f"missing 1: {SELF}"),
    "no LoRA": (_spoilt(LORA.format(1, "v", "B"), None), f"missing 1: {LORA.format(1, 'v', 'B')}"),
    "wide attention": (_spoilt(SELF, _wider), f"of another shape 1: {SELF} is (32, 33), must be (32, 32)"),
    "wide LoRA": (_spoilt(LORA.format(0, "q", "A"), _wider), f"{LORA.format(0, 'q', 'A')} is (3, 33), must be (3, 32)"),
    "wide norm": (
        _spoilt("ln_joint.weight", lambda t: t.repeat(2)),
        "ln_joint must be 64 wide for this base, found 128",
    ),
    "unequal": (
        _spoilt("video_query_tokens", lambda t: t + 1),
        "the same under video_query_tokens and joint_query_tok",
    ),
    "unequal shapes": (_spoilt("video_Qformer" + SELF[13:], _wider), "they differ"),
    "code": (lambda path: torch.save({"model": _Code(path.with_name("ran"))}, path), "it asks to run "),
    "a command": (
        lambda path: torch.save({"model": _Command(path.with_name("ran"))}, path),
        "asks to run posix.system",
    ),
    "a directory": (lambda path: path.mkdir(), "no such file"),
    "nothing": (lambda path: None, "no such file"),
    "text": (lambda path: path.write_text("<html>"), "plain values only, found something else"),
    "empty": (lambda path: path.write_bytes(b""), "release.pt: "),
    "half": (lambda path: (_wrapped(released(), path), path.write_bytes(path.read_bytes()[:5000])), "release.pt: "),
    "list": (lambda path: torch.save([torch.ones(1)], path), "holds no named tensors"),
    "no tensors": (lambda path: torch.save({"model": {"epoch": 1}}, path), "holds no named tensors"),
    "another model": (lambda path: torch.save({"conv1.weight": torch.ones(1)}, path), "missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, message = BAD[case]
    write(tmp_path / "release.pt")
    before = sorted(tmp_path.iterdir())
    assert main(arguments(tmp_path / "release.pt", tmp_path / "out")) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert message in printed.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_broken_safetensors_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "release.safetensors").write_bytes(b"12345678" * 4)
    assert main(arguments(tmp_path / "release.safetensors", tmp_path / "out")) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_unknown_names_are_an_error_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"joint_Qformer.bert.pooler.weight": torch.ones(1), "something": torch.ones(1)}
    torch.save({**released(), **more}, tmp_path / "release.pt")
    assert main(arguments(tmp_path / "release.pt", tmp_path / "out", "--strict")) == 2
    assert "unknown 2: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(arguments(tmp_path / "release.pt", tmp_path / "out")) == 0
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert {name for name, why in report["unused"].items() if why == "unknown"} == more.keys()


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(released(), tmp_path / "release.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert main(arguments(tmp_path / "release.pt", tmp_path / "out")) == 2
    assert "--out: must be a new or empty directory" in capsys.readouterr().err
    (tmp_path / "out" / "mine").unlink()
    assert main(arguments(tmp_path / "release.pt", tmp_path / "out")) == 0


@pytest.mark.parametrize(
    ("width", "fine", "preset"),
    [(4096, False, "favor-vicuna-7b"), (5120, False, "favor-vicuna-13b"), (5120, True, "video-salmonn-13b")],
)
def test_the_preset_is_told_from_the_weights(width: int, fine: bool, preset: str) -> None:
    tensors = {"llama_proj_joint.weight": torch.empty(width, 1)} | (
        {"low_query_tokens": torch.empty(1)} if fine else {}
    )
    assert infer_preset(tensors) == preset


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--preset, --base: must be given, as no preset's language model is 32 wide"),
        (["--base", "nothing"], "model: must be a preset"),
        (["--base", "tiny:modern"], "checkpoint: ln_joint must be"),
    ],
)
def test_another_base(tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = released()
    if "tiny:modern" in more:
        tensors = {name: tensor for name, tensor in used(FAVOR).items() if not name.startswith("ln_joint")}
        tensors |= {f"ln_joint.{kind}": torch.ones(128) for kind in ("weight", "bias")}
    torch.save(tensors, tmp_path / "release.pt")
    assert main(["convert", str(tmp_path / "release.pt"), "--out", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
