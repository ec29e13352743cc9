"""``python -m examples.mini_aveb`` trains the reference model and reports it; ``… ablation`` changes parts of it."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from transformers.utils import logging

from avfusion.errors import InvalidValueError
from examples.mini_aveb import ablation, job, page
from examples.mini_aveb.settings import SMOKE, STUDY, WHOLE, Settings
from examples.mini_aveb.variants import VARIANTS
from examples.mini_aveb.workplace import Workplace


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.mini_aveb",
        description="Trains a tiny audio-visual language model on mini-AVEB and puts it through the benchmark.",
    )
    _add_common(parser, "runs/mini_aveb", WHOLE)
    study = parser.add_subparsers(dest="command").add_parser(
        "ablation", help="train it again and again with a part taken away or changed, and report what each buys"
    )
    _add_common(study, "runs/mini_aveb_ablation", STUDY)
    study.add_argument("--seeds", type=int, default=3, help="runs of each variant (%(default)s)")
    study.add_argument("--variants", nargs="+", choices=[*VARIANTS], default=[*VARIANTS], metavar="NAME", help="(all)")
    study.add_argument("--workers", type=int, default=2, help="processes, one core each (%(default)s)")
    return parser.parse_args(arguments)


def _add_common(parser: argparse.ArgumentParser, out: str, settings: Settings) -> None:
    parser.add_argument("--out", type=Path, default=Path(out), help="folder; one that was cut goes on (%(default)s)")
    parser.add_argument("--smoke", action="store_true", help="everything, so small that nothing is learnt")
    parser.add_argument("--publish", action="store_true", help="write what is kept in the repository, too")
    for field in fields(settings):
        name = field.name.replace("_", "-")
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"({getattr(settings, field.name)})")
    parser.set_defaults(settings=settings)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(1)  # the model is so small that a second thread gains nothing
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    given = {field.name: getattr(options, field.name) for field in fields(Settings)}
    base = SMOKE if options.smoke else options.settings
    settings = replace(base, **{name: value for name, value in given.items() if value is not None})
    try:
        if options.command == "ablation":
            variants = {name: VARIANTS[name] for name in options.variants}
            rows = ablation.study(
                options.out, settings, seeds=options.seeds, workers=options.workers, variants=variants
            )
            results = page.results_of(rows, settings, Workplace(options.out, settings).always_the_same())
            page.publish(results, options.out / "results.json", options.out / "ablation.md")
            if options.publish:
                page.publish(results)
        else:
            job.run(options.out, settings, publish=options.publish)
    except InvalidValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
