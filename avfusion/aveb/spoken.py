"""Spoken questions about images, synthesised from written ones."""

import hashlib
import re
import wave
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from avfusion.aveb.records import Record
from avfusion.errors import InvalidValueError
from avfusion.files import locked

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def make_spoken_questions(
    records: Iterable[Record], out_dir: str | Path, *, speak: Callable[[str, Path], object] | None = None
) -> list[Record]:
    """Converts records of OCR and VQA to ISQA: an audio file replaces the written question.

    Files are written atomically, so existing files are complete and reused: an interrupted run continues where it
    stopped. The file name contains a hash of the question. Another voice needs another folder.

    Args:
        records: records with an image and a question.
        out_dir: folder of the spoken questions; created if necessary.
        speak: any text-to-speech, called as ``speak(text, path)``, that writes a wav; :func:`espeak` by default.

    Returns:
        A record for each, in the same order, with the id ``TASK-ID``.

    Raises:
        InvalidValueError: a record without image or question, two with one id, or a file that is not a wav.

    Example:
        >>> import pathlib, tempfile, wave
        >>> from avfusion.aveb import Record, make_spoken_questions
        >>> def hum(text, path):  # a stand-in for a voice
        ...     with wave.open(str(path), "wb") as file:
        ...         file.setparams((1, 2, 16000, 0, "NONE", None))
        ...         file.writeframes(bytes(320 * len(text)))
        >>> written = Record(
        ...     id="7", task="vqa", image=pathlib.Path("n1.jpg"), question="Is it overcast?", references=("no",)
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [spoken] = make_spoken_questions([written], folder, speak=hum)
        >>> spoken.id, spoken.question, spoken.audio.suffix
        ('vqa-7', None, '.wav')
    """
    with locked(out_dir):
        return _spoken(records, Path(out_dir), espeak if speak is None else speak)


def _spoken(records: Iterable[Record], folder: Path, speak: Callable[[str, Path], object]) -> list[Record]:
    made: dict[str, Record] = {}
    for record in records:
        name = f"{record.task}-{record.id}"
        if record.image is None or not record.question:
            raise InvalidValueError(f"records: each must have an image and a question, {name!r:.80} has not")
        if name in made:
            raise InvalidValueError(f"records: ids must differ, found {name!r} twice")
        mark = hashlib.sha256(f"{name}\0{record.question}".encode()).hexdigest()[:12]
        audio = folder / f"{_UNSAFE.sub('_', name)[:80]}-{mark}.wav"
        if not audio.is_file():
            _write(record.question, speak, audio)
        made[name] = replace(record, id=name, task="isqa", question=None, audio=audio)
    return list(made.values())


def _write(text: str, speak: Callable[[str, Path], object], audio: Path) -> None:
    part = audio.with_name(f".{audio.stem}.part.wav")
    try:
        speak(text, part)
        start = part.read_bytes()[:12] if part.is_file() else b""
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            raise InvalidValueError(f"speak: must write a wav to {part}, found {start or 'no file'!r}")
        part.replace(audio)
    finally:
        part.unlink(missing_ok=True)


def espeak(text: str, path: Path, *, voice: str = "en-us", speed: int = 160) -> None:
    """Synthesises speech with eSpeak NG from the package espeakng-loader, without downloads.

    Args:
        text: the text to speak.
        path: the wav file to write, at 22.05 kHz.
        voice: name of a voice of eSpeak NG: ``"en-us"``, ``"gmw/en"`` (British), ``"en-us+m4"``, …
        speed: words per minute.

    Raises:
        ImportError: espeakng-loader is missing.
        InvalidValueError: an unknown voice, or an empty text.

    Example:
        >>> from functools import partial
        >>> from avfusion.aveb import espeak
        >>> british = partial(espeak, voice="gmw/en")  # goes to make_spoken_questions
    """
    from avfusion.aveb._synthesis import RATE, Voice, synthesise

    [samples] = synthesise([text], [Voice(voice, speed)]).values()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
