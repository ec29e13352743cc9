"""The study resumes, its figures are what they are said to be, and its page says what the figures say."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from avfusion.aveb.mini import MAKERS
from avfusion.aveb.runner import Answer
from avfusion.errors import InvalidValueError
from examples.mini_aveb import ablation, page
from examples.mini_aveb.scoring import GROUPS, figures, grouped, shares
from examples.mini_aveb.settings import SMOKE
from examples.mini_aveb.statistics import Estimate, Runs
from examples.mini_aveb.variants import FINDINGS, FULL, VARIANTS, Variant

Row = dict[str, Any]


def _row(seed: int, variant: Variant, share: float = 0.5) -> Row:
    by_task = dict.fromkeys(MAKERS, share)
    return {
        "seed": seed,
        "variant": asdict(variant),
        "figures": by_task,
        "shares": by_task,
        "tokens": 10.0,
        "parameters": 7,
        "seconds": 1.0,
    }


class _CutError(Exception):
    """The process is killed."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Runs that were made; nothing is trained."""
    made: list[tuple[int, str]] = []

    def run_one(seed: int, variant: Variant) -> Row:
        made.append((seed, variant.name))
        return _row(seed, variant)

    monkeypatch.setattr(ablation, "run_one", run_one)
    monkeypatch.setattr(ablation, "_begin", lambda *_: None)
    monkeypatch.setattr(ablation.Workplace, "prepare", lambda _: None)
    return made


def _study(out: Path, variants: dict[str, Variant] = VARIANTS, seeds: int = 2) -> list[Row]:
    return ablation.study(out, SMOKE, seeds=seeds, workers=1, variants=variants)


def test_a_study_goes_seed_by_seed(asked: list[tuple[int, str]], tmp_path: Path) -> None:
    rows = _study(tmp_path)
    assert asked == [(seed, name) for seed in range(2) for name in VARIANTS]
    assert [(row["seed"], row["variant"]["name"]) for row in rows] == asked


@pytest.mark.parametrize("cut", [0, 1, 7, 2 * len(VARIANTS) - 1])
def test_a_study_that_was_cut_goes_on(
    asked: list[tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    run_one = ablation.run_one

    def dying(seed: int, variant: Variant) -> Row:
        if len(asked) == cut:
            raise _CutError
        return run_one(seed, variant)

    monkeypatch.setattr(ablation, "run_one", dying)
    with pytest.raises(_CutError):
        _study(tmp_path)
    file = tmp_path / "runs.jsonl"
    assert len(file.read_text().splitlines()) == cut
    with file.open("a") as torn:
        torn.write('{"seed": 0, "vari')
    monkeypatch.setattr(ablation, "run_one", run_one)
    rows = _study(tmp_path)
    assert sorted(asked) == sorted((seed, name) for seed in range(2) for name in VARIANTS)  # each once
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows


def test_more_seeds_add_runs(asked: list[tuple[int, str]], tmp_path: Path) -> None:
    _study(tmp_path, seeds=1)
    asked.clear()
    assert len(_study(tmp_path, seeds=3)) == 3 * len(VARIANTS)
    assert {seed for seed, _ in asked} == {1, 2}


def test_runs_of_another_variant_of_that_name_are_refused(asked: list[tuple[int, str]], tmp_path: Path) -> None:
    _study(tmp_path)
    with pytest.raises(InvalidValueError, match="take another folder"):
        _study(tmp_path, {"full": Variant("full", window_frames=3)})


def test_settings_that_differ_are_refused(asked: list[tuple[int, str]], tmp_path: Path) -> None:
    _study(tmp_path)
    with pytest.raises(InvalidValueError, match="was begun with"):
        ablation.study(tmp_path, type(SMOKE)(), seeds=2, workers=1)


def _answer(task: str, right: str, said: str, **more: Any) -> Answer:
    return Answer(id=f"{right}-{said}", task=task, references=(right,), prediction=said, **more)


def test_right_answers_have_the_whole_share() -> None:
    answers = {
        "asr": [_answer("asr", "one two three", "one two three")],
        "ac": [_answer("ac", "a hum and then a beep", "a hum and then a beep"), _answer("ac", "a bell", "a bell")],
        "avm": [_answer("avm", "Yes", "yes"), _answer("avm", "No", "no")],
        "avsd": [_answer("avsd", "red circle", "red circle", question="What?")],
    }
    assert shares(answers) == pytest.approx(dict.fromkeys(answers, 1.0))
    assert figures(answers)["asr"] == 0
    assert figures(answers)["ac"] > 5


def test_shares_of_wrong_answers() -> None:
    answers = {
        "asr": [_answer("asr", "red left blue up", "red left")],
        "avsr": [_answer("avsr", "red", "no such words at all")],
        "avm": [_answer("avm", "Yes", "yes"), _answer("avm", "No", "yes")],
    }
    assert shares(answers) == pytest.approx({"asr": 0.5, "avsr": 0.0, "avm": 0.5})


def test_every_task_is_in_one_group() -> None:
    assert sorted(task for tasks in GROUPS.values() for task in tasks) == sorted(MAKERS)
    by_task = {task: float(place) for place, task in enumerate(MAKERS)}
    assert grouped(by_task)["all"] == 5
    assert grouped(by_task)["cross-modal"] == pytest.approx(
        sum(by_task[task] for task in ("avsr", "avsd", "isqa", "avssd", "avm")) / 5
    )


def test_intervals_are_of_students_t() -> None:
    assert Estimate.of([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.303 / math.sqrt(3), 3), rel=1e-3)
    assert Estimate.of([1.0, 1.0]) == (1.0, 0.0, 2)
    assert Estimate.of([4.0]).margin == math.inf
    assert [Estimate(mean, 1.0, 3).sign for mean in (1.5, 0.5, -0.5, -1.5)] == [1, 0, 0, -1]


def test_differences_are_of_the_same_seed() -> None:
    other = VARIANTS["no synchronisation"]
    rows = [_row(seed, FULL, 0.1 * seed + 0.4) for seed in range(3)]
    rows += [_row(seed, other, 0.1 * seed + 0.2) for seed in (2, 0, 1)]
    found = Runs(rows).difference("full", other.name, "all")
    assert found is not None
    assert found.mean == pytest.approx(0.2)
    assert found.margin == pytest.approx(0, abs=1e-9)
    assert Runs(rows).group("full", "all").margin > 0.2
    assert Runs(rows).difference("full", "λ = 1", "all") is None


@pytest.mark.parametrize(
    ("full", "less", "verdict"),
    [((0.8, 0.9), (0.2, 0.3), "shown"), ((0.2, 0.3), (0.8, 0.9), "reversed"), ((0.2, 0.9), (0.9, 0.2), "not shown")],
)
def test_the_page_says_what_the_figures_say(
    tmp_path: Path, full: tuple[float, float], less: tuple[float, float], verdict: str
) -> None:
    other = VARIANTS["no synchronisation"]
    rows = [_row(seed, FULL, share) for seed, share in enumerate(full)]
    rows += [_row(seed, other, share) for seed, share in enumerate(less)]
    results = page.results_of(rows, SMOKE, dict.fromkeys(MAKERS, 0.125))
    assert [found["verdict"] for found in results["findings"]] == [verdict]
    page.publish(results, tmp_path / "results.json", tmp_path / "page.md")
    assert json.loads((tmp_path / "results.json").read_text())["runs"] == rows
    text = (tmp_path / "page.md").read_text()
    assert f"| **{verdict}** |" in text
    assert "| always the same answer | 1.2 | 1.2 | 12.5 |" in text
    [finding] = [finding for finding in FINDINGS if finding.worse == other.name]
    assert finding.text in text
    for path in sorted((tmp_path / "_static").iterdir()):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert f"](_static/{path.name})" in text
