"""What of a model cannot be had again, to a directory."""

import json
import warnings
from pathlib import Path
from typing import Any

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.files.weights import save_weights
from avfusion.models._given import differs, own_tensors, plain_name, unknown, was_cast
from avfusion.models._loading import CLASS, CONFIG, KIND
from avfusion.models._parts import LANGUAGE_MODEL
from avfusion.models._wrappers import base_model, is_peft, unwrap
from avfusion.modules.component import Component


def save(model: Any, directory: Path, save_language_model: bool | None, save_encoders: bool | None) -> None:
    """Saves the connector, adapters, and the parts that are chosen or, where ``None``, differ from what was given."""
    if directory.exists() and not directory.is_dir():
        raise InvalidValueError(f"directory: must be a directory, found the file {directory}")
    if not isinstance(model.connector, Component):
        raise InvalidTypeError(
            f"connector: must be an avfusion Component to be saved, found {type(model.connector).__name__}"
        )
    llm = unwrap(model.language_model)
    if getattr(llm, "_hf_peft_config_loaded", False):
        raise InvalidValueError(
            "language_model: adapters from add_adapter cannot be loaded again here; make it a PeftModel with "
            "peft.get_peft_model, or save it with its own save_pretrained"
        )
    adapters = sorted(llm.peft_config) if is_peft(llm) else []
    whole = _chosen("language_model", save_language_model, _language_model_differs(model, llm), model)
    encoders = [
        name
        for name, encoder in model.encoders.items()
        if _chosen(name, save_encoders, differs(encoder, model.given_checksums.get(name, {})), model)
    ]
    if whole:
        _save_base(llm, str(directory / "language_model"))
    if adapters:
        _save_adapters(llm, str(directory / "adapter"), whole)
    model.connector.save_pretrained(directory / "connector")
    for name in encoders:
        path = directory / "encoders" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(model.encoders[name], path)
    config = {
        CLASS: KIND,
        "placeholder_token_id": model.placeholder_token_id,
        "diversity_weight": None if model.diversity_loss is None else model.diversity_loss.weight,
        "connector": type(model.connector).__name__,
        "language_model": whole,
        "adapters": adapters,
        "active_adapters": list(llm.active_adapters) if adapters else [],
        "audio_encoders": sorted(model.audio_encoders),
        "visual_encoder": model.visual_encoder is not None,
        "saved_encoders": sorted(encoders),
        "placeholder": model.placeholder,
        "parts": {
            name: {
                "source": list(source),
                "fingerprint": None if whole and name == LANGUAGE_MODEL else model.given_fingerprints.get(name),
            }
            for name, source in model.part_sources.items()
            if name in model.given_parts
        },
    }
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _chosen(name: str, asked: bool | None, differs: bool, model: Any) -> bool:
    part, given = model.given_parts[name], model.given_checksums.get(name, {})
    found = None
    if asked is False and differs:
        found = "is trained or not what was given to the constructor, and is not saved, as the call says"
    elif asked is None and not differs and unknown(part, given):
        found = "had no values when it was given to the constructor, and is not saved; ask for it if it was trained"
    elif asked is None and differs and was_cast(part, given):
        found = "was cast by itself, so that it is not known whether it is what was given, and is saved"
    if found is not None:
        warnings.warn(f"{name}: {found}", UserWarning, stacklevel=4)
    return differs if asked is None else asked


def _save_base(llm: Any, directory: str) -> None:
    """Saves the language model without its adapters."""
    base = base_model(llm)
    if not is_peft(llm):
        base.save_pretrained(directory)
        return
    quantizer = getattr(base, "hf_quantizer", None)
    if quantizer is None:
        base.save_pretrained(directory, state_dict=own_tensors(llm))
        return
    if quantizer.get_state_dict_and_metadata(base)[0] is not None:
        raise InvalidValueError(
            f"language_model: quantised by {quantizer.quantization_config.quant_method} it cannot be saved apart from "
            "its adapters; merge_and_unload or unload them before, or save with save_language_model=False"
        )
    try:
        base.hf_quantizer = None  # it would put the adapters' tensors among those that are saved
        base.save_pretrained(directory, state_dict=own_tensors(llm))
    finally:
        base.hf_quantizer = quantizer


def _save_adapters(llm: Any, directory: str, base_is_saved: bool) -> None:
    """Saves the adapters, for the base model as it was given or, if that is saved, as it is now."""
    starts = {
        name: config.init_lora_weights
        for name, config in llm.peft_config.items()
        if base_is_saved and isinstance(getattr(config, "init_lora_weights", None), str)
    }
    try:
        for name in starts:  # PiSSA and its kin changed the base model when they began, and would again
            llm.peft_config[name].init_lora_weights = True
        llm.save_pretrained(directory)
    finally:
        for name, start in starts.items():
            llm.peft_config[name].init_lora_weights = start


def _language_model_differs(model: Any, llm: Any) -> bool:
    """Whether more of it differs than its adapters hold."""
    stored: set[str] = set()
    if is_peft(llm):
        from peft import get_peft_model_state_dict

        for adapter in llm.peft_config:
            held = get_peft_model_state_dict(llm, adapter_name=adapter, save_embedding_layers=False)
            stored |= {plain_name(name) for name in held}
        # Where an adapter is merged in place, the weight itself is what it was, and the adapter is held.
        base = base_model(llm)
        merged = [f"{name}." for name, layer in base.named_modules() if getattr(layer, "merged", False)]
        stored |= {plain_name(key) for key in base.state_dict() if key.startswith(tuple(merged))}
    return differs(llm, model.given_checksums["language_model"], stored)
