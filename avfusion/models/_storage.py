"""What is trained, to a directory and back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from avfusion.errors import CheckpointError, InvalidTypeError, InvalidValueError
from avfusion.modules.component import Component, load_exactly

if TYPE_CHECKING:
    from avfusion.models.audio_visual_language_model import AudioVisualLanguageModel

_CONFIG, _CLASS, _KIND = "config.json", "avfusion_class", "AudioVisualLanguageModel"


def is_peft(model: nn.Module) -> bool:
    """Whether ``model`` is one of peft's, without importing it."""
    return any(kind.__module__.startswith("peft.") and kind.__name__ == "PeftModel" for kind in type(model).__mro__)


def trains(module: nn.Module) -> bool:
    """Whether anything in ``module`` is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())


def save(
    model: "AudioVisualLanguageModel", directory: Path, save_language_model: bool | None, save_encoders: bool | None
) -> None:
    """See :meth:`AudioVisualLanguageModel.save_pretrained`."""
    if directory.exists() and not directory.is_dir():
        raise InvalidValueError(f"directory: must be a directory, found the file {directory}")
    if not isinstance(model.connector, Component):
        raise InvalidTypeError(
            f"connector: must be an avfusion Component to be saved, found {type(model.connector).__name__}"
        )
    llm, adapter = model.language_model, None
    if is_peft(llm):
        if save_language_model:
            raise InvalidValueError(
                "save_language_model: must not be set for a PeftModel, whose adapter is saved; "
                "merge_and_unload() it first"
            )
        adapter = llm.active_adapter
        llm.save_pretrained(str(directory / "adapter"), selected_adapters=[adapter])
        save_language_model = False
    elif save_language_model is None:
        save_language_model = trains(llm)
    if save_language_model:
        llm.save_pretrained(str(directory / "language_model"))
    model.connector.save_pretrained(directory / "connector")

    chosen = {name: encoder for name, encoder in model.encoders.items() if save_encoders or trains(encoder)}
    chosen = {} if save_encoders is False else chosen
    for name, encoder in chosen.items():
        _save_weights(encoder, directory / "encoders" / f"{name}.safetensors")
    config = {
        _CLASS: _KIND,
        "placeholder_token_id": model.placeholder_token_id,
        "diversity_weight": None if model.diversity_loss is None else model.diversity_loss.weight,
        "connector": type(model.connector).__name__,
        "language_model": "full" if save_language_model else "adapter" if adapter else None,
        "adapter": adapter,
        "audio_encoders": sorted(model.audio_encoders),
        "visual_encoder": model.visual_encoder is not None,
        "saved_encoders": sorted(chosen),
    }
    (directory / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration that :func:`save` wrote."""
    path = directory / _CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; save a model with save_pretrained") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict) or config.get(_CLASS) != _KIND:
        found = config.get(_CLASS) if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{path}: must describe an {_KIND}, found {found!r}")
    wanted = {
        "placeholder_token_id",
        "diversity_weight",
        "connector",
        "language_model",
        "adapter",
        "audio_encoders",
        "visual_encoder",
        "saved_encoders",
    }
    missing = sorted(wanted - set(config))
    if missing:
        raise CheckpointError(f"{path}: lacks {missing}")
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
    if config["language_model"] == "full":
        from transformers import AutoModelForCausalLM

        if given is not None:
            raise InvalidValueError(f"language_model: {directory} holds the trained one; leave it out")
        return AutoModelForCausalLM.from_pretrained(str(_existing(directory / "language_model")))
    if given is None:
        raise InvalidValueError(f"language_model: must be given, {directory} does not hold it")
    if config["language_model"] is None:
        return given
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError("An adapter needs peft: pip install avfusion[hf]") from error
    adapter = config["adapter"]
    path = directory / "adapter" if adapter == "default" else directory / "adapter" / adapter
    return PeftModel.from_pretrained(given, str(_existing(path)), adapter_name=adapter, is_trainable=is_trainable)


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


def _save_weights(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    # Copies, because safetensors refuses tensors that share memory (tied weights).
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in module.state_dict().items()}
    save_file(tensors, path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Loads a safetensors file into ``module``, all of it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; the checkpoint is incomplete") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error
    load_exactly(module, tensors, str(path))
