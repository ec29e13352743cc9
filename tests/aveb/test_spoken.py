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
    spoken = make_spoken_questions(QUESTIONS, voice, tmp_path / "new" / "folder")
    assert voice.said == ["Is it overcast?", "what?", "¿qué?"]
    assert [record.id for record in spoken] == ["vqa-1", "ocr-1", "ocr-a/b #2"]
    assert {(record.task, record.question, record.references) for record in spoken} == {("isqa", None, ("no",))}
    files = [record.audio for record in spoken]
    assert sorted(path for path in files if path) == sorted((tmp_path / "new" / "folder").iterdir())
    with wave.open(str(files[0])) as file:
        assert file.getnframes() == len("Is it overcast?")


def test_a_run_that_broke_off_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_spoken_questions(QUESTIONS, Voice(break_at=1), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1  # nothing half-written
    voice = Voice()
    make_spoken_questions(QUESTIONS, voice, tmp_path)
    assert voice.said == ["what?", "¿qué?"]
    again = Voice()
    make_spoken_questions(QUESTIONS, again, tmp_path)
    assert again.said == []


def test_another_question_is_another_file(tmp_path: Path) -> None:
    def first(question: str) -> Path | None:
        record = Record(id="1", task="vqa", image=Path("n1.jpg"), question=question, references=("no",))
        return make_spoken_questions([record], Voice(), tmp_path)[0].audio

    assert first("Is it?") != first("Is it not?")


def test_what_cannot_be_spoken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="ids must differ, found 'vqa-1' twice"):
        make_spoken_questions([QUESTIONS[0], QUESTIONS[0]], Voice(), tmp_path)
    silent = Record(id="1", task="ic", image=Path("n1.jpg"), references=("no",))
    with pytest.raises(InvalidValueError, match="must have an image and a question, 'ic-1' has not"):
        make_spoken_questions([silent], Voice(), tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"ID3 is no wav"])
def test_a_voice_that_writes_no_wav_is_refused(tmp_path: Path, content: bytes | None) -> None:
    def mute(text: str, path: Path) -> None:
        if content is not None:
            path.write_bytes(content)

    with pytest.raises(InvalidValueError, match="speak: must write a wav to"):
        make_spoken_questions(QUESTIONS, mute, tmp_path)
    assert list(tmp_path.iterdir()) == []


def fake_espeak(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "espeak-ng"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_espeak_is_called_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InvalidValueError, match="speak: espeak-ng is not installed"):
        espeak("-what?", tmp_path / "a.wav")
    fake_espeak(tmp_path, 'cat > "$4"; echo "$1 $2 $3 $5" >> "$4"', monkeypatch)
    espeak("-what?\n", tmp_path / "a.wav", voice="en-gb")
    assert (tmp_path / "a.wav").read_text() == "-what?\n-v en-gb -w --stdin\n"
    fake_espeak(tmp_path, "echo no voice >&2; exit 1", monkeypatch)
    with pytest.raises(InvalidValueError, match=r"espeak-ng failed on 'what\?' \(no voice\)"):
        espeak("what?", tmp_path / "a.wav")
