"""``python -m avfusion.aveb COMMAND``: run a model through the benchmark, score what it said, report."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from avfusion.errors import InvalidTypeError, InvalidValueError

# Each module has add_arguments(parser) and run(options) -> exit code; only the one that is asked for is imported.
COMMANDS = {
    "run": "ask a model about every record of the tasks",
    "score": "figures of a run, or of a file of generated answers",
    "mini": "generate the eleven tasks in small, without downloads",
    "report": "figures of runs beside the published ones, as Markdown and as a page",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 2, and one line on stderr, for what a user can mend."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m avfusion.aveb", description="The AVEB benchmark.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if given[:1] == [name]:
            importlib.import_module(f"avfusion.aveb.commands.{name}").add_arguments(command)
    options = parser.parse_args(given)
    try:
        return int(importlib.import_module(f"avfusion.aveb.commands.{options.command}").run(options))
    except (InvalidValueError, InvalidTypeError, OSError, ImportError) as error:
        sys.stderr.write((str(error).splitlines() or [repr(error)])[0] + "\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
