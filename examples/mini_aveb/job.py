"""The whole job: what the workplace prepares, training, the benchmark, and its report."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avfusion.aveb import read_records
from avfusion.aveb.mini import judge
from avfusion.aveb.runner import TaskScore, find_data, load_model, run_task, score_answers, write_report
from avfusion.files import locked, write_whole
from benchmarks.machine import describe
from examples.mini_aveb.answering import save
from examples.mini_aveb.fitting import fit
from examples.mini_aveb.scoring import metric_of
from examples.mini_aveb.settings import Settings
from examples.mini_aveb.variants import FULL
from examples.mini_aveb.workplace import Workplace

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "mini_aveb.json"
MODEL = "examples.mini_aveb.answering:load"


Scores = Mapping[str, TaskScore]


def run(out: Path, settings: Settings, *, publish: bool = False) -> dict[str, Any]:
    """Does everything that has not been done, and returns what it writes to ``results.json``, and to where results are
    published if asked.
    """
    with locked(out):
        return _run(Workplace(out, settings), publish)


def _run(place: Workplace, publish: bool) -> dict[str, Any]:
    out, settings, folder = place.out, place.settings, place.out / "model"
    towers = place.prepare()
    if not (folder / "variant.json").exists():  # written last
        with place.stage("training"):
            tokenizer = place.tokenizer()
            model = fit(towers, tokenizer, place.items("train"), FULL, settings, seed=settings.seed)
            save(model, tokenizer, FULL, folder)
    with place.stage("benchmark"):
        scores = _benchmark(place, folder)
    results = _results(place, folder, scores)
    for path in [out / "results.json"] + [RESULTS] * publish:
        write_whole(path, json.dumps(results, indent=1) + "\n")
    return results


def _benchmark(place: Workplace, folder: Path) -> Mapping[str, Scores]:
    """What ``run``, ``score`` and ``report`` do; answers that are there are not asked for again."""
    found: dict[str, dict[str, TaskScore]] = {}
    name, options, data = MODEL, [f"model={folder}"], [f"{place.data / 'test'}"]
    model = load_model(name, options)
    for title, blind in {"model": False, "blind": True}.items():
        found[title] = {}
        for task, path in find_data(data).items():
            answers = run_task(
                model,
                read_records(task, path),
                place.out / f"{title}_answers",
                settings={"model": name, "model_options": options, "limit": None},
                batch_size=32,
                blind=blind,
            )
            found[title][task] = score_answers(answers, judge=judge)
            print(f"{title}, {task}: {len(answers)} answers", flush=True)
    write_report(found, place.out / "report")
    return found


def _results(place: Workplace, folder: Path, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Of each task the model's figure, the blind model's, and that of the best answer that is always the same."""
    seen, blind = scores["model"], scores["blind"]
    same = place.always_the_same()
    tasks = {
        task: {
            "metric": (metric := metric_of(task)),
            **seen[task].scores[metric]._asdict(),
            "blind": blind[task].scores[metric].value,
            "always_the_same": same[task],
        }
        for task in seen
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
