"""What of a model cannot be had again, to a directory."""

import json
import warnings
from pathlib import Path
from typing import Any

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.models._given import differs, own_tensors, plain_name
from avfusion.models._loading import CLASS, CONFIG, KIND
from avfusion.models._wrappers import base_model, is_peft, unwrap
from avfusion.modules.component import Component
from avfusion.modules.weights import save_weights


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
    whole = _chosen("language_model", save_language_model, _language_model_differs(model, llm))
    encoders = [
        name
        for name, encoder in model.encoders.items()
        if _chosen(name, save_encoders, differs(encoder, model.given_checksums.get(name, {})))
    ]
    if whole:
        base = base_model(llm)
        tensors = {"state_dict": own_tensors(llm)} if adapters else {}
        base.save_pretrained(str(directory / "language_model"), **tensors)
    if adapters:
        llm.save_pretrained(str(directory / "adapter"))
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
    }
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _chosen(name: str, asked: bool | None, differs: bool) -> bool:
    if asked is False and differs:
        warnings.warn(
            f"{name}: is trained or not what was given to the constructor, and is not saved, as the call says",
            UserWarning,
            stacklevel=4,
        )
    return differs if asked is None else asked


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
