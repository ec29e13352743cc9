"""Conversations to tensors: the published prompt, labels, places kept, clips shared, files that are wrong."""

from pathlib import Path
from typing import Any

import pytest
import torch

from avfusion import InvalidTypeError, InvalidValueError, MediaError, Video, Waveform
from avfusion.media import load_media
from avfusion.models import conversation
from examples.favor.presets import PRESETS
from examples.favor.processing_favor import FavorProcessor
from examples.favor.streams import HELD, microseconds, seconds
from examples.favor.tiny import tiny
from tests.examples.favor.media import clip


@pytest.fixture(scope="module")
def processor() -> FavorProcessor:
    return tiny()[1]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    return clip(tmp_path_factory.mktemp("media") / "film.mp4")


def test_the_prompt_is_the_published_one(processor: FavorProcessor, film: str) -> None:
    asked = conversation("What is said?", video=film)
    text = processor.apply_chat_template(asked, tokenize=False)
    assert text == "USER: <Img><unk></Img> What is said?\nASSISTANT:"
    whole = [*asked, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Who?"}]
    text = processor.apply_chat_template(whole, tokenize=False)
    assert text == "USER: <Img><unk></Img> What is said?\nASSISTANT:Hello.</s>USER: Who?\nASSISTANT:"


def test_tokens_are_those_of_the_prompt_with_a_place_for_each_embedding(processor: FavorProcessor, film: str) -> None:
    inputs = processor.apply_chat_template(conversation("What is said?", video=film))
    assert processor.decode(inputs["input_ids"][0]) == f"USER: <Img>{'<unk>' * 4}</Img> What is said?\nASSISTANT:"


@pytest.mark.parametrize("preset", PRESETS)
def test_labels_are_on_answers_and_their_end_only(preset: str, film: str) -> None:
    processor = tiny(preset)[1]
    messages = [
        *conversation("One?", video=film),
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "second"},
    ]
    inputs = processor.apply_chat_template([messages], return_labels=True)
    labels, ids = inputs["labels"][0], inputs["input_ids"][0]
    end = processor.tokenizer.eos_token
    assert processor.decode(labels[labels >= 0]) == f"first{end}second{end}"
    assert torch.equal(ids[labels >= 0], labels[labels >= 0])
    assert "labels" not in processor.apply_chat_template([messages])


def test_training_text_begins_with_what_generation_is_given(processor: FavorProcessor, film: str) -> None:
    asked = conversation("What?", video=film)
    prompt = processor.apply_chat_template(asked)["input_ids"][0]
    taught = processor.apply_chat_template([[*asked, {"role": "assistant", "content": "this"}]], return_labels=True)
    assert torch.equal(taught["input_ids"][0, : len(prompt)], prompt)
    assert (taught["labels"][0, : len(prompt)] == -100).all()


def test_equal_media_are_one_clip_without_an_instruction(film: str) -> None:
    processor = tiny("modern")[1]
    questions = [conversation(text, video=film) for text in ("a?", "b?")]
    inputs = processor.apply_chat_template([*questions, conversation("no media")])
    assert inputs["pixel_values_videos"].shape[0] == 1
    assert inputs["media_index"].tolist() == [0, 0, -1]
    apart = tiny()[1].apply_chat_template(questions)  # InstructBLIP sees it in another light for each question
    assert apart["pixel_values_videos"].shape[0] == 2
    assert "media_index" not in apart
    assert not torch.equal(apart["qformer_input_ids"][0], apart["qformer_input_ids"][1])


def test_a_reloaded_processor_gives_the_same(processor: FavorProcessor, film: str, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    again = FavorProcessor.from_pretrained(tmp_path)
    questions = [conversation("a?", video=film), conversation("b")]
    ours, theirs = processor.apply_chat_template(questions), again.apply_chat_template(questions)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_values_instead_of_files(processor: FavorProcessor, film: str) -> None:
    media = load_media(film, frame_rate=2.0, size=28)
    ours = processor.apply_chat_template(conversation("a?", video=media))
    theirs = processor.apply_chat_template(conversation("a?", video=media.video, audio=media.waveform))
    file = processor.apply_chat_template(conversation("a?", video=film))
    for name in ours:
        assert torch.equal(ours[name], theirs[name])
        assert torch.equal(ours[name], file[name])


def test_pictures_without_their_sound(processor: FavorProcessor, film: str) -> None:
    silent = processor.apply_chat_template(conversation("a?", video=film), use_audio_in_video=False)
    assert "input_features" not in silent
    assert "pixel_values_videos" in silent


def test_sound_longer_than_a_chunk_and_video_of_any_length(processor: FavorProcessor) -> None:
    sound = Waveform.from_samples([torch.randn(16_000 * 3 + 1)], 16_000)
    video = Video.from_rate(torch.zeros(1, 150, 3, 28, 28, dtype=torch.uint8), 2.0)  # 75 s
    inputs = processor.apply_chat_template([conversation("a?", audio=sound), conversation("b?", video=video)])
    assert inputs["input_features"].shape == (2, 80, 400)
    assert inputs["feature_attention_mask"].sum(1).tolist() == [301, 0]
    places = (inputs["input_ids"] == processor.placeholder_id).sum(1).tolist()
    assert places == [8, 38 * 4]  # 7 frames in 2 windows, 150 in 38; four queries each


def test_times_survive_half_precision() -> None:
    times = torch.tensor([0.0, 1 / 3, 29.97, 4321.123456, torch.inf], dtype=torch.float64)
    whole = microseconds(times)
    assert whole.dtype == torch.int64
    assert whole[-1] == HELD
    torch.testing.assert_close(seconds(whole), times, atol=5e-7, rtol=0)
    inputs = tiny()[1].apply_chat_template(
        conversation("a?", video=Video.from_rate(torch.zeros(1, 3, 3, 28, 28), 29.97, start=1000.0))
    )
    assert inputs.to(dtype=torch.bfloat16)["video_spans"].dtype == torch.int64


def message(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def test_what_is_wrong_is_said(processor: FavorProcessor, film: str, tmp_path: Path) -> None:
    say, picture = processor.apply_chat_template, {"type": "video", "video": film}
    with pytest.raises(MediaError, match="nowhere"):
        say(conversation("a?", video=str(tmp_path / "nowhere.mp4")))
    silent = clip(tmp_path / "silent.mp4", sound=False)
    with pytest.raises(MediaError, match="no audio"):
        say(conversation("a?", audio=silent))
    with pytest.raises(InvalidTypeError, match="video: must be a file"):
        say(conversation("a?", video=3))
    with pytest.raises(InvalidValueError, match="'smell'"):
        say(message({"type": "smell", "smell": "x"}))
    with pytest.raises(InvalidValueError, match="must name its file"):
        say(message({"type": "video"}))
    with pytest.raises(InvalidValueError, match="must not hold the character NUL"):
        say(conversation("a\x00b"))
    with pytest.raises(InvalidValueError, match="one video track"):
        say(message(picture, {"type": "image", "image": film}))
    with pytest.raises(InvalidValueError, match="sample_rate"):
        say(conversation("a?", audio=Waveform.from_samples([torch.zeros(8000)], 8000)))
