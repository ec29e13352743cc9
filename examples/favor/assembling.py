"""New models: the parts of a preset, or its tiny twin, with options of their own."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from avfusion import InvalidValueError
from examples.favor.connector import build_connector
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.parts import assemble
from examples.favor.presets import is_preset, read_preset
from examples.favor.processing_favor import FavorProcessor, shared_options
from examples.favor.streams import STREAMS, streams_of
from examples.favor.tiny import tiny

NOT_QUANTISED = [*(stream.tower for stream in STREAMS.values()), "connector", "lm_head"]


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


def loading_options(
    *, device: str | None, dtype: torch.dtype | None, attn_implementation: str | None, quantize: str | None
) -> dict[str, Any]:
    """Options of ``from_pretrained``, of which none is ``None``."""
    given: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": attn_implementation,
        "quantization_config": quantisation(quantize, dtype),
        "device_map": device if quantize else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def new_model(
    name: str,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    attn_implementation: str | None = None,
    quantize: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[FavorForConditionalGeneration, FavorProcessor]:
    """A model with a new connector, and its processor.

    Args:
        name: a preset's name or file, ``"tiny"`` or ``"tiny:PRESET"``.
        device: of a quantised language model.
        dtype: of the parameters; as stored without it.
        attn_implementation: of towers, connector and language model.
        quantize: ``"4bit"`` or ``"8bit"`` for the language model.
        options: of the configuration, over the preset's.
    """
    if is_preset(name):
        given = loading_options(device=device, dtype=dtype, attn_implementation=attn_implementation, quantize=quantize)
        model, processor = assemble(read_preset(name), **given)
    else:
        if quantize is not None:
            raise InvalidValueError(f"quantize: must not be given for tiny models, found {quantize!r}")
        model, processor = tiny(name.partition(":")[2] or "favor-vicuna-7b")
        model = model.to(dtype)
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
    model.name_or_path = name
    if options:
        change(model, processor, options)
    return model, processor


def change(model: FavorForConditionalGeneration, processor: FavorProcessor, options: Mapping[str, Any]) -> None:
    """Gives a model other options, and a new connector for them."""
    config, like = model.config, next(model.connector.parameters())
    for name, value in options.items():
        if not hasattr(config, name):
            raise InvalidValueError(f"options: must be of FavorConfig, found {name!r}")
        setattr(config, name, value)
    model.streams = streams_of(config)
    for stream in STREAMS.values():
        if stream not in model.streams.values():
            setattr(model, stream.tower, None)
    model.connector = build_connector(config).to(like)
    for name, value in shared_options(config).items():
        setattr(processor, name, value)
