"""One command from nothing to the report, so small that nothing is learnt; and again, when all is there."""

import json
from pathlib import Path

import pytest
import torch

from avfusion.aveb import read_records
from avfusion.aveb.mini import MAKERS
from avfusion.aveb.mini.card import blind_chance
from avfusion.aveb.runner import read_answers
from examples.mini_aveb.__main__ import main
from examples.mini_aveb.answering import MiniAnswerer, load
from examples.mini_aveb.data import collate, request_of
from examples.mini_aveb.settings import SMOKE
from examples.mini_aveb.train import answer
from examples.mini_aveb.workplace import Workplace


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", "/there/is/none")  # captions' Java metrics would take most of the time
        assert main(["--smoke", "--out", str(folder)]) == 0
    return folder


def test_all_eleven_tasks_are_run_and_reported(out: Path) -> None:
    results = json.loads((out / "results.json").read_text())
    assert results["tasks"].keys() == MAKERS.keys()
    for task, figures in results["tasks"].items():
        assert figures["items"] == SMOKE.test_items
        assert {"metric", "value", "interval", "blind", "always_the_same"} <= figures.keys()
        for name in ("model_answers", "blind_answers"):
            assert len(read_answers(out / name / f"{task}.jsonl")) == SMOKE.test_items
    report = (out / "report" / "report.md").read_text()
    assert "| model | blind |" in report
    assert sum(line.startswith("|") for line in report.splitlines()) == 2 + len(MAKERS)
    assert (out / "report" / "report.html").read_text().count("<svg") == 1
    assert results["seconds"].keys() == {
        "files",
        "towers",
        "tokens of train",
        "tokens of test",
        "training",
        "benchmark",
    }
    assert results["parameters"]["connector"] > 100_000
    assert {"commit", "hardware", "versions"} <= results.keys()


def test_the_constant_answer_scores_what_the_data_card_says(out: Path) -> None:
    for task, figures in json.loads((out / "results.json").read_text())["tasks"].items():
        records = read_records(task, out / "data" / "test" / f"{task}.jsonl")
        assert 100 * figures["always_the_same"] == pytest.approx(blind_chance(records)), task


def test_what_is_there_is_not_made_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> list[str]:
        raise AssertionError("asked again")

    monkeypatch.setenv("JAVA_HOME", "/there/is/none")
    monkeypatch.setattr(MiniAnswerer, "answer", never)
    files = [path for path in out.rglob("*") if path.suffix in (".mp4", ".png", ".safetensors", ".wav")]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(before) > 40
    assert main(["--smoke", "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_seed_needs_another_folder(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--smoke", "--out", str(out), "--seed", "3"]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "was begun with" in line


def test_the_saved_model_answers_from_files_as_from_kept_tokens(out: Path) -> None:
    answerer = load(str(out / "model"))
    items = Workplace(out, SMOKE).items("test")
    requests = [request_of(item.record, 0)[0] for item in items]
    with torch.no_grad():
        kept = answer(answerer.model, answerer.tokenizer, collate(items, answerer.variant.frame_rate), requests)
    assert answerer.answer(requests) == kept


def test_the_study_runs(out: Path) -> None:
    arguments = ["ablation", "--smoke", "--out", str(out), "--workers", "1", "--seeds", "1"]
    assert main([*arguments, "--variants", "full", "no synchronisation"]) == 0
    rows = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    assert [row["variant"]["name"] for row in rows] == ["full", "no synchronisation"]
    assert all(row["figures"].keys() == MAKERS.keys() for row in rows)
    assert "no synchronisation" in (out / "ablation.md").read_text()
