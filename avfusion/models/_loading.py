"""A model from the directory that it was saved in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from avfusion.errors import CheckpointError, InvalidTypeError, InvalidValueError
from avfusion.files.weights import load_weights
from avfusion.models._features import VISUAL
from avfusion.models._parts import LANGUAGE_MODEL, PartSource, load_again
from avfusion.models._wrappers import is_peft
from avfusion.modules.component import Component

CONFIG, CLASS, KIND = "config.json", "avfusion_class", "AudioVisualLanguageModel"


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration that save_pretrained wrote."""
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        if (directory / "model.safetensors").exists():
            raise CheckpointError(
                f"{path}: no such file; {directory} is a checkpoint of Trainer, to resume from or to load_state_dict "
                "into a model that has been put together; save_pretrained saves what this loads"
            ) from None
        raise CheckpointError(f"{path}: no such file; save a model with save_pretrained") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict) or config.get(CLASS) != KIND:
        found = config.get(CLASS) if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{path}: must describe an {KIND}, found {found!r}")
    wanted = {
        "placeholder_token_id",
        "diversity_weight",
        "connector",
        "language_model",
        "adapters",
        "active_adapters",
        "audio_encoders",
        "visual_encoder",
        "saved_encoders",
        "parts",
        "placeholder",
    }
    missing = sorted(wanted - set(config))
    if missing:
        raise CheckpointError(f"{path}: lacks {missing}")
    if not isinstance(config["parts"], dict):
        raise CheckpointError(f"{path}: parts must be an object, found {type(config['parts']).__name__}")
    return config


def load_connector(directory: Path, config: dict[str, Any]) -> Any:
    """The connector that was saved."""
    kind = Component.registry.get(config["connector"])
    if kind is None:
        raise CheckpointError(
            f"{directory}: was saved with a connector of the class {config['connector']}, which is not known here; "
            "import it, or pass connector=..."
        )
    return kind.from_pretrained(str(_existing(directory / "connector")))


def load_language_model(directory: Path, config: dict[str, Any], given: Any, is_trainable: bool) -> Any:
    """The language model: what was saved, put on the given base model where that was not."""
    if given is not None and is_peft(given):
        raise InvalidTypeError("language_model: must be the base model, found a PeftModel; its adapter is loaded")
    if config["language_model"]:
        from transformers import AutoModelForCausalLM

        if given is not None:
            raise InvalidValueError(f"language_model: {directory} holds the trained one; leave it out")
        given = AutoModelForCausalLM.from_pretrained(str(_existing(directory / "language_model")))
    if given is None and LANGUAGE_MODEL in config["parts"]:
        given = load_again(recorded_source(config, LANGUAGE_MODEL))
    if given is None:
        raise InvalidValueError(f"language_model: must be given, {directory} neither holds nor names it")
    return _load_adapters(directory / "adapter", config, given, is_trainable) if config["adapters"] else given


def _load_adapters(directory: Path, config: dict[str, Any], base: Any, is_trainable: bool) -> Any:
    """The base model with its adapters, those active that were."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError("An adapter needs peft: pip install avfusion[hf]") from error
    first, *others = config["adapters"]

    def path(name: str) -> str:
        return str(_existing(directory if name == "default" else directory / name))

    model = PeftModel.from_pretrained(base, path(first), adapter_name=first, is_trainable=is_trainable)
    for name in others:
        model.load_adapter(path(name), adapter_name=name, is_trainable=is_trainable)
    active = config["active_adapters"]
    if others:
        trained = {name: value.requires_grad for name, value in model.named_parameters()}
        model.set_adapter(active[0])
        if len(active) > 1:
            model.base_model.set_adapter(active)
        if not is_trainable:
            for name, value in model.named_parameters():
                value.requires_grad_(trained[name])
    return model


def recorded_encoders(config: Mapping[str, Any], given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The given encoders, and those that the directory names."""
    names = [*config["audio_encoders"], *([VISUAL] if config["visual_encoder"] else [])]
    recorded = [name for name in names if name not in given and name in config["parts"]]
    return {**given, **{name: load_again(recorded_source(config, name)) for name in recorded}}


def recorded_source(config: Mapping[str, Any], name: str) -> PartSource:
    """Where a part comes from, as the file states it."""
    source = _recorded(config, name).get("source")
    types = (str, str, str | None, dict)
    if not isinstance(source, list) or len(source) != len(types) or not all(map(isinstance, source, types)):
        raise CheckpointError(f"parts.{name}.source: must be [loader, name, revision, options], found {source!r:.80}")
    return PartSource(*source)


def recorded_fingerprint(config: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The fingerprint of a part, as the file states it."""
    found = _recorded(config, name).get("fingerprint")
    if found is None:
        return None
    values = found.get("values") if isinstance(found, Mapping) else None
    if not isinstance(values, Mapping) or not all(map(_is_numbers, values.values())):
        raise CheckpointError(f"parts.{name}.fingerprint: must hold lists of numbers by tensor, found {found!r:.80}")
    return found


def _recorded(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config["parts"][name]
    if not isinstance(part, Mapping):
        raise CheckpointError(f"parts.{name}: must be an object, found {part!r:.80}")
    return part


def _is_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) in (int, float) for value in values)


def load_encoders(directory: Path, config: dict[str, Any], encoders: Mapping[str, nn.Module]) -> None:
    """Loads what was saved of the encoders into them."""
    missing = sorted(set(config["saved_encoders"]) - set(encoders))
    if missing:
        raise InvalidValueError(f"audio_encoders, visual_encoder: {directory} holds weights for {missing}, not given")
    for name in config["saved_encoders"]:
        load_weights(encoders[name], directory / "encoders" / f"{name}.safetensors")


def _existing(directory: Path) -> Path:
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory; the checkpoint is incomplete")
    return directory
