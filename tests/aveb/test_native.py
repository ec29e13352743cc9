"""Records written here are read back as they were."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfusion import InvalidValueError
from avfusion.aveb import Record, RecordError, read_records, write_records

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip)


@given(
    references=st.lists(words, min_size=1, max_size=3),
    question=st.none() | words,
    history=st.lists(st.tuples(words, words), max_size=2),
    span=st.none() | st.tuples(st.floats(0, 10), st.floats(11, 20)),
    cut=st.booleans(),
    place=st.integers(0, 1),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    references: list[str],
    question: str | None,
    history: list[tuple[str, str]],
    span: tuple[float, float] | None,
    cut: bool,
    place: int,
) -> None:
    folder = tmp_path_factory.mktemp("records")
    record = Record(
        id="one",
        task="avssd",
        references=tuple(references),
        question=question,
        history=tuple(history),
        span=span,
        needs_cut=cut and span is not None,
        video=folder / "media" / "a.mp4",
        audio=folder / "media" / "deep" / "a.wav",
    )
    choice = Record(
        id="two",
        task="avssd",
        image=folder / "b.png",
        audio=folder / "c.wav",
        candidates=("x", "y"),
        answer_index=place,
        references=("xy"[place],),
    )
    write_records([record, choice], folder / "avssd.jsonl")
    read = read_records("avssd", folder / "avssd.jsonl")
    assert read.layout == "records"
    for index, (found, written) in enumerate(zip(read, [record, choice], strict=True)):
        assert (found.source, found.index) == (folder / "avssd.jsonl", index)
        for name in ("id", "references", "question", "history", "span", "needs_cut", "video", "audio", "image"):
            assert getattr(found, name) == getattr(written, name)
        assert (found.candidates, found.answer_index) == (written.candidates, written.answer_index)


def test_media_elsewhere_are_refused(tmp_path: Path) -> None:
    record = Record(id="1", task="asr", audio=Path("/elsewhere/1.wav"), references=("a",))
    with pytest.raises(InvalidValueError, match="audio: must be below"):
        write_records([record], tmp_path / "asr.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "1", "task": "avm", "references": ["a"], "audio": "1.wav"}', 'task: must be "asr", found'),
        ('{"id": "1", "task": "asr", "references": ["a"], "audio": 3}', "audio: must be a path, found 3"),
        ('{"id": "1", "task": "asr", "references": "a", "audio": "1.wav"}', "references: must be text"),
        ('{"id": "1", "task": "asr", "references": ["a"], "sound": "1.wav"}', "only fields of a record"),
        ('{"id": "1", "task": "asr", "references": ["a"]}', "media: must have at least one"),
    ],
)
def test_bad_records_are_told(tmp_path: Path, line: str, message: str) -> None:
    good = '{"id": "0", "task": "asr", "references": ["a"], "audio": "0.wav"}\n'
    path = tmp_path / "asr.jsonl"
    path.write_text(good + line + "\n")
    with pytest.raises(RecordError, match=rf"asr.jsonl\[1\]: .*{message}"):
        read_records("asr", path)
    assert [record.id for record in read_records("asr", path, skip_bad=True)] == ["0"]
