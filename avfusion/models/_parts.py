"""Pretrained parts by name: which class loads them, and where a saved model finds them again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from avfusion.errors import CheckpointError, InvalidValueError

LANGUAGE_MODEL = "language_model"
PLACEHOLDER = "<av>"


class PartSource(NamedTuple):
    """Where a part comes from.

    Attributes:
        loader: name of the class that loads it.
        name: name on the Hub, or directory.
        revision: commit on the Hub, or ``None``.
        options: further arguments of the loader, of JSON's types.
    """

    loader: str
    name: str
    revision: str | None
    options: dict[str, Any]


def load_encoder(kind: str, name: str, options: Mapping[str, Any]) -> tuple[nn.Module, PartSource | None]:
    """An encoder of avfusion for a pretrained model, and its source; ``None`` for options that JSON cannot hold.

    Args:
        kind: ``"visual"`` or ``"audio"``.
        name: name on the Hub or directory; of timm also ``"timm/NAME"`` and the names of ``timm.create_model``.
        options: arguments of the encoder's ``from_pretrained``.

    Raises:
        InvalidValueError: no such model.
    """
    loader, found = _encoder_class(kind, name)
    encoder = _classes()[loader].from_pretrained(found, **options)
    config = getattr(getattr(encoder, "model", None), "config", None)
    stated = {**options, "dtype": _dtype_name(encoder)}
    try:
        json.dumps(stated)
    except TypeError:
        return encoder, None
    return encoder, PartSource(loader, _absolute(found), getattr(config, "_commit_hash", None), stated)


def load_language_model(name: str, options: Mapping[str, Any]) -> Any:
    """A causal language model, all of whose weights are in its checkpoint.

    Raises:
        InvalidValueError: no such model.
        CheckpointError: the checkpoint lacks weights.
    """
    try:
        AutoConfig.from_pretrained(name, revision=options.get("revision"))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidValueError(f"language_model: must be a pretrained model, found {name!r} ({reason})") from error
    model, info = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **options)
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{name}: lacks {len(missing)} weights of {type(model).__name__}: {', '.join(missing[:5])}"
        )
    return model


def load_tokenizer(name: str, placeholder: str = PLACEHOLDER, revision: str | None = None) -> Any:
    """A language model's tokenizer, with the placeholder as one of its tokens."""
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    if placeholder not in tokenizer.get_vocab():
        tokenizer.add_tokens([placeholder], special_tokens=True)
    return tokenizer


def source_of(language_model: Any) -> PartSource | None:
    """The source of a language model of transformers that was loaded by name."""
    config = getattr(language_model, "config", None)
    name = getattr(config, "_name_or_path", "")
    if not name:
        return None
    dtype = {"dtype": _dtype_name(language_model)}
    return PartSource("AutoModelForCausalLM", _absolute(name), getattr(config, "_commit_hash", None), dtype)


def load_again(source: PartSource) -> Any:
    """The part of a source.

    Raises:
        CheckpointError: a source whose class is not known.
    """
    dtype = getattr(torch, str(source.options.get("dtype")), None)
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(f"dtype: must be one of torch's, found {source.options.get('dtype')!r:.80}")
    fixed = {"dtype": dtype} | ({} if source.revision is None else {"revision": source.revision})
    if source.loader == "AutoModelForCausalLM":
        return load_language_model(source.name, fixed)  # a file's other options might name code
    if source.loader not in _classes():
        raise CheckpointError(f"loader: must be one of {sorted(_classes())}, found {source.loader!r:.80}")
    return _classes()[source.loader].from_pretrained(source.name, **{**source.options, **fixed})


def _dtype_name(module: nn.Module) -> str:
    dtype = next((value.dtype for value in module.parameters() if value.is_floating_point()), torch.float32)
    return str(dtype).removeprefix("torch.")


def _absolute(name: str) -> str:
    """A directory by a path that does not depend on the working directory; other names as they are."""
    prefix, colon, rest = name.rpartition(":")
    return f"{prefix}{colon}{Path(rest).resolve()}" if Path(rest).is_dir() else name


def _classes() -> dict[str, Any]:
    from avfusion import encoders

    names = (
        "HFAudioEncoder",
        "HFVisionEncoder",
        "InstructBlipVisualEncoder",
        "TimmVisualEncoder",
        "WhisperAudioEncoder",
    )
    return {name: getattr(encoders, name) for name in names}


def _encoder_class(kind: str, name: str) -> tuple[str, str]:
    """The class that loads a pretrained encoder, and the name that it is given."""
    if kind == "visual" and not Path(name).exists() and ("/" not in name or name.startswith(("hf-hub:", "local-dir:"))):
        return "TimmVisualEncoder", name
    try:
        found = AutoConfig.from_pretrained(name).model_type
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidValueError(f"{kind}_encoder: must be a pretrained model, found {name!r} ({reason})") from error
    if kind == "audio":
        return ("WhisperAudioEncoder" if found == "whisper" else "HFAudioEncoder"), name
    if found == "timm_wrapper":
        return "TimmVisualEncoder", f"{'local-dir' if Path(name).is_dir() else 'hf-hub'}:{name}"
    return ("InstructBlipVisualEncoder" if found.startswith("instructblip") else "HFVisionEncoder"), name
