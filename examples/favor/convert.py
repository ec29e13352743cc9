"""``python -m examples.favor convert``: a released checkpoint to what a training run of this assembly leaves."""

import argparse
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from avfusion import CheckpointError, InvalidValueError
from avfusion.files import disk_errors, new_folder
from avfusion.interop import connector_from_release, connector_to_release
from examples.favor.configuration_favor import FavorConfig
from examples.favor.connector import build_connector
from examples.favor.loading import OPTIONS_FILE, load, load_configuration, load_processor
from examples.favor.presets import lora_config
from examples.favor.released import Contents, read, sort
from examples.favor.streams import STREAMS, VISUAL

SLOTS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="the released file (.pt, .pth, .safetensors)")
    parser.add_argument("--out", type=Path, required=True, help="a new directory")
    base = parser.add_mutually_exclusive_group()
    base.add_argument("--preset", help="the pretrained parts: a preset or its file; told from the tensors without it")
    base.add_argument("--base", help="another model that the weights belong to, instead of a preset: a directory")
    parser.add_argument("--window-frames", type=int, default=10, help="frames a window (default: %(default)s)")
    parser.add_argument(
        "--fine-window-frames", type=int, default=1, help="frames a fine window, for video-SALMONN (%(default)s)"
    )
    parser.add_argument(
        "--causal-direction",
        choices=("reversed", "causal", "none"),
        default="reversed",
        help="what a frame saw in training; the released weights are reversed; none is a plain Q-Former",
    )
    parser.add_argument(
        "--lora-alpha", type=int, default=32, help="scale of LoRA times its rank (default: %(default)s)"
    )
    parser.add_argument("--merge", action="store_true", help="write a whole model, with LoRA merged into it")
    parser.add_argument("--strict", action="store_true", help="tensors of unknown names are an error")


def run(options: argparse.Namespace) -> int:
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise InvalidValueError(f"--out: must be a new or empty directory, found {options.out}")
    found = sort(read(options.checkpoint))
    base = options.base or options.preset or infer_preset(found.connector)
    base = str(Path(base).resolve()) if Path(base).is_dir() else base
    config = load_configuration(base)
    changes = release_options(found.connector, options)
    for name, value in changes.items():
        setattr(config, name, value)
    connector = _connector(found, config)
    adapter = lora_config(
        base,
        r=_check_lora(found, config),
        lora_alpha=options.lora_alpha,
        base_model_name_or_path=base,
        inference_mode=True,
    )
    if options.strict and found.unknown:
        raise CheckpointError(f"{options.checkpoint}: unknown {len(found.unknown)}: {_some(found.unknown)}")
    processor = load_processor(base, config)
    tensors = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in (connector | found.lora).items()}
    report = _report(options.checkpoint, base, changes, found, list(connector))

    with new_folder(options.out) as part, disk_errors(options.out):  # a directory that is there is whole
        adapted = part / "adapted" if options.merge else part
        _write(adapted, adapter, tensors, changes)
        if options.merge:
            load(adapted)[0].merge_and_unload().save_pretrained(part)
            shutil.rmtree(adapted)
        processor.save_pretrained(part)
        (part / "conversion.json").write_text(json.dumps(report, indent=1))
    _print(report, options.out)
    return 0


def infer_preset(connector: Mapping[str, Tensor]) -> str:
    """The preset that a checkpoint belongs to."""
    fine, proj = "low_query_tokens" in connector, connector.get("llama_proj_joint.weight")
    if proj is None:
        raise CheckpointError("checkpoint: holds no released connector, llama_proj_joint.weight is missing")
    preset = {4096: "favor-vicuna-7b", 5120: "video-salmonn-13b" if fine else "favor-vicuna-13b"}.get(len(proj))
    if preset is None or (fine and preset == "favor-vicuna-7b"):
        raise InvalidValueError(
            f"--preset, --base: must be given, as no preset's language model is {len(proj)} wide"
            f"{' and has two resolutions' if fine else ''}"
        )
    return preset


def release_options(connector: Mapping[str, Tensor], options: argparse.Namespace) -> dict[str, Any]:
    """What the configuration must say for these weights; sizes of tensors that are missing stay the base's."""
    direction = None if options.causal_direction == "none" else options.causal_direction
    changes: dict[str, Any] = {
        "causal_direction": direction,
        "padding": "released",
        "frame_rate": 2.0,
        "slots": SLOTS,
        "window_frames": options.window_frames,
        "stride_frames": None,
        "fusion": "synchronised",
        "fine_window_frames": None,
        # The release joins a second tower's tokens to Whisper's, if it has one; there is no third stream.
        **{stream.config: None for name, stream in STREAMS.items() if name not in (VISUAL, "audio")},
    }
    queries, norm, fine = (
        connector.get(name) for name in ("joint_query_tokens", "ln_joint.weight", "low_query_tokens")
    )
    if queries is not None:
        changes |= {"num_queries": queries.shape[-2], "connector_hidden_size": queries.shape[-1]}
    if norm is not None:
        changes["stream_dim"] = norm.shape[0] // 2
    if fine is not None:
        changes |= {"fine_window_frames": options.fine_window_frames, "fine_num_queries": fine.shape[-2]}
    inner = connector.get("joint_Qformer.bert.encoder.layer.0.intermediate_query.dense.weight")
    if inner is not None:
        changes["connector_intermediate_size"] = inner.shape[0]
    layers = [re.match(r"joint_Qformer\.bert\.encoder\.layer\.(\d{1,4})\.", name) for name in connector]
    if any(layers):
        last = max(int(layer[1]) for layer in layers if layer)
        if last >= len(layers):  # each has a tensor at least
            raise CheckpointError(f"checkpoint: must hold every layer up to the last, found number {last}")
        changes["connector_layers"] = 1 + last
    return changes


def _connector(found: Contents, config: FavorConfig) -> dict[str, Tensor]:
    """The connector's tensors by their names in this assembly; ``found`` then tells of what was left over."""
    if config.visual_dim != config.stream_dim:
        raise CheckpointError(
            f"checkpoint: ln_joint must be {2 * config.visual_dim} wide for this base, found {2 * config.stream_dim}"
        )
    with torch.device("meta"):
        target = build_connector(config)
    wanted = connector_to_release(target)  # type: ignore[arg-type]
    table = "joint_frame_position_embedding.weight"
    _check(
        {name: tuple(tensor.shape) for name, tensor in wanted.items()},
        # The table is longer than a window; the rest is never read.
        {
            name: tuple((tensor[: len(wanted[table])] if name == table else tensor).shape)
            for name, tensor in found.connector.items()
        },
    )
    for name in found.connector.keys() - wanted.keys():
        found.unknown.append(found.sources.pop(name))
    built = connector_from_release(
        {name: found.connector[name] for name in wanted},
        num_heads=config.connector_heads,
        window_frames=config.window_frames,
        causal_direction=config.causal_direction or "causal",
        fine_window_frames=config.fine_window_frames,
    ).state_dict()
    # Both name their tensors in one order.
    for old, new in zip(wanted, target.state_dict(), strict=True):
        found.sources[f"connector.{new}"] = found.sources.pop(old)
    return {f"connector.{name}": built[name] for name in target.state_dict()}


def _check_lora(found: Contents, config: FavorConfig) -> int:
    """The rank of LoRA, whose tensors are those of the language model's attention."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config.text_config)
    modules = str(lora_config("favor-vicuna-7b").target_modules)
    rank = next((len(tensor) for name, tensor in found.lora.items() if name.endswith("lora_A.weight")), 0)
    wanted: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules(prefix="language_model"):
        if re.fullmatch(modules, name):
            wanted[f"{name}.lora_A.weight"] = (rank, module.in_features)
            wanted[f"{name}.lora_B.weight"] = (module.out_features, rank)
    _check(
        {_released_lora(name): shape for name, shape in wanted.items()},
        {_released_lora(name): tuple(tensor.shape) for name, tensor in found.lora.items()},
    )
    for name in found.lora.keys() - wanted.keys():
        found.unknown.append(found.sources.pop(name))
        del found.lora[name]
    return rank


def _released_lora(name: str) -> str:
    stem = name.removeprefix("language_model.").removesuffix(".weight")
    return f"llama_model.base_model.model.{stem}.default.weight"


def _check(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in wanted if name not in given]
    if missing:
        raise CheckpointError(f"checkpoint: missing {len(missing)}: {_some(missing)}")
    shapes = [f"{name} is {given[name]}, must be {shape}" for name, shape in wanted.items() if given[name] != shape]
    if shapes:
        raise CheckpointError(f"checkpoint: of another shape {len(shapes)}: {_some(shapes)}")


def _write(directory: Path, adapter: Any, tensors: dict[str, Tensor], changes: Mapping[str, Any]) -> None:
    adapter.save_pretrained(directory)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    (directory / OPTIONS_FILE).write_text(json.dumps(changes, indent=1))


def _report(source: Path, base: str, changes: Mapping[str, Any], found: Contents, order: list[str]) -> dict[str, Any]:
    return {
        "checkpoint": source.name,
        "base": base,
        "options": dict(changes),
        "used": {found.sources[new]: new for new in [*order, *found.lora]},
        "duplicates": found.duplicates,
        "unused": found.unused | dict.fromkeys(found.unknown, "unknown"),
        "missing": [],
    }


def _print(report: Mapping[str, Any], out: Path) -> None:
    used = Counter("connector" if name.startswith("connector.") else "LoRA" for name in report["used"].values())
    print(f"used        {len(report['used'])}: " + ", ".join(f"{kind} {count}" for kind, count in used.items()))
    print(f"duplicates  {len(report['duplicates'])}, equal to what was used")
    print(f"unused      {len(report['unused'])}")
    for reason, count in Counter(report["unused"].values()).items():
        names = [name for name, why in report["unused"].items() if why == reason]
        print(f"  {count} {reason}{': ' + _some(names) if reason == 'unknown' else ''}")
    print("missing     0")
    print(f"{out}: for {report['base']}; every tensor is listed in conversion.json")


def _some(names: list[str]) -> str:
    return "; ".join(names[:5]) + (" …" if len(names) > 5 else "")
