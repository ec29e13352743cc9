"""The tiny audio-visual LLM: its files hold what they are said to hold, the job runs, and its model can be asked."""

import json
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from avfusion.media import load_media, write_video
from examples.tiny_avllm.__main__ import main
from examples.tiny_avllm.data import COLOURS, FRAME_RATE, SAMPLE_RATE, SCENE, TONES, write_clips
from examples.tiny_avllm.questions import as_prompt, ask_about_every_scene, build_tokenizer


def _colour(picture: Tensor) -> str:
    """The named colour that is nearest to the picture's most saturated or brightest pixels."""
    pixels = picture.flatten(1).T.float()
    ink = pixels[pixels.amax(1).argsort(descending=True)[:50]].mean(0)
    distances = {name: (ink - torch.tensor(value, dtype=torch.float32)).norm() for name, value in COLOURS.items()}
    return min(distances, key=distances.__getitem__)


def _tone(samples: Tensor) -> str:
    spectrum = torch.fft.rfft(samples * torch.hann_window(len(samples))).abs()
    peak = spectrum.argmax().item() * SAMPLE_RATE / len(samples)
    return min(TONES, key=lambda name: abs(TONES[name] - peak))


def test_files_hold_what_they_are_said_to_hold(tmp_path: Path) -> None:
    clips = write_clips(tmp_path, 4, seed=3)
    assert len({clip.scenes for clip in clips}) == 4
    for clip in clips:
        media = load_media(clip.path, frame_rate=1 / SCENE)
        assert media.video is not None
        assert media.waveform is not None
        assert media.duration == pytest.approx(len(clip.scenes) * SCENE, abs=0.05)
        count = round(SCENE * SAMPLE_RATE)
        for place, scene in enumerate(clip.scenes):
            assert _colour(media.video.pixels[0, place]) == scene.colour
            assert _tone(media.waveform.samples[0, place * count : (place + 1) * count]) == scene.tone


def test_shapes_move(tmp_path: Path) -> None:
    [clip] = write_clips(tmp_path, 1, seed=0)
    pixels = load_media(clip.path, frame_rate=FRAME_RATE).video.pixels[0].float()
    steps = round(SCENE * FRAME_RATE)
    assert len(pixels) == len(clip.scenes) * steps
    moved = (pixels[:-1] - pixels[1:]).abs().amax((1, 2, 3))
    inside = torch.tensor([place % steps != steps - 1 for place in range(len(moved))])
    assert moved[inside].min() > 50


def test_clips_are_the_same_for_a_seed_and_others_for_another(tmp_path: Path) -> None:
    first, again, other = (write_clips(tmp_path / name, 2, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert [clip.scenes for clip in first] == [clip.scenes for clip in again] != [clip.scenes for clip in other]
    for one, same in zip(first, again, strict=True):
        pixels, again = (load_media(path).video.pixels.float() for path in (one.path, same.path))
        assert (pixels - again).abs().mean() < 1


@pytest.mark.parametrize("seed", range(5))
def test_every_question_has_one_answer(tmp_path: Path, seed: int) -> None:
    for clip in write_clips(tmp_path, 3, seed=seed):
        assert len({scene.tone for scene in clip.scenes}) == len(clip.scenes)
        questions = ask_about_every_scene(clip.scenes, random.Random(seed))
        assert len(questions) == len(clip.scenes)
        for scene, question in zip(clip.scenes, questions, strict=True):
            assert [other for other in clip.scenes if f" {other.tone} tone" in question.text] == [scene]
            assert question.answer == scene.colour


def test_the_tokenizer_knows_every_word_asked_and_answered(tmp_path: Path) -> None:
    tokenizer, choose = build_tokenizer(), random.Random(0)
    for clip in write_clips(tmp_path, 10, seed=0):
        for question in ask_about_every_scene(clip.scenes, choose):
            assert tokenizer.unk_token_id not in tokenizer(as_prompt(question.text))["input_ids"]
            ids = tokenizer(question.answer)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == question.answer
    assert tokenizer.tokenize("Color of the ZEBRA?") == ["colour", "of", "the", "<unk>", "?"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of the whole job leaves behind, with so few clips and steps that it learns nothing."""
    out = tmp_path_factory.mktemp("run")
    sizes = "--clips 4 --held-out 2 --encoder-steps 2 --connector-steps 2 --steps 2 --seed 5"
    assert main(["--out", str(out), *sizes.split()]) == 0
    return out


def test_the_job_writes_its_results(trained: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    assert results["seed"] == 5
    held_out = [load_media(file) for file in (trained / "held_out").glob("*.mp4")]
    assert results["held_out_questions"] == sum(round(media.duration / SCENE) for media in held_out)
    assert 0 <= results["accuracy"] <= 1
    assert 0 <= results["twin_accuracy"] <= 1
    assert results["twin_parameters"]["connector"] == pytest.approx(results["parameters"]["connector"], rel=0.02)
    assert (trained / "tiny_avllm.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((trained / "train").glob("*.mp4"))) == 4


def _ask(trained: Path, file: Path, question: str = "Which colour was on screen during the high tone?") -> int:
    return main(["ask", str(file), question, "--out", str(trained)])


def test_a_saved_model_answers_about_its_own_files(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ask(trained, trained / "held_out" / "0000.mp4") == 0
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 1
    assert _ask(trained, trained / "held_out" / "0000.mp4") == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("seconds", [0.3, 2.0, 9.7])
@pytest.mark.parametrize("content", ["both", "silent", "sound"])
def test_any_file_can_be_asked_about(trained: Path, tmp_path: Path, seconds: float, content: str) -> None:
    file = tmp_path / "clip.mkv"
    pixels = torch.randint(256, (max(1, round(seconds * 12)), 3, 48, 80), dtype=torch.uint8)
    samples = 0.1 * torch.randn(round(seconds * SAMPLE_RATE))
    if content == "sound":
        file = tmp_path / "sound.wav"
        _write_wav(file, samples)
    else:
        write_video(file, pixels, 12.0, samples if content == "both" else None)
    assert _ask(trained, file, "anything whatever, in words it never saw") == 0


def _write_wav(file: Path, samples: Tensor) -> None:
    import wave

    with wave.open(str(file), "wb") as sound:
        sound.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        sound.writeframes((samples.clamp(-1, 1) * 32767).to(torch.int16).numpy().tobytes())


@pytest.mark.parametrize("content", [None, b"", b"no film at all"])
def test_a_bad_file_is_one_line_and_exit_code_2(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    file = tmp_path / "bad.mp4"
    if content is not None:
        file.write_bytes(content)
    assert _ask(trained, file) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert "bad.mp4" in captured.err


def test_without_a_trained_model_there_is_one_line_too(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ask(tmp_path, trained / "held_out" / "0000.mp4") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
