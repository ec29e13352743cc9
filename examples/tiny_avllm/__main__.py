"""``python -m examples.tiny_avllm`` trains; ``python -m examples.tiny_avllm ask FILE QUESTION`` asks."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.utils import logging

from avfusion import CheckpointError, MediaError
from examples.tiny_avllm.ask import ask
from examples.tiny_avllm.job import Settings, run

OUT = Path("runs/tiny_avllm")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.tiny_avllm", description="Trains a tiny audio-visual LLM."
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder for files, model and results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=1000, help="training files")
    parser.add_argument("--held-out", type=int, default=200, help="held-out files")
    parser.add_argument("--encoder-steps", type=int, default=120)
    parser.add_argument("--connector-steps", type=int, default=60)
    parser.add_argument("--steps", type=int, default=340, help="of connector and language model")
    parser.add_argument("--no-twin", dest="twin", action="store_false", help="leave the unsynchronised twin out")
    asking = parser.add_subparsers(dest="command").add_parser("ask", help="ask the trained model about a media file")
    asking.add_argument("file", type=Path)
    asking.add_argument("question")
    asking.add_argument("--out", type=Path, default=OUT, help="folder of the training run")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = vars(parse(arguments))
    torch.set_num_threads(1)  # the model is so small that a second thread gains nothing; the twin has the other core
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.pop("command") == "ask":
        try:
            print(ask(options["out"] / "model", options["file"], options["question"]))
        except (MediaError, CheckpointError) as error:
            print(error, file=sys.stderr)
            return 2
    else:
        run(Settings(**options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
