"""What FAVOR is compared with: it computes what it should, takes the same conversations, and refuses the others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

from avfusion import InvalidValueError, Video, Waveform
from avfusion.models import conversation
from examples.favor.baselines import BASELINES, WhisperBaseline, from_instructblip
from examples.favor.loading import load
from examples.favor.presets import lora_config
from examples.favor.tiny import tiny_config
from tests.examples.favor.media import clip

PRESET = "favor-vicuna-7b"
SEEING = [name for name in BASELINES if name != "whisper"]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("media")
    return {
        "film": clip(folder / "film.mp4", seconds=3.0),
        "other": clip(folder / "other.mp4", seconds=1.0, seed=1),
        "silent": clip(folder / "silent.mp4", seconds=2.0, sound=False, seed=2),
        "still": Video.from_image(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))),
    }


def conversations(name: str, films: dict[str, Any]) -> list[Any]:
    """A mix of all that a baseline takes; the last asks about the first's clip."""
    sound = [conversation("what is said?", video=films["film"]), conversation("and here?", audio=films["other"])]
    sight = [conversation("who is it?", video=films["silent"]), conversation("and here?", image=films["still"])]
    text = [conversation("hello")]
    return {
        "whisper": sound,
        "video-llama": [*sound, *sight, *text],
        "instructblip-averaged": [sound[0], *sight, *text],
        "instructblip-concatenated": [sound[0], *sight, *text],
    }[name] + [conversation("what is said again?", video=films["film"])]


def lively(name: str) -> tuple[Any, Any]:
    """A tiny twin whose answers depend on what it is given, as those of small random weights do not."""
    model, processor = load(f"baseline:{name}:tiny")
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=noise) * parameter.shape[-1] ** -0.5)
    return model, processor


def answers(model: Any, processor: Any, asked: list[Any], **options: Any) -> list[list[int]]:
    inputs = processor.apply_chat_template(asked)
    out = model.generate(**inputs, max_new_tokens=6, do_sample=False, **options)
    length = inputs["input_ids"].shape[1]
    assert torch.equal(out[:, :length], inputs["input_ids"])
    end = processor.tokenizer.eos_token_id
    return [[token for token in row if token != end] for row in out[:, length:].tolist()]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_answers_as_single_rows_do(name: str, beams: int, films: dict[str, Any]) -> None:
    model, processor = lively(name)
    asked = conversations(name, films)
    together = answers(model, processor, asked, num_beams=beams)
    assert together == [answers(model, processor, [one], num_beams=beams)[0] for one in asked]
    assert len({tuple(row) for row in together}) > 1


@pytest.mark.parametrize("name", SEEING)
def test_they_learn_what_they_have(name: str, films: dict[str, Any]) -> None:
    model, processor = load(f"baseline:{name}:tiny")
    asked = [[*turns, {"role": "assistant", "content": "red"}] for turns in conversations(name, films)]
    for some in (asked, [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]]):
        inputs = processor.apply_chat_template(some, return_labels=True, padding_side="right")
        model.zero_grad()
        model.train()(**inputs).loss.backward()
        assert all(parameter.grad is not None for parameter in model.connector.parameters())
        heard = processor.tokenizer.decode(inputs["labels"][0][inputs["labels"][0] >= 0])
        assert heard in ("red</s>", "yes</s>")


# --- InstructBLIP ---


@pytest.mark.parametrize("fusion", ["averaged", "concatenated"])
@torch.no_grad()
def test_of_one_picture_it_is_instructblip(fusion: str, films: dict[str, Any]) -> None:
    _, processor = load(f"baseline:instructblip-{fusion}:tiny")
    small = tiny_config(PRESET)
    torch.manual_seed(0)
    blip = InstructBlipForConditionalGeneration(
        InstructBlipConfig(
            vision_config=small.vision_config.to_dict(),
            qformer_config=small.qformer_config.to_dict(),
            text_config=small.text_config.to_dict(),
            num_query_tokens=4,
            image_token_index=0,
        )
    ).eval()
    torch.nn.init.normal_(blip.query_tokens)
    torch.nn.init.normal_(blip.language_projection.weight)
    inputs = processor.apply_chat_template(conversation("what is it?", image=films["still"]))
    # The pictures' four tokens, then the begin token, then the question.
    assert inputs["input_ids"][0, :5].tolist() == [0, 0, 0, 0, processor.tokenizer.bos_token_id]
    expected = blip(
        pixel_values=inputs["pixel_values_videos"][:, 0],
        qformer_input_ids=inputs["qformer_input_ids"],
        qformer_attention_mask=inputs["qformer_attention_mask"],
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
    ).logits
    found = from_instructblip(blip, fusion=fusion)(**inputs).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_frames_are_averaged_or_side_by_side(films: dict[str, Any]) -> None:
    asked = conversations("instructblip-averaged", films)
    seen = {}
    for fusion in ("averaged", "concatenated"):
        model, processor = lively(f"instructblip-{fusion}")
        inputs = processor.apply_chat_template(asked)
        assert "input_features" not in inputs
        features = model.encode(
            **{key: value for key, value in inputs.items() if key.startswith(("pixel", "video", "qformer"))}
        )
        seen[fusion] = model.get_media_embeddings(**features)
        counts = (inputs["input_ids"] == processor.placeholder_id).sum(1).tolist()
        # Clips of 3 s, 2 s and one picture at 2 frames a second; text; the first again.
        assert counts == ([4, 4, 4, 0, 4] if fusion == "averaged" else [24, 16, 4, 0, 24])
    whole, mean = seen["concatenated"], seen["averaged"]
    frames = whole.embeddings.unflatten(1, (-1, 4))
    for number, real in enumerate((6, 4, 1)):
        torch.testing.assert_close(mean.embeddings[number], frames[number, :real].mean(0))
        assert whole.mask[number].sum() == 4 * real
    torch.testing.assert_close(mean.spans[0, 0], torch.tensor([0.0, 3.0], dtype=torch.float64))
    assert frames[0].std(0).max() > 0.01


# --- Video-LLaMA ---


@torch.no_grad()
def test_separate_streams_do_not_meet(films: dict[str, Any]) -> None:
    model, processor = lively("video-llama")

    def embeddings(**media: str) -> torch.Tensor:
        inputs = processor.apply_chat_template(conversation("what?", **media))
        told = {key: value for key, value in inputs.items() if key not in ("input_ids", "attention_mask")}
        out = model.get_media_embeddings(**model.encode(**told))
        assert int((inputs["input_ids"] == processor.placeholder_id).sum()) == int(out.mask.sum())
        return out.embeddings[out.mask]

    both = embeddings(video=films["silent"], audio=films["film"])
    seen, heard = embeddings(video=films["silent"]), embeddings(audio=films["film"])
    # 2 s of pictures are one window, 3 s of sound are two, and each gives half of the four queries.
    assert (len(seen), len(heard)) == (2, 4)
    torch.testing.assert_close(both, torch.cat([seen, heard]))


def test_it_is_told_in_the_configuration(tmp_path: Path) -> None:
    model, processor = load("baseline:video-llama:tiny")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, read = load(tmp_path)
    assert (again.config.fusion, read.fusion, read.num_queries) == ("separate", "separate", 2)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(InvalidValueError, match="without a second audio tower if separate"):
        load("tiny:video-salmonn-13b", options={"fusion": "separate"})
    with pytest.raises(InvalidValueError, match=r"fusion: must be one of .* found 'mixed'"):
        load("tiny", options={"fusion": "mixed"})
    with pytest.raises(InvalidValueError, match="options: must be of FavorConfig, found 'fussion'"):
        load("tiny", options={"fussion": "separate"})


def test_what_was_trained_on_it_loads(tmp_path: Path) -> None:
    trained = get_peft_model(load("baseline:video-llama:tiny")[0], lora_config(PRESET))
    trained.save_pretrained(tmp_path, save_embedding_layers=False)
    again, processor = load(tmp_path)
    assert (again.config.fusion, processor.fusion, processor.num_queries) == ("separate", "separate", 2)
    stored = again.state_dict()
    kept = {name: value for name, value in trained.state_dict().items() if "connector.modules_to_save" in name}
    assert len(kept) > 100
    assert all(torch.equal(value, stored[name]) for name, value in kept.items())


# --- Whisper ---


def test_whisper_writes_down_every_chunk(films: dict[str, Any]) -> None:
    model, processor = lively("whisper")
    assert isinstance(model, WhisperBaseline)
    time, noise = torch.arange(16000) / 16000, torch.randn(16000, generator=torch.Generator().manual_seed(0))
    sounds = [(2 * torch.pi * 300 * time).sin(), noise, (2 * torch.pi * 3000 * time).sin()]
    asked = conversation("what is said?", audio=Waveform.from_samples(0.3 * torch.cat(sounds)[None], 16000))
    inputs = processor.apply_chat_template(asked)
    chunks = inputs["input_features"].unflatten(2, (-1, 100)).transpose(1, 2)[0]
    assert len(chunks) == 3  # of a second each
    each = [
        model.whisper.generate(input_features=chunk[None], max_new_tokens=6, do_sample=False)[0].tolist()
        for chunk in chunks
    ]
    assert answers(model, processor, [asked])[0] == [token for row in each for token in row if token != 2]
    assert len({tuple(row) for row in each}) == 3
    assert "pixel_values_videos" not in processor.apply_chat_template(conversation("what?", video=films["film"]))


def test_the_question_does_not_matter_to_whisper(films: dict[str, Any]) -> None:
    model, processor = lively("whisper")
    first, second = answers(
        model, processor, [conversation(question, video=films["film"]) for question in ("a", "what colour?")]
    )
    assert first == second


# --- What they do not take ---


def test_what_a_baseline_cannot_take(films: dict[str, Any]) -> None:
    whisper, processor = load("baseline:whisper:tiny")
    with pytest.raises(InvalidValueError, match="must have sound for this model, clip 1 has none"):
        processor.apply_chat_template([conversation("a", video=films["film"]), conversation("b", image=films["still"])])
    for asked in ([conversation("hello")], [conversation("a", audio=films["film"]), conversation("hello")]):
        with pytest.raises(InvalidValueError, match="input_features: must "):
            whisper.generate(**processor.apply_chat_template(asked))
    for fusion in ("averaged", "concatenated"):
        processor = load(f"baseline:instructblip-{fusion}:tiny")[1]
        with pytest.raises(InvalidValueError, match=f"must have pictures for fusion='{fusion}', clip 0 has none"):
            processor.apply_chat_template(conversation("a", audio=films["film"]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("baseline:other", {}, "baseline: must be one of whisper, instructblip-averaged"),
        ("baseline:whisper:small", {}, "baseline:NAME or baseline:NAME:tiny"),
        ("baseline:whisper:tiny", {"options": {"slots": 3}}, "without options"),
        ("baseline:whisper:tiny", {"quantize": "4bit"}, "quantize: must be None for whisper"),
        ("baseline:instructblip-averaged:tiny", {"quantize": "8bit"}, "quantize: must be None for instructblip"),
    ],
)
def test_a_wrong_name_is_one_message(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        load(name, **options)


@pytest.mark.parametrize("name", BASELINES)
def test_dtype(name: str, films: dict[str, Any]) -> None:
    model, processor = load(f"baseline:{name}:tiny", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert answers(model, processor, conversations(name, films)[:1])
