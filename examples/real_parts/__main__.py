"""``python -m examples.real_parts`` trains and examines; ``python -m examples.real_parts ask FILE QUESTION`` asks."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from avfusion import CheckpointError, InvalidValueError, MediaError
from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor, conversation
from examples.real_parts.arms import ARMS
from examples.real_parts.examine import LONGEST
from examples.real_parts.job import FORMS, Settings, run
from examples.real_parts.model import load_audio_encoder, to_model

OUT = Path("runs/real_parts")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.real_parts", description="A pretrained language model learns to watch and listen."
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder for parts, clips, models and results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language-model", help="name on the Hub, or directory (SmolLM2-135M-Instruct, from PyPI)")
    parser.add_argument("--visual-encoder", help="name on the Hub, or directory (EfficientNet-Lite0, from PyPI)")
    parser.add_argument("--clips", type=int, default=800, help="training clips")
    parser.add_argument("--held-out", type=int, default=100, help="held-out clips")
    parser.add_argument("--encoder-steps", type=int, default=300)
    parser.add_argument("--align-steps", type=int, default=250)
    parser.add_argument("--steps", type=int, default=300, help="of LoRA and connector")
    parser.add_argument("--live", type=int, default=4, help="held-out clips to watch live")
    parser.add_argument(
        "--questions", choices=sorted(FORMS), default="instant", help="about an instant, or in free form too"
    )
    parser.add_argument(
        "--arms", nargs="+", choices=sorted(ARMS), default=["synchronised", "baseline"], metavar="ARM",
        help=f"what to train and compare, each on a core of its own: {', '.join(ARMS)}",
    )  # fmt: skip
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asking = parser.add_subparsers(dest="command").add_parser("ask", help="ask the trained model about a media file")
    asking.add_argument("file", type=Path)
    asking.add_argument("question")
    asking.add_argument("--out", type=Path, default=OUT, help="folder of the training run")
    asking.add_argument("--seed", type=int, default=0)
    found = parser.parse_args(arguments)
    if (found.language_model is None) != (found.visual_encoder is None):
        parser.error("--language-model and --visual-encoder: give both, or neither")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = vars(parse(arguments))
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.pop("command") == "ask":
        folder = options["out"] / f"seed-{options['seed']}"
        try:
            print(ask(folder, options["file"], options["question"], options["device"]))
        except (MediaError, CheckpointError, InvalidValueError, OSError) as error:
            print(error, file=sys.stderr)
            return 2
    else:
        try:
            show(run(Settings(**options)))
        except InvalidValueError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


def ask(folder: Path, file: Path, question: str, device: str = "cpu") -> str:
    """The trained model's answer about any media file."""
    model = AudioVisualLanguageModel.from_pretrained(
        folder / "synchronised" / "trained", audio_encoders={"audio": load_audio_encoder(folder / "whisper")}
    )
    model = model.to(device).eval()
    processor = AudioVisualProcessor.from_model(model)
    inputs = to_model(processor.apply_chat_template(conversation(question, video=str(file))), model)
    ids = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
    return str(processor.tokenizer.decode(ids[0], skip_special_tokens=True))


def show(results: dict[str, Any]) -> None:
    for name, found in results["arms"].items():
        print(f"\n{name}, {found['questions']} questions about clips that the model has not seen:")
        for condition, shares in found["accuracy"].items():
            print(f"  {condition:<12}" + "  ".join(f"{kind} {value:.1%}" for kind, value in shares.items()))
        if "text" in found:
            print(f"  text answers: perplexity under the base model {found['text']['ratio']:.3f} of its own answers'")
        if "live" in found:
            asked = sum(one["asked"] for one in found["live"])
            print(f"  live: {sum(one['equal'] for one in found['live'])} of {asked} answers equal those about the file")


if __name__ == "__main__":
    sys.exit(main())
