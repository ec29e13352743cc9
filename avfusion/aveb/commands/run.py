"""``run``: a model through tasks."""

import argparse
import sys
from pathlib import Path

from avfusion.aveb.readers import read_records
from avfusion.aveb.runner import find_data, load_model, run_task
from avfusion.errors import InvalidValueError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add = parser.add_argument
    add("--model", required=True, help="PACKAGE.MODULE:CALLABLE, or hf:NAME for a multimodal model of transformers")
    add("--model-option", action="append", default=[], metavar="NAME=VALUE", help="for the model; may be repeated")
    add("--tasks", nargs="+", default=[], metavar="TASK", help="(all for which there are data)")
    add(
        "--data",
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders with TASK.jsonl, TASK.json, TASK.csv or a folder TASK; or TASK=PATH",
    )
    add("--media-root", metavar="DIR", help="where the media are (beside the records)")
    add("--out", required=True, metavar="DIR", help="where answers are kept; a run that was cut goes on")
    add("--batch-size", type=int, default=1, metavar="N", help="requests at once (1)")
    add("--limit", type=int, metavar="N", help="the first N records of each task")
    add("--seed", type=int, default=0, help="of the order in which candidates are shown (0)")
    add("--blind", action="store_true", help="withhold the media: what the questions alone give away")
    add("--skip-bad", action="store_true", help="go on after a record that cannot be read or asked, and write down why")


def run(options: argparse.Namespace) -> int:
    """Asks, and says where the answers are."""
    if options.limit is not None and options.limit < 1:
        raise InvalidValueError(f"limit: must be at least 1, found {options.limit}")
    sources = find_data(options.data, options.tasks)
    tasks = {
        task: read_records(task, path, media_root=options.media_root, skip_bad=options.skip_bad)
        for task, path in sources.items()
    }
    model = load_model(options.model, options.model_option)
    settings = {"model": options.model, "model_options": sorted(options.model_option), "limit": options.limit}
    for task, records in tasks.items():
        for bad in records.skipped:
            sys.stderr.write(f"skipped {bad}\n")
        answers = run_task(
            model,
            records[: options.limit],
            options.out,
            settings=settings,
            batch_size=options.batch_size,
            seed=options.seed,
            blind=options.blind,
            skip_bad=options.skip_bad,
            progress=True,
        )
        failed = sum(answer.error is not None for answer in answers)
        sys.stdout.write(f"{task}: {len(answers)} answers" + f", {failed} failed" * (failed > 0) + "\n")
    sys.stdout.write(f"{Path(options.out)}\n")
    return 0
