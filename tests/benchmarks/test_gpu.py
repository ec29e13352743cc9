"""A part that hangs, fails or leaves processes behind is ended in its time, and what it said is kept."""

import subprocess
import time
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.__main__ import SUITES

HANGS = "import subprocess, sys, time; print('so far', flush=True); time.sleep(600)"
LEAVES = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"


def given(*parts: tuple[str, str, float, bool]) -> list[gpu.Part]:
    return [gpu.Part(name, ("-c", code), seconds, beside=beside) for name, code, seconds, beside in parts]


def test_each_part_is_kept_whatever_becomes_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = given(
        ("beside", "import time; time.sleep(0.5); print('at once')", 60.0, True),
        ("hangs", HANGS, 0.5, False),
        ("fails", "print('wrong'); raise SystemExit(3)", 60.0, False),
        ("works", "print('right')", 60.0, True),
    )
    monkeypatch.setattr(gpu, "parts", lambda *_, **__: parts)
    begin = time.monotonic()
    assert gpu.main(["--out", str(tmp_path)]) == 1
    assert time.monotonic() - begin < 60
    said = {line.split(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "hangs: stopped after 0.5 s" in said["hangs"]
    assert "exit 3" in said["fails"]
    assert said["fails"].endswith("wrong")
    assert "exit 0" in said["works"]
    assert said["beside"].endswith("at once")
    assert (tmp_path / "hangs.log").read_text().startswith("so far")
    assert gpu.main(["--out", str(tmp_path), "--only", "works", "beside"]) == 0


def test_what_a_part_leaves_behind_is_ended(tmp_path: Path) -> None:
    (part,) = given(("leaves", LEAVES, 60.0, False))
    line = gpu.Running(part, tmp_path).end()
    pid = int(line.rsplit(" ", 1)[1])
    for _ in range(100):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], check=False, capture_output=True, text=True)
        if state.stdout.strip()[:1] in ("", "Z"):
            return
        time.sleep(0.05)
    raise AssertionError(f"{pid} still runs")


def test_all_parts_fit_nine_minutes_and_are_what_there_is(tmp_path: Path) -> None:
    parts = gpu.parts("cpu", smoke=True, out=tmp_path)
    assert sum(part.seconds for part in parts if not part.beside) <= 9 * 60
    assert {part.name for part in parts} == {"tests_cpu", "tests_cuda", *SUITES} - {"startup"}  # which needs no GPU
    for part in parts:
        for argument in part.arguments:
            if argument.startswith("tests/"):
                assert (gpu.ROOT / argument).exists()
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path), "--only", "nothing"])


def test_a_suite_is_run_as_a_part(tmp_path: Path) -> None:
    part = next(part for part in gpu.parts("cpu", smoke=True, out=tmp_path) if part.name == "growth")
    quick = "from benchmarks import __main__, growth; growth.peak_bytes = lambda *_, **__: 1"
    code = f"{quick}; __main__.main({list(part.arguments[2:])})"
    line = gpu.Running(part._replace(arguments=("-c", code)), tmp_path).end()
    assert "exit 0" in line, (tmp_path / "growth.log").read_text()
    assert (tmp_path / "growth.json").exists()
