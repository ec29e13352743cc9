"""Runs: nothing lost, nothing twice, the same file however a run went."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avfusion import InvalidTypeError, InvalidValueError
from avfusion.aveb import Record
from avfusion.aveb.runner import Answer, read_answers, run_task
from tests.aveb.runner.models import Hashing, choices, records

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from avfusion.aveb.runner import run_task
from tests.aveb.runner.models import Hashing, records
model = Hashing(pause=0.02)
run_task(model, records(), sys.argv[1], batch_size=int(sys.argv[2]))
print(*(request.id for request in model.asked))
"""


def start(out: Path, batch_size: int, stdout: int = subprocess.DEVNULL, **more: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-c", SCRIPT, str(out), str(batch_size)]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=stdout)


@pytest.fixture
def whole(tmp_path: Path) -> str:
    """The file of a run that nothing disturbed."""
    run_task(Hashing(), records(), tmp_path / "whole")
    return (tmp_path / "whole" / "asr.jsonl").read_text()


def test_a_run_killed_at_any_point_goes_on_to_the_same_file(tmp_path: Path, whole: str) -> None:
    out, choose, kills, wanted = tmp_path / "out", random.Random(5), 0, 1
    while not (out / "asr.jsonl").is_file():
        process = start(out, 2)
        while process.poll() is None:
            lines = sum(len(read_answers(part, torn=True)) for part in out.glob("asr.part*.jsonl"))
            if kills < 3 and lines >= wanted:
                process.send_signal(signal.SIGKILL)
                kills, wanted = kills + 1, lines + choose.randint(1, 6)
                process.wait()
            time.sleep(0.002)
    assert kills == 3
    assert (out / "asr.jsonl").read_text() == whole
    assert sorted(path.name for path in out.iterdir()) == ["asr.jsonl", "settings.json"]


def test_two_runs_in_one_folder_are_noticed(tmp_path: Path, whole: str) -> None:
    out = tmp_path / "out"
    process = start(out, 2)
    while not any(out.glob("asr.part*.jsonl")):
        time.sleep(0.01)
    with pytest.raises(InvalidValueError, match=f"out: .*one process at a time, found .* by process {process.pid}"):
        run_task(Hashing(), records(), out)
    assert process.wait() == 0
    assert (out / "asr.jsonl").read_text() == whole
    run_task(Hashing(), records(), out)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_line_is_asked_again(tmp_path: Path, whole: str, cut: int) -> None:
    out = tmp_path / "out"
    run_task(Hashing(), records(), out)
    lines = whole.splitlines(keepends=True)
    (out / "asr.jsonl").unlink()
    (out / "asr.part0.jsonl").write_text("".join(lines[:5]) + lines[5][:cut])
    model = Hashing()
    run_task(model, records(), out)
    assert [request.id for request in model.asked] == [record.id for record in records()[5:]]
    assert (out / "asr.jsonl").read_text() == whole


def test_what_is_answered_is_not_asked_again(tmp_path: Path) -> None:
    first = run_task(Hashing(), records(), tmp_path)
    again = Hashing()
    assert run_task(again, records(), tmp_path) == first
    assert again.asked == []


def test_two_processes_write_the_file_of_one(tmp_path: Path, whole: str) -> None:
    out = tmp_path / "out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    processes = [start(out, 3, subprocess.PIPE, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    asked = [process.communicate(timeout=120)[0].decode().split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(asked[0] + asked[1]) == sorted(record.id for record in records())
    assert len(asked[0]) == len(asked[1])
    assert (out / "asr.jsonl").read_text() == whole


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_batches_do_not_matter(tmp_path: Path, whole: str, batch_size: int) -> None:
    run_task(Hashing(), records(), tmp_path / "out", batch_size=batch_size)
    assert (tmp_path / "out" / "asr.jsonl").read_text() == whole


def test_other_settings_or_records_are_refused(tmp_path: Path) -> None:
    run_task(Hashing(), records(), tmp_path, settings={"model": "a"})
    before = (tmp_path / "asr.jsonl").read_text()
    for given, found in (
        ({"settings": {"model": "b"}}, "model='a', found 'b'"),
        ({"settings": {"model": "a"}, "seed": 1}, "seed=0, found 1"),
        ({"settings": {"model": "a"}, "blind": True}, "blind=False, found True"),
        ({}, "model='a', found None"),
    ):
        with pytest.raises(InvalidValueError, match=f"out: .* holds answers made with {found}"):
            run_task(Hashing(), records(), tmp_path, **given)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="other records of asr"):
        run_task(Hashing(), records(5), tmp_path, settings={"model": "a"})
    assert (tmp_path / "asr.jsonl").read_text() == before


def test_candidates_are_shown_in_another_order_that_a_seed_decides(tmp_path: Path) -> None:
    one, same, other = (
        run_task(Hashing(), choices(20), tmp_path / str(number), seed=seed) for number, seed in enumerate((0, 0, 1))
    )
    assert one == same
    assert [answer.candidates for answer in one] != [answer.candidates for answer in other]
    assert {answer.published_place for answer in one} == {2}
    assert len({(answer.candidates or ()).index("option 2") for answer in one}) > 2


def test_a_blind_model_gets_no_media(tmp_path: Path) -> None:
    model = Hashing()
    cut = [Record(id="1", task="asr", audio=Path("1.wav"), references=("a",), span=(0.0, 1.0), needs_cut=True)]
    run_task(model, cut, tmp_path / "blind", blind=True)
    run_task(model, cut, tmp_path / "seeing")
    blind, seeing = model.asked
    assert (blind.video, blind.audio, blind.image, blind.span) == (None, None, None, None)
    assert (seeing.audio, seeing.span) == (Path("1.wav"), (0.0, 1.0))
    assert blind.prompt == seeing.prompt


def test_a_broken_record_is_told_and_nothing_lost(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"asr r7, a.json\[7\]: 7.wav: broken"):
        run_task(Hashing(broken=["r7"]), records(), tmp_path, batch_size=4)
    said = read_answers(tmp_path / "asr.part0.jsonl")
    assert [answer.id for answer in said] == [f"r{number}" for number in range(7)]
    answers = run_task(Hashing(broken=["r7"]), records(), tmp_path, batch_size=4, skip_bad=True)
    assert [answer.id for answer in answers if answer.error] == ["r7"]
    assert answers[7].prediction == ""
    assert len(answers) == 24


class Wrong:
    def __init__(self, said: object) -> None:
        self.said = said

    def answer(self, requests: object) -> object:
        return self.said


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (["a"], InvalidValueError, "to each of 2 requests, found 1"),
        ("ab", InvalidValueError, "to each of 2 requests, found a text"),
        (["a", None], InvalidTypeError, "must answer with text, found NoneType"),
    ],
)
def test_a_model_that_breaks_its_word_is_told_even_when_bad_records_are_skipped(
    tmp_path: Path, said: object, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        run_task(Wrong(said), records(2), tmp_path, batch_size=2, skip_bad=True)  # type: ignore[arg-type]


def test_records_of_one_task_with_ids_that_differ() -> None:
    with pytest.raises(InvalidValueError, match="records: must be of one task, found"):
        run_task(Hashing(), records(1) + choices(1), "unused")
    with pytest.raises(InvalidValueError, match="records: ids must differ"):
        run_task(Hashing(), records(1) * 2, "unused")


def test_a_line_that_is_no_answer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "asr.jsonl"
    good = Answer(id="1", task="asr", prediction="a", references=("a",)).line()
    path.write_text(good + json.dumps({"id": "2"}) + "\n")
    with pytest.raises(InvalidValueError, match=r"asr\.jsonl:2: must be an answer"):
        read_answers(path)
