"""Pretrained models from the hub or a directory: safetensors only, no remote code, an error for missing weights."""

import inspect
from typing import Any

from avfusion.errors import CheckpointError, InvalidValueError

_HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
# Heads and training-time tokens, which the encoders do not use and published checkpoints often lack.
_UNUSED = ("pooler", "masked_spec_embed", "mask_token", "vision_model.head.")


def body(model: Any, takes: str) -> Any:
    """A transformers model without its head; ``takes`` is the name of the body's input.

    The base model of some models is only the layers, which take embeddings.
    """
    base = model.base_model
    return base if takes in inspect.signature(base.forward).parameters else model


def split_options(cls: type, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits options into the arguments of ``cls`` and all others."""
    names = inspect.signature(cls).parameters
    own = {name: value for name, value in options.items() if name in names}
    return own, {name: value for name, value in options.items() if name not in names}


def hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """The ``from_pretrained`` options that locate files."""
    return {name: options[name] for name in _HUB if name in options}


def check_safe(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a model's ``from_pretrained`` that exclude code from the hub and pickles.

    Raises:
        InvalidValueError: an option that would allow them.
    """
    for option, allowed in (("trust_remote_code", False), ("use_safetensors", True)):
        if options.get(option, allowed) is not allowed:
            raise InvalidValueError(f"{option}: must be {allowed}, found {options[option]}")
    return {name: value for name, value in options.items() if name not in {"trust_remote_code", "use_safetensors"}}


def load_pretrained(cls: Any, name: str, options: dict[str, Any]) -> Any:
    """``cls.from_pretrained`` with an error for missing weights.

    Raises:
        CheckpointError: the checkpoint lacks weights of the model, or has them in other shapes.
        InvalidValueError: an option that would run code from the hub or load a pickle.
    """
    model, info = cls.from_pretrained(name, **check_safe(options), use_safetensors=True, output_loading_info=True)
    missing = sorted(key for key in info["missing_keys"] if not any(part in key for part in _UNUSED))
    if missing:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise CheckpointError(
            f"{name}: must hold the weights of {type(model).__name__}; it lacks {len(missing)}: {shown}"
        )
    return model
