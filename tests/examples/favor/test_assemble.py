"""Pretrained parts to a model by configuration alone: kinds of vision models, prompts, own presets, errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from avfusion import CheckpointError, InvalidValueError, Video
from avfusion.encoders import HFVisionEncoder, InstructBlipVisualEncoder, TimmVisualEncoder, WhisperAudioEncoder
from avfusion.models import conversation
from examples.favor import FavorForConditionalGeneration
from examples.favor.__main__ import main
from examples.favor.loading import load, load_configuration
from examples.favor.presets import PRESETS, full_config, lora_config, read_preset
from examples.favor.tiny import tiny
from tests.examples.favor import checkpoints
from tests.examples.favor.media import clip
from tests.examples.favor.training import write_data

SMALL = ("stream_dim=32", "connector_hidden_size=32", "connector_heads=2", "window_frames=4", "num_queries=4")
VISION = {"siglip": checkpoints.siglip, "timm": checkpoints.timm_model, "instructblip": checkpoints.instructblip}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    made = {name: make(folder / name) for name, make in VISION.items()}
    return {
        **made,
        "text": checkpoints.language_model(folder / "text"),
        "untold": checkpoints.language_model(folder / "untold", template=None, tied=False),
        "audio": checkpoints.whisper(folder / "audio"),
    }


def arguments(parts: dict[str, Path], out: Path, vision: str = "siglip", text: str = "text", *more: str) -> list[str]:
    named = ["--text", str(parts[text]), "--vision", str(parts[vision]), "--audio", str(parts["audio"])]
    options = [part for option in SMALL for part in ("--option", option)]
    return ["assemble", *named, "--out", str(out), *options, *more]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    return clip(tmp_path_factory.mktemp("media") / "film.mp4", seconds=3.0)


@pytest.mark.parametrize(("vision", "tokens"), [("siglip", 9), ("timm", 4), ("instructblip", 4)])
def test_the_parts_are_those_of_the_checkpoints(
    parts: dict[str, Path], vision: str, tokens: int, film: str, tmp_path: Path
) -> None:
    more = ("--image-size", "64") if vision == "timm" else ()
    assert main(arguments(parts, tmp_path / "out", vision, "text", *more)) == 0
    loaded = FavorForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loaded[1]["missing_keys"]
    assert not loaded[1]["unexpected_keys"]
    model, processor = load(tmp_path / "out")
    assert model.config.num_query_tokens == processor.num_query_tokens == tokens
    llm = AutoModelForCausalLM.from_pretrained(parts["text"])
    for name, value in llm.state_dict().items():
        assert torch.equal(model.language_model.state_dict()[name], value), name
    ears = WhisperAudioEncoder.from_pretrained(str(parts["audio"]))
    assert all(torch.equal(model.audio_encoder.state_dict()[name], value) for name, value in ears.state_dict().items())
    inputs = processor.apply_chat_template(conversation("What is it?", video=film))
    features = model.encode(**{name: value for name, value in inputs.items() if name in model.media_names})
    eyes: Any = {
        "siglip": lambda name: HFVisionEncoder.from_pretrained(name, pool=9),
        "timm": lambda name: TimmVisualEncoder.from_pretrained(f"local-dir:{name}", image_size=(64, 64), pool=4),
        "instructblip": InstructBlipVisualEncoder.from_pretrained,
    }[vision](str(parts[vision]))
    media = processor.load_clip(conversation("What is it?", video=film)).video
    if vision == "instructblip":
        asked = {name: inputs[name] for name in ("qformer_input_ids", "qformer_attention_mask")}
        expected = eyes(media, **asked).tokens
    else:
        expected = eyes(media).tokens
    torch.testing.assert_close(features["visual_features"], expected, atol=1e-4, rtol=1e-4)
    answer = model.generate(**inputs, max_new_tokens=3)
    assert answer.shape[0] == 1


def test_text_alone_gets_what_the_language_model_gives(parts: dict[str, Path], tmp_path: Path) -> None:
    """Its own template, special tokens and end; the media token, which its table lacks, changes nothing."""
    assert main(arguments(parts, tmp_path / "out")) == 0
    model, processor = load(tmp_path / "out")
    own, llm = AutoTokenizer.from_pretrained(parts["text"]), AutoModelForCausalLM.from_pretrained(parts["text"])
    assert model.config.media_token_id == len(own) == llm.config.vocab_size
    messages = [{"role": "user", "content": "Who are you?"}]
    inputs = processor.apply_chat_template(messages)
    expected = own.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    options = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(model.generate(**inputs, **options), llm.generate(**expected, **options))


def test_the_prompt_is_the_language_models_own(parts: dict[str, Path], film: str, tmp_path: Path) -> None:
    assert main(arguments(parts, tmp_path / "out")) == 0
    model, processor = load(tmp_path / "out")
    asked = conversation("What is said?", video=film)
    begin = "<|im_start|>system\nYou are SmolLM.<|im_end|>\n<|im_start|>user\n"
    rest = "What is said?<|im_end|>\n<|im_start|>assistant\n"
    assert processor.apply_chat_template(asked, tokenize=False) == f"{begin}<av>\n{rest}"
    kind = [{"role": "system", "content": [{"type": "text", "text": "Be kind."}]}, *asked]
    assert "You are SmolLM" not in processor.apply_chat_template(kind, tokenize=False)
    assert "system\nBe kind.<|im_end|>" in processor.apply_chat_template(kind, tokenize=False)
    taught = processor.apply_chat_template([[*asked, {"role": "assistant", "content": "Hello."}]], return_labels=True)
    labels = taught["labels"][0]
    assert processor.decode(labels[labels >= 0]) == "Hello.<|im_end|>"
    places = int((taught["input_ids"] == model.config.media_token_id).sum())
    assert places == 2 * 4  # 3 s: six frames in two windows
    assert torch.isfinite(model(**taught).loss)


def test_the_published_prompt_by_wish_or_for_want_of_another(parts: dict[str, Path], tmp_path: Path) -> None:
    asked = conversation("What?", video="a.mp4")
    for number, (text, more) in enumerate((("text", ("--prompt", "published")), ("untold", ()))):
        out = tmp_path / str(number)
        assert main(arguments(parts, out, "siglip", text, *more)) == 0
        said = load(out)[1].apply_chat_template(asked, tokenize=False)
        assert said == "USER: <Img><av></Img> What?\nASSISTANT:"


def test_no_template_of_its_own_is_told(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(parts, tmp_path / "out", "siglip", "untold", "--prompt", "own")) == 2
    assert "whose tokenizer has no chat template" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"--text": "siglip"},
            "text: must be a checkpoint of a language model, found .*, which is siglip_vision_model",
        ),
        ({"--vision": "text"}, "vision: must be a checkpoint of a vision model, found .*, which is llama"),
        ({"--audio": "siglip"}, "audio: must be a checkpoint of Whisper, found .*, which is siglip_vision_model"),
        ({"--text": "audio", "--audio": "text"}, "text: must be .*; audio: must be a checkpoint of Whisper"),
    ],
)
def test_parts_of_another_kind_are_one_error(
    parts: dict[str, Path],
    wrong: dict[str, str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = arguments(parts, tmp_path / "out")
    for option, name in wrong.items():
        given[given.index(option) + 1] = str(parts[name])
    assert main(given) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    with pytest.raises(InvalidValueError, match=message):
        raise InvalidValueError(said)
    assert not (tmp_path / "out").exists()


def test_tokens_that_no_frame_has_places_for_are_refused_before_the_language_model_is_loaded(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    assert main(arguments(parts, tmp_path / "out", "siglip", "text", "--option", "frame_rate=0.5")) == 2
    said = capsys.readouterr().err
    assert said.endswith("found 32 for 100 of the audio_encoder; give --option slots=100\n")
    assert main(arguments(parts, tmp_path / "out", "siglip", "text", "--option", "slots=5")) == 2
    assert "found 5 for 9 of the visual_encoder, 25 of the audio_encoder" in capsys.readouterr().err


def test_a_language_model_that_lacks_weights_is_refused(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(parts["text"], tmp_path / "text")
    weights = load_file(tmp_path / "text" / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "text" / "model.safetensors", metadata={"format": "pt"})
    assert main(arguments({**parts, "text": tmp_path / "text"}, tmp_path / "out")) == 2
    assert "must hold the weights of LlamaForCausalLM; it lacks 1: model.norm.weight" in capsys.readouterr().err


def test_a_part_that_is_nowhere_and_one_that_is_not_given(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    given = arguments(parts, tmp_path / "out")
    given[given.index("--vision") + 1] = str(tmp_path / "empty")
    assert main(given) == 2
    assert "vision: must be a checkpoint of a vision model, found" in capsys.readouterr().err
    assert main(["assemble", "--text", str(parts["text"]), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "assemble: vision: must be given; audio: must be given\n"


def test_a_language_model_in_place_of_a_whole_one_is_told_how_to_make_one(parts: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"found 'llama'; to make one .*favor assemble --text .*text --vision"):
        load(parts["text"])


def write_preset(path: Path, parts: dict[str, Path], **more: Any) -> Path:
    """A file whose parts lie beside it."""
    folder = parts["text"].parent
    given = {"text": "text", "vision": "timm", "audio": "audio", "image_size": 64}
    options = {name: json.loads(value) for name, _, value in (option.partition("=") for option in SMALL)}
    path = folder / path.name
    path.write_text(json.dumps({**given, "options": options, **more}))
    return path


def test_a_file_of_ones_own_is_a_preset_wherever_one_is_named(
    parts: dict[str, Path], film: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = read_preset("real-tiny").sizes
    file = write_preset(tmp_path / "mine.json", parts, lora_modules=["q_proj"], sizes=sizes)
    monkeypatch.chdir(file.parent)
    model, processor = load("mine.json")
    assert isinstance(model.visual_encoder, TimmVisualEncoder)
    assert model.name_or_path == str(file)
    inputs = processor.apply_chat_template(conversation("What?", video=film))
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()
    assert lora_config("mine.json").target_modules == r".*language_model\..*\.(q_proj)"
    assert load_configuration("mine.json").vision_config.image_size == 64
    assert load("tiny:mine.json")[0].config.vision_config.model_type == "timm_wrapper"
    assert main(["assemble", "--preset", "mine.json", "--out", str(tmp_path / "out"), "--option", "num_queries=2"]) == 0
    assert load(tmp_path / "out")[0].config.num_queries == 2
    data = write_data(tmp_path)
    run = ["--epochs", "1", "--batch-size", "2", "--workers", "0"]
    assert main(["train", "--model", "mine.json", "--data", str(data), "--out", str(tmp_path / "run"), *run]) == 0
    monkeypatch.chdir(tmp_path)
    trained, _ = load(tmp_path / "run")  # finds its base from anywhere
    assert {
        name.rpartition(".lora_A")[0].rpartition(".")[2] for name, _ in trained.named_parameters() if "lora_A" in name
    } == {"q_proj"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "must state a preset's parts by name, found list"),
        ("text: [", "must be YAML or JSON"),
        ("text: a\nvision: b", "mine.yaml: audio: must be given$"),
        (
            "text: a\nvision: 3\naudio: c\nears: d",
            "ears: must be one of text, vision, .*; vision: must be a text, found 3",
        ),
        ("{text: a, vision: b, audio: c, options: {windows: 3}}", r"options\.windows: must be one of .*window_frames"),
        ("{text: a, vision: b, audio: c, options: {text_config: {}}}", r"options\.text_config: must be one of"),
        ("{text: a, vision: b, audio: c, sizes: {text_config: {}}}", r"sizes\.text_config: must have a model_type"),
        ("{text: a, vision: b, audio: c, prompt: mine}", "prompt: must be own or published, found 'mine'"),
        ("{text: a, vision: b, audio: c, image_size: 0}", "image_size: must be a number of pixels, found 0"),
        ("{text: a, vision: b, audio: c, lora_modules: q_proj}", "lora_modules: must be a list of names"),
        ("{text: a, vision: b, audio: c, options: 3}", "options: must be values by name, found 3"),
    ],
)
def test_a_file_that_states_no_preset_is_one_error(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(InvalidValueError, match=message):
        load(tmp_path / "mine.yaml")


def test_without_sizes_a_preset_has_no_twin(parts: dict[str, Path], tmp_path: Path) -> None:
    file = write_preset(tmp_path / "bare.json", parts)
    with pytest.raises(
        InvalidValueError, match=r"must state sizes .* found no text_config, vision_config, audio_config"
    ):
        load(f"tiny:{file}")
    assert load(file)[0].config.vision_config.image_size == 64


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_whole(preset: str) -> None:
    stated, config = read_preset(preset), full_config(preset)
    assert stated.text
    assert config.num_query_tokens <= config.slots
    assert (stated.prompt == "published") == ("vicuna" in stated.text)
    with torch.device("meta"):
        model = FavorForConditionalGeneration(config)
    assert model.visual_encoder.tokens_per_frame == config.num_query_tokens


def test_pictures_of_timms_models_are_normalised_once(parts: dict[str, Path], tmp_path: Path) -> None:
    assert main(arguments(parts, tmp_path / "out", "timm", "text", "--image-size", "64")) == 0
    model, processor = load(tmp_path / "out")
    seen: list[torch.Tensor] = []
    model.visual_encoder.model.conv_stem.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    grey = Video.from_rate(torch.full((1, 2, 3, 20, 30), 51, dtype=torch.uint8), 2.0)
    model.encode(**processor.encode_media([processor.load_clip(conversation("?", video=grey))])[0])
    expected = (0.2 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), expected, atol=1e-5, rtol=0)


def test_the_media_token_may_lie_outside_the_table() -> None:
    model, processor = tiny("modern")
    inputs = processor.apply_chat_template(conversation("?", video=Video.from_rate(torch.zeros(1, 4, 3, 28, 28), 2.0)))
    ids, token = inputs["input_ids"], model.config.media_token_id
    with torch.no_grad():
        expected = model(**inputs).logits
        model.config.media_token_id = 5000
        moved = {**inputs, "input_ids": ids.masked_fill(ids == token, 5000)}
        assert torch.equal(model(**moved).logits, expected)
        assert model.generate(**moved, max_new_tokens=2).shape[1] == ids.shape[1] + 2
        text = torch.full((1, 3), 7)
        embeds = model.get_input_embeddings()(text)
        assert torch.equal(model(inputs_embeds=embeds).logits, model(input_ids=text).logits)
