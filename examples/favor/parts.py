"""The pretrained parts that a preset names: loaded, checked, and put together with a new connector."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoTokenizer,
    WhisperFeatureExtractor,
)

from avfusion import CheckpointError, InvalidValueError
from avfusion.encoders import (
    HFAudioEncoder,
    HFVisionEncoder,
    InstructBlipVisualEncoder,
    TimmVisualEncoder,
    WhisperAudioEncoder,
)
from avfusion.models import embedding_norm, match_scale
from examples.favor.configuration_favor import FavorConfig
from examples.favor.connector import build_connector
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.presets import Preset
from examples.favor.processing_favor import CHAT_TEMPLATE, FavorProcessor, image_processor, shared_options

VIDEO_TOKENS = (32, 16, 9, 4, 1)  # a frame, where a preset states none: the most that its grid of patches has
MEDIA_TOKENS = ("<|video_pad|>", "<av>")  # the first that a tokenizer knows, else the last becomes one of its tokens


def assemble(
    preset: Preset, *, quantization_config: Any = None, device_map: Any = None, **options: Any
) -> tuple[FavorForConditionalGeneration, FavorProcessor]:
    """Loads pretrained parts, and puts a new connector between them.

    Args:
        preset: names them.
        quantization_config: of the language model (bitsandbytes).
        device_map: of the language model; the towers and the connector go where its embeddings are.
        **options: of every part's ``from_pretrained``: ``dtype``, ``attn_implementation``, ….

    Raises:
        InvalidValueError: parts that are none, or that do not fit.
        CheckpointError: a checkpoint that lacks weights.
    """
    check_parts(preset)
    tokenizer, token = _tokenizer(preset)
    heard = {**options, "chunk_batch_size": _option(preset, "chunk_batch_size"), "frozen": False}
    parts: dict[str, Any] = {
        "visual_encoder": _vision(preset, options),
        "audio_encoder": WhisperAudioEncoder.from_pretrained(preset.audio, **heard),
    }
    if preset.events is not None:
        parts["event_encoder"] = HFAudioEncoder.from_pretrained(preset.events, pool_frequency=True, **heard)
    _check_slots(preset, parts)
    llm = parts["language_model"] = _language_model(
        preset.text, quantization_config=quantization_config, device_map=device_map, **options
    )
    given = {"media_token_id": token, "num_query_tokens": parts["visual_encoder"].tokens_per_frame}
    model_args = getattr(AutoConfig.from_pretrained(preset.vision), "model_args", None)  # of timm's
    config = FavorConfig(**_configs(parts, model_args), **{**preset.options, **given})
    with torch.device("meta"):
        model = FavorForConditionalGeneration(config)
    for name, part in parts.items():
        setattr(model, name, part)
    model.connector = build_connector(config)
    match_scale(model.connector, embedding_norm(llm))
    model.connector.to(parts["audio_encoder"].dtype)
    model.generation_config = llm.generation_config
    model.generation_config.suppress_tokens = [token]
    where = llm.get_input_embeddings().weight.device
    for name, child in model.named_children():
        if name != "language_model":
            child.to(where)
    return model.eval(), preset_processor(preset, config, tokenizer)


def preset_processor(preset: Preset, config: FavorConfig, tokenizer: Any = None) -> FavorProcessor:
    """The processor of a preset's pretrained parts, without their weights."""
    tokenizer = _tokenizer(preset)[0] if tokenizer is None else tokenizer
    asked = config.qformer_config is not None
    return FavorProcessor(
        tokenizer,
        image_processor(config)
        if config.vision_config.model_type == "timm_wrapper"
        else AutoImageProcessor.from_pretrained(preset.vision),
        WhisperFeatureExtractor.from_pretrained(preset.audio),
        qformer_tokenizer=AutoTokenizer.from_pretrained(preset.vision, subfolder="qformer_tokenizer")
        if asked
        else None,
        chat_template=CHAT_TEMPLATE if preset.prompt == "published" else None,
        placeholder=tokenizer.convert_ids_to_tokens(config.media_token_id),
        **shared_options(config),
    )


def check_parts(preset: Preset) -> None:
    """Refuses checkpoints of another kind than the part that they stand for, all in one error, before any is loaded.

    Raises:
        InvalidValueError: such checkpoints, or names under which there is nothing.
    """
    wrong = []
    for part, wanted in (("text", "a language model"), ("vision", "a vision model"), ("audio", "Whisper")):
        name = getattr(preset, part)
        try:
            config = AutoConfig.from_pretrained(name)
        except (OSError, ValueError, KeyError) as error:
            wrong.append(f"{part}: must be a checkpoint of {wanted}, found {name!r} ({str(error).splitlines()[0]})")
            continue
        fits = {
            "text": type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder,
            "vision": hasattr(config, "vision_config") or _takes_pixels(config),
            "audio": config.model_type == "whisper",
        }
        if not fits[part]:
            wrong.append(f"{part}: must be a checkpoint of {wanted}, found {name!r}, which is {config.model_type}")
    if wrong:
        raise InvalidValueError("; ".join(wrong))


def _takes_pixels(config: Any) -> bool:
    return type(config) in MODEL_MAPPING and MODEL_MAPPING[type(config)].main_input_name == "pixel_values"


def _tokenizer(preset: Preset) -> tuple[Any, int]:
    """The language model's tokenizer, and the token that keeps a place; it pads with another."""
    tokenizer = AutoTokenizer.from_pretrained(preset.text)
    if preset.prompt == "own" and tokenizer.chat_template is None:
        raise InvalidValueError(f"prompt: must be published for {preset.text}, whose tokenizer has no chat template")
    known = tokenizer.get_vocab()
    token = preset.media_token or next((one for one in MEDIA_TOKENS if one in known), MEDIA_TOKENS[-1])
    if token not in known:
        tokenizer.add_tokens([token], special_tokens=True)
    if tokenizer.pad_token in (None, token):
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, int(tokenizer.convert_tokens_to_ids(token))


def _option(preset: Preset, name: str) -> Any:
    """What the preset states of the configuration, or the configuration's default."""
    return preset.options.get(name, getattr(FavorConfig, name))


def _language_model(name: str, **options: Any) -> Any:
    model, info = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **options)
    missing = sorted(info["missing_keys"])
    if missing:
        some = ", ".join(missing[:5])
        raise CheckpointError(
            f"{name}: must hold the weights of {type(model).__name__}; it lacks {len(missing)}: {some}"
        )
    return model


def _check_slots(preset: Preset, parts: dict[str, Any]) -> None:
    """Refuses encoders that give more tokens a frame than the connector has places for."""
    slots, rate = _option(preset, "slots"), _option(preset, "frame_rate")
    counts = {
        name: part.tokens_per_frame
        if name == "visual_encoder"
        else math.ceil(part.rate / rate - 1e-9) * part.tokens_per_step
        for name, part in parts.items()
    }
    most = max(counts.values())
    if most > slots:
        told = ", ".join(f"{count} of the {name}" for name, count in counts.items() if count > slots)
        raise InvalidValueError(
            f"slots: must be places for all tokens of a frame, found {slots} for {told}; give --option slots={most}"
        )


def _vision(preset: Preset, options: dict[str, Any]) -> Any:
    """The vision tower, with as many tokens a frame as the preset states."""
    kind = AutoConfig.from_pretrained(preset.vision).model_type
    seen: dict[str, Any] = {"frame_batch_size": _option(preset, "frame_batch_size"), "frozen": False}
    if kind.startswith("instructblip"):
        return InstructBlipVisualEncoder.from_pretrained(preset.vision, image_processor=None, **seen, **options)
    if kind == "timm_wrapper":
        source = f"{'local-dir' if Path(preset.vision).is_dir() else 'hf-hub'}:{preset.vision}"
        size = None if preset.image_size is None else (preset.image_size, preset.image_size)
        dtype = options.get("dtype")
        whole: Any = TimmVisualEncoder.from_pretrained(source, image_size=size, dtype=dtype, **seen)
        again: dict[str, Any] = {"image_size": whole.image_size}
    else:
        whole = HFVisionEncoder.from_pretrained(preset.vision, image_processor=None, **seen, **options)
        again = {}
    wanted = preset.options.get("num_query_tokens")
    for count in VIDEO_TOKENS if wanted is None else (wanted,):
        try:
            return type(whole)(model=whole.model, pool=count, **seen, **again)
        except InvalidValueError:
            if count == wanted:
                raise
    raise RuntimeError("a grid of patches has one at least")


def _configs(parts: dict[str, Any], model_args: dict[str, Any] | None) -> dict[str, Any]:
    """The configurations of loaded parts, by their names in the whole."""
    vision = parts["visual_encoder"]
    configs = {"text_config": parts["language_model"].config, "audio_config": parts["audio_encoder"].model.config}
    if "event_encoder" in parts:
        configs["event_config"] = parts["event_encoder"].model.config
    if isinstance(vision, InstructBlipVisualEncoder):
        return {**configs, "vision_config": vision.vision_model.config, "qformer_config": vision.qformer.config}
    if isinstance(vision, TimmVisualEncoder):
        given = vision.model.pretrained_cfg
        kept = {name: given[name] for name in ("input_size", "mean", "std", "interpolation") if name in given}
        timm = AutoConfig.for_model("timm_wrapper", architecture=given["architecture"], pretrained_cfg=kept)
        timm.image_size, timm.model_args = vision.image_size[0], model_args
        return {**configs, "vision_config": timm}
    return {**configs, "vision_config": vision.model.config}
