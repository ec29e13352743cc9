"""The command line, as a user meets it."""

import json
from pathlib import Path

import pytest

from avfusion.aveb import write_records
from avfusion.aveb.__main__ import main
from tests.aveb.runner.models import choices, records

MODEL = ["--model", "tests.aveb.runner.models:Hashing"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for rows in (records(4), choices(4)):
        placed = [
            type(row)(
                **{
                    **{name: getattr(row, name) for name in ("id", "task", "references", "question", "candidates")},
                    "answer_index": row.answer_index,
                    **{kind: folder / path for kind in ("audio", "video") if (path := getattr(row, kind)) is not None},
                }
            )
            for row in rows
        ]
        write_records(placed, folder / f"{rows[0].task}.jsonl")
    return folder


def test_run_score_report(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeing, blind = str(tmp_path / "seeing"), str(tmp_path / "blind")
    assert main(["run", *MODEL, "--data", str(data), "--out", seeing, "--model-option", "pause=0.0"]) == 0
    assert main(["run", *MODEL, "--data", str(data), "--out", blind, "--blind"]) == 0
    assert "asr: 4 answers\nvideo_qa: 4 answers" in capsys.readouterr().out
    assert main(["score", seeing, "--out", str(tmp_path / "scores.json"), "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert "Speech recognition (ASR) | wer ↓ | 4 |" in printed
    assert "video_qa: always option C, as published: 100.0" in printed
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {*scores} == {"asr", "video_qa"}
    assert main(["report", seeing, blind, "--out", str(tmp_path / "report"), "--resamples", "50"]) == 0
    assert "| seeing | blind |" in (tmp_path / "report" / "report.md").read_text()
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


def test_chosen_tasks_and_a_limit(data: Path, tmp_path: Path) -> None:
    given = ["--data", f"asr={data / 'asr.jsonl'}", "--tasks", "ASR", "--limit", "2", "--out", str(tmp_path / "out")]
    assert main(["run", *MODEL, *given]) == 0
    assert len((tmp_path / "out" / "asr.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["run", *MODEL, "--data", "nowhere", "--out", "o"], "data: must be a folder, or TASK=PATH, found 'nowhere'"),
        (["run", "--model", "nothing", "--data", "{data}", "--out", "o"], "model: must be PACKAGE.MODULE:CALLABLE"),
        (["run", "--model", "no.such:f", "--data", "{data}", "--out", "o"], "model: cannot find no.such:f"),
        (["run", *MODEL, "--model-option", "x", "--data", "{data}", "--out", "o"], "model-option: must be NAME=VALUE"),
        (["run", *MODEL, "--model-option", "x=1", "--data", "{data}", "--out", "o"], "model-option: .* does not take"),
        (["run", *MODEL, "--data", "{data}", "--tasks", "sing", "--out", "o"], "task: must be one of"),
        (["run", *MODEL, "--data", "{data}", "--tasks", "avm", "--out", "o"], "data: must hold avm.jsonl"),
        (["run", *MODEL, "--data", "{data}", "--limit", "0", "--out", "o"], "limit: must be at least 1, found 0"),
        (["score", "{data}/nothing.json"], "path: cannot read"),
        (["score", "{data}"], "must be an answer|does not say its task"),
        (["report", "{data}", "{data}", "--names", "a", "a"], "names: must differ and be 2"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    data: Path, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([part.replace("{data}", str(data)) for part in given]) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    import re

    assert re.search(message, captured.err)
