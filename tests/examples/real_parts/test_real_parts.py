"""The example with small random parts: all stages, their results, nothing repeated, asked about a file."""

import json
import random
import wave
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from examples.real_parts import free_questions
from examples.real_parts.__main__ import main
from examples.real_parts.clips import VOICES, WORDS, Clip, Scene
from examples.real_parts.examine import CONDITIONS, Answered, accuracy
from examples.real_parts.job import Settings, run
from examples.real_parts.questions import Question, dialogue, examination
from examples.real_parts.text_questions import TEXT_HELD_OUT, TEXT_TRAINING
from tests.models.templates import tokenizer_of


def write_parts(folder: Path) -> tuple[str, str]:
    """A language model with a chat template, and a convolutional network as timm's ``local-dir:``."""
    tokenizer = tokenizer_of("smollm2")
    config = LlamaConfig(
        vocab_size=len(tokenizer) - 1, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    language_model = LlamaForCausalLM(config)
    language_model.generation_config.forced_eos_token_id = tokenizer.eos_token_id  # its answers end
    language_model.save_pretrained(folder / "llm")
    tokenizer.save_pretrained(folder / "llm")
    vision = timm.create_model("test_efficientnet", num_classes=0)
    (folder / "vision").mkdir()
    save_file(vision.state_dict(), folder / "vision" / "model.safetensors")
    (folder / "vision" / "config.json").write_text(json.dumps({"architecture": "test_efficientnet", "num_classes": 0}))
    return str(folder / "llm"), f"local-dir:{folder / 'vision'}"


def write_speech(folder: Path) -> None:
    """Noise for all words but one, which the speech synthesiser speaks."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for number in range(len(VOICES)):
        for word in WORDS[number == 0 :]:
            samples = (8000 * torch.randn(8000, generator=generator)).clamp(-32767, 32767).to(torch.int16)
            with wave.open(str(folder / f"{number}-{word}.wav"), "wb") as file:
                file.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
                file.writeframes(samples.numpy().tobytes())


def test_the_job_runs_once_and_can_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    language_model, visual_encoder = write_parts(tmp_path)
    write_speech(tmp_path / "out" / "speech")
    settings = Settings(
        out=tmp_path / "out", seed=3, language_model=language_model, visual_encoder=visual_encoder, clips=5, held_out=2,
        encoder_steps=2, align_steps=2, steps=2, live=1, questions="instant", arms=["synchronised", "baseline"],
        device="cpu",
    )  # fmt: skip
    results = run(settings)
    folder = tmp_path / "out" / "seed-3"
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
    ours, baseline = results["arms"]["synchronised"], results["arms"]["baseline"]
    assert set(ours["accuracy"]) == set(CONDITIONS)
    assert set(baseline["accuracy"]) == {"both"}
    assert ours["questions"] == baseline["questions"] == 8
    assert ours["text"]["prompts"] == len(TEXT_HELD_OUT)
    assert ours["live"][0]["asked"] >= 4
    assert ours["live"][0]["equal"] == ours["live"][0]["asked"]
    assert abs(ours["parameters"]["connector"] / baseline["parameters"]["connector"] - 1) < 0.1
    stages = {path.stem for path in (folder / "seconds").iterdir()}
    assert stages >= {"clips", "audio_encoder", "features", "synchronised_alignment", "baseline_training"}

    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = run(settings)
    changed = {path.name for path, time in files.items() if path.stat().st_mtime_ns != time}
    assert changed == {"results.json", "settings.json"}
    assert again["arms"]["synchronised"]["accuracy"] == ours["accuracy"]

    assert main(["--out", str(tmp_path / "out"), "--seed", "3", "--steps", "9"]) == 2
    assert "must be" in capsys.readouterr().err

    clip = str(folder / "held_out" / "0000.mp4")
    options = ["--out", str(tmp_path / "out"), "--seed", "3"]
    assert main(["ask", clip, "What colour was on screen?", *options]) == 0
    assert main(["ask", str(tmp_path / "nowhere.mp4"), "What?", *options]) == 2
    assert "nowhere.mp4" in capsys.readouterr().err


def clip_of(count: int) -> Clip:
    names = ["red", "green", "blue", "white", "purple", "orange"]
    words = ["dog", "cat", "sun", "tree", "fish", "book"]
    scenes = tuple(Scene(names[n], "circle", words[n], (n + 0.1, n + 0.5)) for n in range(count))
    return Clip(Path("a.mp4"), scenes, (0,) * count, 0)


def test_questions_hold_what_tells_the_scene_and_not_the_answer() -> None:
    clips = [clip_of(4), clip_of(6)]
    asked: list[Any] = [one for _, one in examination(clips)]
    asked += dialogue(clips[1], random.Random(0), 4)
    for question in asked:
        scene = next(
            scene
            for scene in clips[1].scenes
            if question.answer in (f"It was {scene.colour}.", f"It was {scene.word}.")
        )
        told, hidden = (scene.word, scene.colour) if question.kind == "colour" else (scene.colour, scene.word)
        assert told in question.text
        assert hidden not in question.text
    assert not set(TEXT_TRAINING) & set(TEXT_HELD_OUT)


def test_dropout_needs_questions_for_one_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--arms", "modality-dropout"]) == 2
    assert "one stream" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_free_questions_have_the_answers_of_the_scenes() -> None:
    clip = clip_of(5)
    scenes = list(clip.scenes)
    scenes[2] = scenes[2]._replace(word="")
    clip = clip._replace(scenes=tuple(scenes))
    words = [scene.word for scene in scenes if scene.word]
    colours = [scene.colour for scene in scenes]
    for seed in range(20):
        for _, question in free_questions.examination([clip], seed=seed):
            told = question.answer.rstrip(".").split()[-1]
            asked = question.text.rstrip("?.").split()
            if question.kind == "order, words":
                [before] = [word for word in words if word in asked]
                assert told == words[words.index(before) + 1]
            elif question.kind == "order, colours":
                [after] = [colour for colour in colours if colour in asked]
                assert told == colours[colours.index(after) - 1]
            elif question.kind == "order, both":
                [word] = [word for word in words if word in asked]
                assert told == colours[[scene.word for scene in scenes].index(word) + 1]
            elif question.kind == "counting":
                assert told == "four"
            elif question.kind == "first and last":
                assert told == (words[0] if "first" in asked else words[-1])
            elif question.kind == "silence":
                assert scenes[2].colour in asked
                assert question.answer == "Nothing was said."
            elif question.kind == "description":
                assert [phrase in question.answer.lower() for phrase in [*words, *colours]] == [True] * 9
                assert question.answer.lower().index(colours[2]) < question.answer.index("silence")
    assert {one.kind for _, one in free_questions.examination([clip])} == {form.kind for form in free_questions.FORMS}


def test_free_dialogues_ask_only_what_the_streams_can_answer() -> None:
    for seed in range(20):
        for streams in (frozenset({"visual"}), frozenset({"audio"})):
            turns = free_questions.dialogue(clip_of(5), random.Random(seed), 4, streams)
            assert turns
            assert all(question.needs <= streams for question in turns)
        turns = free_questions.dialogue(clip_of(5), random.Random(seed), 9)
        assert [question.kind for question in turns].index("description") == len(turns) - 1


def test_phrases_of_a_description_count_at_their_place() -> None:
    expected = "Red with the word dog, then blue with silence."
    assert free_questions.phrases_right(expected, expected) == (2, 2)
    assert free_questions.phrases_right(expected, "Red with the word cat, then blue with silence.") == (1, 2)
    assert free_questions.phrases_right(expected, "Blue with silence.") == (0, 2)
    assert free_questions.phrases_right(expected, expected[:-1] + ", then red with silence.") == (2, 3)


def test_only_the_whole_answer_counts() -> None:
    question = Question("q", "It was red.", "colour")
    given = ["It was red.", " It was red. ", "red", "It was red. It was blue."]
    answered = [Answered(0, question, one) for one in given] + [Answered(0, question._replace(kind="word"), "no")]
    assert accuracy(answered) == {"all": 0.4, "colour": 0.5, "word": 0.0}
