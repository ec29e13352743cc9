"""Written questions become spoken ones, once."""

import wave
from pathlib import Path

import pytest

from avfusion.aveb import Record, espeak, make_spoken_questions
from avfusion.errors import InvalidValueError

QUESTIONS = [
    Record(id=name, task=task, image=Path("n1.jpg"), question=question, references=("no",))
    for name, task, question in [("1", "vqa", "Is it overcast?"), ("1", "ocr", "what?"), ("a/b #2", "ocr", "¿qué?")]
]


class Voice:
    """Stands in for a text-to-speech: a wav as long as its text, and a note of what was said."""

    def __init__(self, break_at: int | None = None) -> None:
        self.said: list[str] = []
        self.break_at = break_at

    def __call__(self, text: str, path: Path) -> None:
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", None))
            file.writeframes(bytes(2 * len(text)))
            if len(self.said) == self.break_at:
                raise KeyboardInterrupt
        self.said.append(text)


def test_every_question_is_spoken(tmp_path: Path) -> None:
    voice = Voice()
    spoken = make_spoken_questions(QUESTIONS, tmp_path / "new" / "folder", speak=voice)
    assert voice.said == ["Is it overcast?", "what?", "¿qué?"]
    assert [record.id for record in spoken] == ["vqa-1", "ocr-1", "ocr-a/b #2"]
    assert {(record.task, record.question, record.references) for record in spoken} == {("isqa", None, ("no",))}
    files = [record.audio for record in spoken]
    assert sorted(path for path in files if path) == sorted((tmp_path / "new" / "folder").iterdir())
    with wave.open(str(files[0])) as file:
        assert file.getnframes() == len("Is it overcast?")


def test_a_run_that_broke_off_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_spoken_questions(QUESTIONS, tmp_path, speak=Voice(break_at=1))
    assert len(list(tmp_path.iterdir())) == 1  # nothing half-written
    voice = Voice()
    make_spoken_questions(QUESTIONS, tmp_path, speak=voice)
    assert voice.said == ["what?", "¿qué?"]
    again = Voice()
    make_spoken_questions(QUESTIONS, tmp_path, speak=again)
    assert again.said == []


def test_another_question_is_another_file(tmp_path: Path) -> None:
    def first(question: str) -> Path | None:
        record = Record(id="1", task="vqa", image=Path("n1.jpg"), question=question, references=("no",))
        return make_spoken_questions([record], tmp_path, speak=Voice())[0].audio

    assert first("Is it?") != first("Is it not?")


def test_what_cannot_be_spoken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="ids must differ, found 'vqa-1' twice"):
        make_spoken_questions([QUESTIONS[0], QUESTIONS[0]], tmp_path, speak=Voice())
    silent = Record(id="1", task="ic", image=Path("n1.jpg"), references=("no",))
    with pytest.raises(InvalidValueError, match="must have an image and a question, 'ic-1' has not"):
        make_spoken_questions([silent], tmp_path, speak=Voice())


@pytest.mark.parametrize("content", [None, b"", b"ID3 is no wav"])
def test_a_voice_that_writes_no_wav_is_refused(tmp_path: Path, content: bytes | None) -> None:
    def mute(text: str, path: Path) -> None:
        if content is not None:
            path.write_bytes(content)

    with pytest.raises(InvalidValueError, match="speak: must write a wav to"):
        make_spoken_questions(QUESTIONS, tmp_path, speak=mute)
    assert list(tmp_path.iterdir()) == []


def test_the_default_voice_speaks_without_downloads(tmp_path: Path) -> None:
    spoken = make_spoken_questions(QUESTIONS[:2], tmp_path)
    lengths = []
    for record in spoken:
        assert record.audio is not None
        with wave.open(str(record.audio)) as file:
            assert (file.getnchannels(), file.getframerate()) == (1, 22050)
            lengths.append(file.getnframes() / 22050)
    assert 0.5 < lengths[0] < 3
    assert lengths[1] < lengths[0]


def test_voices_and_speeds_differ(tmp_path: Path) -> None:
    for name, given in {"a": {}, "b": {"voice": "gmw/en"}, "c": {"speed": 90}, "d": {}}.items():
        espeak("seven cats", tmp_path / f"{name}.wav", **given)
    said = {name: (tmp_path / f"{name}.wav").read_bytes() for name in "abcd"}
    assert said["a"] == said["d"]
    assert len({said["a"], said["b"], said["c"]}) == 3
    assert len(said["c"]) > 1.2 * len(said["a"])


@pytest.mark.parametrize(
    ("text", "voice", "message"),
    [("a", "nobody", "has no voice nobody"), ("", "en-us", "nothing to say in ''"), ("...", "en-us", "nothing to say")],
)
def test_what_cannot_be_said_is_told(tmp_path: Path, text: str, voice: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"speak: eSpeak NG failed .*{message}"):
        espeak(text, tmp_path / "a.wav", voice=voice)
    assert not (tmp_path / "a.wav").exists()
