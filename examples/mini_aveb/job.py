"""The whole job: what the workplace prepares, training, the benchmark, and its report."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avfusion.aveb.__main__ import main as benchmark
from benchmarks.machine import describe
from examples.mini_aveb.answering import save
from examples.mini_aveb.fitting import fit
from examples.mini_aveb.scoring import constants, metric_of
from examples.mini_aveb.settings import Settings
from examples.mini_aveb.variants import FULL
from examples.mini_aveb.workplace import Workplace

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "mini_aveb.json"
JUDGE = "avfusion.aveb.mini:judge"
MODEL = "examples.mini_aveb.answering:load"


def run(out: Path, settings: Settings, *, publish: bool = False) -> dict[str, Any]:
    """Does everything that has not been done, and returns what it writes to ``results.json``, and to where results are
    published if asked.
    """
    place, folder = Workplace(out, settings), out / "model"
    towers = place.prepare()
    if not (folder / "variant.json").exists():  # written last
        with place.stage("training"):
            tokenizer = place.tokenizer()
            model = fit(towers, tokenizer, place.items("train"), FULL, settings, seed=settings.seed)
            save(model, tokenizer, FULL, folder)
    with place.stage("benchmark"):
        _benchmark(place, folder)
    results = _results(place, folder)
    for path in [out / "results.json"] + [RESULTS] * publish:
        path.write_text(json.dumps(results, indent=1) + "\n")
    return results


def _benchmark(place: Workplace, folder: Path) -> None:
    """The commands that anyone would give; answers that are there are not asked for again."""
    asked = ["--data", f"{place.data / 'test'}", "--batch-size", "32"]
    model = ["--model", MODEL, "--model-option", f"model={folder}"]
    answers = {"model": [], "blind": ["--blind"]}
    for name, more in answers.items():
        _command("run", *model, *asked, *more, "--out", f"{place.out / name}_answers")
        _command("score", f"{place.out / name}_answers", "--judge", JUDGE, "--out", f"{place.out / name}.json")
    folders = [f"{place.out / name}_answers" for name in answers]
    _command("report", *folders, "--names", *answers, "--judge", JUDGE, "--out", f"{place.out / 'report'}")


def _command(*arguments: str) -> None:
    if code := benchmark(arguments):
        raise SystemExit(code)  # it has said why


def _results(place: Workplace, folder: Path) -> dict[str, Any]:
    """Of each task the model's figure, the blind model's, and that of the best answer that is always the same."""
    seen, blind = (json.loads((place.out / f"{name}.json").read_text()) for name in ("model", "blind"))
    same = constants({task: [record for record, _ in place.pairs("test") if record.task == task] for task in seen})
    tasks = {}
    for task in seen:
        metric = metric_of(task)
        tasks[task] = {
            "metric": metric,
            **seen[task]["scores"][metric],
            "blind": blind[task]["scores"][metric]["value"],
            "always_the_same": same[task],
        }
    return {
        "command": "python -m examples.mini_aveb",
        "note": "Figures are 0 to 1, CIDEr-D 0 to 10; of wer, less is better.",
        "settings": asdict(place.settings),
        "tasks": tasks,
        "parameters": json.loads((folder / "parameters.json").read_text()),
        "seconds": place.seconds(),
        **describe("cpu"),
    }
