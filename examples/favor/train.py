"""``python -m examples.favor train``: LoRA and connector, with transformers' Trainer."""

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import HfArgumentParser, TrainingArguments, set_seed

from avfusion import InvalidValueError
from avfusion.files import disk_errors, locked
from examples.favor.cache import OPTION_HELP, choose_dtype, parse_options
from examples.favor.data import Conversations
from examples.favor.features import FeatureCache, cache_settings
from examples.favor.loading import OPTIONS_FILE, load
from examples.favor.presets import lora_config
from examples.favor.records import read_examples
from examples.favor.trainer import FavorTrainer, last_checkpoint
from examples.favor.workers import WORKERS

RESUME_HELP = "continue the run in --out from this checkpoint, or from its last whole one; begin if there is none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        required=True,
        help="a preset or its file, tiny, a directory, or a training run's to train it further",
    )
    add("--data", required=True, nargs="+", metavar="FILE", help="JSON lines or JSON arrays of conversations")
    add("--out", required=True, metavar="DIR", help="folder of checkpoints, of the log, and at last of the result")
    add("--eval-data", nargs="+", metavar="FILE", help="to evaluate on: the loss (see --set eval_strategy=steps)")
    add("--media-root", metavar="DIR", help="what relative media names start from (each file's folder)")
    add("--features", metavar="DIR", help="read the towers' tokens from this cache instead of media")
    add("--drop-audio", type=float, default=0.0, metavar="P", help="chance to show a clip without its sound (0)")
    add("--drop-video", type=float, default=0.0, metavar="P", help="chance to show a clip without its pictures (0)")
    add("--diversity-weight", type=float, metavar="λ", help="of the diversity loss (the model's, at first 0.01)")
    add("--lora-rank", type=int, default=32, metavar="R", help="(32)")
    add("--lora-alpha", type=int, metavar="A", help="(the rank)")
    add("--lora-dropout", type=float, default=0.1, metavar="P", help="(0.1)")
    add("--epochs", type=float, default=3.0, help="(3)")
    add("--batch-size", type=int, default=1, help="conversations a step, on each device (1)")
    add("--accumulate", type=int, default=8, metavar="N", help="such batches a step of the optimiser (8)")
    add("--learning-rate", type=float, default=1e-4, help="at its highest: it warms up, then falls as a cosine (1e-4)")
    add("--save-steps", type=int, default=500, metavar="N", help="steps from checkpoint to checkpoint (500)")
    add(
        "--workers",
        type=int,
        metavar="N",
        help=f"processes that read media, for each device ({WORKERS}; kept features beside a CPU's own work: 0)",
    )
    add("--seed", type=int, default=42, help="(42)")
    add("--gradient-checkpointing", action="store_true", help="compute activations twice rather than keep them")
    add("--dtype", choices=["float32", "bfloat16"], help="of what is frozen (bfloat16 on a GPU that has it)")
    add("--attn-implementation", metavar="NAME", help="eager, sdpa, flash_attention_2, …")
    add("--quantize", choices=["4bit", "8bit"], help="the frozen language model (bitsandbytes)")
    add("--option", action="append", default=[], metavar="NAME=VALUE", help=OPTION_HELP)
    add("--resume", nargs="?", const="last", metavar="CHECKPOINT", help=RESUME_HELP)
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any of transformers' TrainingArguments, over all the above; may be repeated",
    )


def run(options: argparse.Namespace) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are forked
    arguments = training_arguments(options)
    checkpoint = find_checkpoint(options.out, options.resume)
    if options.diversity_weight is not None and not options.diversity_weight >= 0:
        raise InvalidValueError(f"diversity-weight: must be at least 0, found {options.diversity_weight}")
    shared = {"media_root": options.media_root, "check_files": options.features is None}
    examples = read_examples(options.data, **shared)
    held_out = read_examples(options.eval_data, **shared) if options.eval_data else None
    set_seed(arguments.seed)
    model, processor, model_options = prepare(options, arguments.device)
    features = FeatureCache(options.features, cache_settings(model, processor)) if options.features else None
    data = {"processor": processor, "features": features}
    trainer = FavorTrainer(
        model=model,
        args=arguments,
        data_collator=processor.collate,
        train_dataset=Conversations(
            examples, drop_audio=options.drop_audio, drop_video=options.drop_video, seed=arguments.seed, **data
        ),
        eval_dataset=Conversations(held_out, **data) if held_out else None,
        processing_class=processor,
        model_options=model_options,
    )
    with locked(options.out) if arguments.process_index == 0 else nullcontext():
        try:
            with disk_errors(options.out):
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
                trainer.save_model()
                trainer.save_state()
        except InvalidValueError as error:  # of a worker: its message ends with the one that was raised there
            raise InvalidValueError(str(error).strip().splitlines()[-1]) from error
    return 0


def prepare(options: argparse.Namespace, device: torch.device) -> tuple[Any, Any, dict[str, Any]]:
    """The model with LoRA, of which nothing else but the connector is trained, its processor, and its options."""
    name = str(Path(options.model).resolve()) if Path(options.model).is_dir() else options.model
    given = parse_options(options.option)
    stored = Path(name) / OPTIONS_FILE
    model, processor = load(
        name,
        device=str(device) if options.quantize else None,  # else Trainer puts it where it belongs
        dtype=choose_dtype(options.dtype, device),
        attn_implementation=options.attn_implementation,
        quantize=options.quantize,
        trainable=True,
        options=given,
    )
    if not isinstance(model, PeftModel):
        model.connector.float()  # peft copies it; small steps would be lost in half precision
        alpha = options.lora_rank if options.lora_alpha is None else options.lora_alpha
        config = lora_config(
            name.removeprefix("tiny:"), r=options.lora_rank, lora_alpha=alpha, lora_dropout=options.lora_dropout
        )
        model = get_peft_model(model, config)
    base: Any = model.get_base_model()
    base.connector.float()
    if options.diversity_weight is not None:
        base.config.diversity_weight = options.diversity_weight
    return model, processor, json.loads(stored.read_text()) if stored.is_file() else given


def training_arguments(options: argparse.Namespace) -> TrainingArguments:
    """Trainer's arguments: the defaults here, then the options, then every ``--set``."""
    cuda = torch.cuda.is_available()
    # Kept features are read in milliseconds; a process for it would take its core from a model that computes there.
    workers = 0 if options.features and not cuda else WORKERS
    half = choose_dtype(options.dtype, "cuda" if cuda else "cpu") == torch.bfloat16
    values: dict[str, Any] = {
        "output_dir": options.out,
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": options.batch_size,
        "per_device_eval_batch_size": options.batch_size,
        "gradient_accumulation_steps": options.accumulate,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,  # of all
        "save_steps": options.save_steps,
        "save_total_limit": 3,
        "logging_steps": 10,
        "logging_first_step": True,
        "report_to": "tensorboard",
        # Not persistent: a run that is continued would draw other random numbers than one that was never cut.
        "dataloader_num_workers": workers if options.workers is None else options.workers,
        "dataloader_pin_memory": cuda,
        "accelerator_config": {"non_blocking": cuda},
        "seed": options.seed,
        "bf16": half and cuda,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "prediction_loss_only": True,
        "ddp_find_unused_parameters": False,
    }
    if options.gradient_checkpointing:
        names = {field.name for field in fields(TrainingArguments)}  # its newer name first
        values["activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"] = True
    return TrainingArguments(**{**values, **parse_settings(options.set)})


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``name=value`` as values of the types that TrainingArguments declares."""
    parser = HfArgumentParser(TrainingArguments, exit_on_error=False, add_help=False, allow_abbrev=False)
    given: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        known = any(action.dest == name for action in parser._actions)
        if not equals or not known:
            raise InvalidValueError(f"set: must be NAME=VALUE with a name of TrainingArguments, found {setting!r}")
        try:
            parsed, _ = parser.parse_known_args([f"--{name}", *value.split()])
        except argparse.ArgumentError as error:
            raise InvalidValueError(f"set: {name} takes no {value!r} ({error.message})") from None
        given[name] = getattr(parsed, name)
    return given


def find_checkpoint(out: str, resume: str | None) -> Path | None:
    """The checkpoint to continue from; a run is never mixed with another by accident."""
    last = last_checkpoint(out)
    if resume is None:
        if last is not None:
            raise InvalidValueError(
                f"out: {out} holds a run already; continue it with --resume, or name another folder"
            )
        return None
    if resume != "last":
        if not (Path(resume) / "trainer_state.json").is_file():
            raise InvalidValueError(f"resume: must be a checkpoint, found {resume!r}")
        return Path(resume)
    return last
