"""A model by name: a preset, a directory, or what was trained on top of either."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import BitsAndBytesConfig

from avfusion import CheckpointError, InvalidValueError
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.presets import PRESETS, assemble, tiny
from examples.favor.processing_favor import FavorProcessor

NOT_QUANTISED = ["vision_tower", "qformer", "audio_tower", "event_tower", "connector", "lm_head"]


def quantisation(kind: str | None, dtype: torch.dtype | None = None) -> BitsAndBytesConfig | None:
    """Configuration of bitsandbytes for ``"4bit"`` or ``"8bit"``: the language model only."""
    if kind is None:
        return None
    if kind not in ("4bit", "8bit"):
        raise InvalidValueError(f'quantize: must be "4bit" or "8bit", found {kind!r}')
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=NOT_QUANTISED)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype or torch.float32,
        llm_int8_skip_modules=NOT_QUANTISED,
    )


def load(
    name: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    attn_implementation: str | None = None,
    quantize: str | None = None,
    trainable: bool = False,
) -> tuple[Any, FavorProcessor]:
    """Model and processor, in evaluation mode.

    Args:
        name: a preset's name (a new connector between pretrained parts), ``"tiny"`` or ``"tiny:PRESET"`` (small and
            random), a directory of ``save_pretrained``, or one of a training run, which holds what was trained and
            names the rest.
        device: for all of it; where the weights are loaded without it.
        dtype: of the parameters; as stored without it.
        attn_implementation: of towers, connector and language model.
        quantize: ``"4bit"`` or ``"8bit"`` for the language model.
        trainable: train the adapter of a training run further.

    Raises:
        CheckpointError: a directory that holds no such model.
        InvalidValueError: a name that is neither a preset nor a directory.
    """
    path = Path(name)
    options: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": attn_implementation,
        "quantization_config": quantisation(quantize, dtype),
        "device_map": device if quantize else None,
    }
    options = {key: value for key, value in options.items() if value is not None}
    if (path / "adapter_config.json").is_file():
        base = json.loads((path / "adapter_config.json").read_text()).get("base_model_name_or_path")
        if not base:
            raise CheckpointError(f"{path}: its adapter_config.json names no base model")
        model, processor = load(
            base, device=device, dtype=dtype, attn_implementation=attn_implementation, quantize=quantize
        )
        model = PeftModel.from_pretrained(model, str(path), is_trainable=trainable)
    elif str(name) in PRESETS:
        model, processor = assemble(str(name), **options)
        model.name_or_path = str(name)
    elif str(name).partition(":")[0] == "tiny":
        model, processor = tiny(str(name).partition(":")[2] or "favor-vicuna-7b")
        model = model.to(dtype)
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        model.name_or_path = str(name)
    elif path.is_dir():
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path}: holds neither config.json nor adapter_config.json, so it is no model")
        kind = json.loads((path / "config.json").read_text()).get("model_type")
        if kind != "favor":
            raise CheckpointError(f"{path}: must hold a favor model, found {kind!r}")
        model = FavorForConditionalGeneration.from_pretrained(path, **options)
        processor = FavorProcessor.from_pretrained(path)
    else:
        raise InvalidValueError(
            f"model: must be a preset ({', '.join(PRESETS)}), tiny or a directory, found {str(name)!r}"
        )
    if device is not None and quantize is None:
        model = model.to(device)
    return model.eval(), processor
