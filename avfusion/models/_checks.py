"""What the assembled model refuses."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from avfusion.errors import InvalidTypeError, InvalidValueError, PlaceholderError
from avfusion.models._features import VISUAL
from avfusion.models._wrappers import embedding_dim, is_peft, unwrap
from avfusion.models.prompts import IGNORED
from avfusion.modules import AudioVisualConnector, DiversityLoss
from avfusion.types import RegularAudioEncoder, VisualEncoder


def check_parts(
    language_model: Any,
    connector: Any,
    audio_encoders: Mapping[str, Any],
    visual_encoder: Any,
    diversity_loss: Any,
) -> None:
    """Refuses parts that do not fit each other, in one error that names every misfit."""
    encoders = dict(audio_encoders) if visual_encoder is None else {VISUAL: visual_encoder, **audio_encoders}
    for name, part in {"language_model": language_model, "connector": connector, **encoders}.items():
        if not isinstance(part, nn.Module):
            raise InvalidTypeError(f"{name}: must be an nn.Module, found {type(part).__name__}")
    if diversity_loss is not None and not isinstance(diversity_loss, DiversityLoss):
        raise InvalidTypeError(f"diversity_loss: must be a DiversityLoss, found {type(diversity_loss).__name__}")
    check_adapters(language_model)
    found = []
    if diversity_loss is not None and diversity_loss.reduction != "mean":
        found.append(f'diversity_loss: reduction must be "mean", found {diversity_loss.reduction!r}')
    if VISUAL in audio_encoders:
        found.append(f"audio_encoders: {VISUAL!r} is the video's own name; use visual_encoder")
    wanted = embedding_dim(language_model)
    if connector.llm_dim != wanted:
        found.append(f"connector: llm_dim must be the language model's {wanted}, found {connector.llm_dim}")
    if isinstance(connector, AudioVisualConnector):
        for name, encoder in encoders.items():
            found += _encoder_misfits(name, encoder, connector)
    if found:
        raise InvalidValueError("; ".join(found))


def _encoder_misfits(name: str, encoder: Any, connector: AudioVisualConnector) -> Iterator[str]:
    """Why a connector cannot take an encoder's tokens."""
    synchroniser = connector.synchroniser
    dims = {**synchroniser.dims, **connector.input_dims}
    if name not in dims:
        argument = "visual_encoder" if name == VISUAL else "audio_encoders"
        yield f"{argument}: must be among the connector's {sorted(dims)}, found {name!r}"
        return
    if not hasattr(encoder, "output_dim"):
        yield f"{name}: must have output_dim, the width of its tokens, found {type(encoder).__name__} without"
    elif encoder.output_dim != dims[name]:
        yield f"{name}: output_dim must be the connector's {dims[name]}, found {encoder.output_dim}"
    slots, rate = synchroniser.slots[name], synchroniser.frame_rate
    if name == VISUAL and isinstance(encoder, VisualEncoder) and encoder.tokens_per_frame > slots:
        yield f"{name}: must have at most the connector's {slots} tokens a frame, found {encoder.tokens_per_frame}"
    if name != VISUAL and isinstance(encoder, RegularAudioEncoder):
        # Frames that follow each other hold this many on average, so that some frame holds at least as many.
        tokens = math.ceil(encoder.rate / rate - 1e-9) * encoder.tokens_per_step
        if tokens > slots:
            yield (
                f"{name}: must have at most the connector's {slots} tokens a frame of {1 / rate:g} s, found {tokens} "
                f"of an encoder of {encoder.rate * encoder.tokens_per_step:g} tokens a second"
            )


def check_adapters(language_model: Any) -> None:
    """Refuses adapters that give the language model tokens of their own: it would not know where its text stands."""
    llm = unwrap(language_model)
    if not is_peft(llm):
        return
    for name, config in llm.peft_config.items():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if config.is_prompt_learning or kind == "ADAPTION_PROMPT":
            raise InvalidValueError(
                f"language_model: adapters must change its layers, as LoRA does, found {kind} in adapter {name!r}, "
                "which adds tokens before the text"
            )


def check_text(
    input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None = None, *, cached: bool = False
) -> None:
    """Refuses text tensors whose shapes differ."""
    shape = tuple(input_ids.shape)
    if labels is not None and tuple(labels.shape) != shape:
        raise InvalidValueError(f"labels: must be (row, length) = {shape}, found shape {tuple(labels.shape)}")
    found = shape if attention_mask is None else tuple(attention_mask.shape)
    longer = cached and len(found) == 2 and found[0] == shape[0] and found[1] > shape[1]
    if found != shape and not longer:
        raise InvalidValueError(
            f"attention_mask: must be (row, length) = {shape}, longer only with a cache, found shape {found}"
        )


def check_labels(labels: Tensor, placeholder_token_id: int, vocabulary: int) -> None:
    """Refuses labels that the language model cannot learn."""
    if bool((labels == placeholder_token_id).any()):
        raise PlaceholderError(
            f"labels: must be {IGNORED} where input_ids hold the placeholder token, found {placeholder_token_id}; "
            f"labels.masked_fill(labels == {placeholder_token_id}, {IGNORED}) leaves them out"
        )
    wrong = (labels != IGNORED) & ((labels < 0) | (labels >= vocabulary))
    if bool(wrong.any()):
        raise InvalidValueError(
            f"labels: must be {IGNORED} or one of {vocabulary} tokens, found {int(labels[wrong][0])}"
        )
