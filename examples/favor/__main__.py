"""``python -m examples.favor COMMAND``: chat, train, and what belongs to them."""

import argparse
import importlib
import logging as standard_logging
import sys
import warnings
from collections.abc import Sequence

from transformers.utils import logging

from avfusion import InvalidTypeError, InvalidValueError

# Each module has add_arguments(parser) and run(options) -> exit code; only the one that is asked for is imported.
COMMANDS = {
    "chat": "ask about files, once or in a dialogue, or answer a whole JSONL",
    "app": "the same in a browser, with a timeline of what was attended to",
    "train": "train connector and LoRA",
    "assemble": "put pretrained parts together: a language model, a vision model, Whisper",
    "cache": "encode all clips of a data set once",
    "convert": "turn a released checkpoint into this model's format",
}


def main(arguments: Sequence[str] | None = None) -> int:
    standard_logging.getLogger("bitsandbytes").setLevel(standard_logging.ERROR)  # it tells what it lacks when imported
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # peft's business
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m examples.favor", description="FAVOR: an LLM that watches and listens."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if given[:1] == [name]:
            importlib.import_module(f"examples.favor.{name}").add_arguments(command)
    options = parser.parse_args(given)
    logging.set_verbosity_error()
    try:
        return int(importlib.import_module(f"examples.favor.{options.command}").run(options))
    except (InvalidValueError, InvalidTypeError, OSError) as error:
        print(str(error).splitlines()[0] if str(error) else repr(error), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
