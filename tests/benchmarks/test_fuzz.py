"""Broken files end in a declared error or are read; and what would not is noticed."""

import json
from pathlib import Path

import pytest

from benchmarks.fuzz.__main__ import FINE, Worker, main
from benchmarks.fuzz.mutations import mutated
from benchmarks.fuzz.seeds import seeds


def test_broken_files_are_read_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fuzz.json"
    assert main(["--files", "200", "--seed", "7", "--out", str(out), "--offenders", str(tmp_path / "bad")]) == 0
    found = json.loads(out.read_text())
    assert sum(found["outcomes"][kind] for kind in FINE) == 200
    assert found["outcomes"]["ok"] > 20
    assert found["outcomes"]["media_error"] > 20
    assert not (tmp_path / "bad").exists()


def test_drawn_files_are_the_same_each_time_and_differ_from_each_other() -> None:
    whole = seeds()
    drawn = [mutated(whole, 3, index) for index in range(200)]
    assert drawn == [mutated(whole, 3, index) for index in range(200)]
    assert len({data for _, data in drawn}) > 150
    assert len({name for name, _ in drawn}) > 20


def test_a_process_that_ends_or_hangs_is_noticed_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(seeds()["pcm_s16le.wav"])
    worker = Worker(memory=4096.0, timeout=60.0)
    assert worker.read(path).kind == "ok"
    assert worker.read(tmp_path / "none.wav").kind == "undeclared"  # the harness's own error shows too
    worker._timeout = 0.0
    assert worker.read(path).kind == "timeout"
    worker._timeout = 60.0
    assert worker.read(path).kind == "ok"
    assert worker._process is not None
    worker._process.kill()
    worker._process.wait()
    assert worker.read(path).kind == "crash"
