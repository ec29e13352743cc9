"""``python -m examples.favor assemble``: pretrained parts to a directory that holds a model of them."""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from avfusion import InvalidValueError
from avfusion.files import disk_errors, new_folder
from examples.favor.cache import OPTION_HELP, parse_options
from examples.favor.parts import assemble
from examples.favor.presets import PROMPTS, Preset, preset_of, read_preset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--preset", help="parts and options of this preset, a name or a file; what is given beside it goes first")
    add("--text", metavar="NAME", help="the language model: a name on the hub, or a directory")
    add("--vision", metavar="NAME", help="the vision model, of transformers or timm, or InstructBLIP")
    add("--audio", metavar="NAME", help="Whisper")
    add("--events", metavar="NAME", help="a second audio model (AST, Wav2Vec2 and their kin)")
    add("--image-size", type=int, metavar="N", help="height and width of the vision model's input (timm)")
    add("--prompt", choices=PROMPTS, help="chat template: the language model's own, or FAVOR's published prompt")
    add("--media-token", metavar="TOKEN", help="token that keeps a place for an embedding (one is chosen)")
    add("--option", action="append", default=[], metavar="NAME=VALUE", help=OPTION_HELP)
    add("--dtype", choices=["float32", "bfloat16", "float16"], help="of the weights (as stored)")
    add("--out", type=Path, required=True, help="a new directory")


def run(options: argparse.Namespace) -> int:
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise InvalidValueError(f"--out: must be a new or empty directory, found {options.out}")
    dtype = {} if options.dtype is None else {"dtype": getattr(torch, options.dtype)}
    model, processor = assemble(preset_from(options), **dtype)
    with new_folder(options.out) as part, disk_errors(options.out):  # a directory that is there is whole
        model.save_pretrained(part)
        processor.save_pretrained(part)
    parameters = sum(value.numel() for value in model.parameters())
    print(f"{options.out}: {parameters / 1e6:.0f} million parameters, a new connector between them")
    return 0


def preset_from(options: argparse.Namespace) -> Preset:
    """The preset of the command line."""
    begun = {} if options.preset is None else asdict(read_preset(options.preset))
    names = ("text", "vision", "audio", "events", "image_size", "prompt", "media_token")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    merged = {**begun, **given, "options": {**begun.get("options", {}), **parse_options(options.option)}}
    return preset_of(merged, Path("assemble"))
