"""A model from pretrained parts, with a new connector between them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from avfusion.errors import InvalidValueError
from avfusion.models._features import VISUAL
from avfusion.models._parts import (
    PartSource,
    load_encoder,
    load_language_model,
    load_tokenizer,
    source_of,
)
from avfusion.models._wrappers import base_model, embedding_dim
from avfusion.models.embedding_scale import embedding_norm, match_scale
from avfusion.modules import AudioVisualConnector

Part = str | Path | nn.Module


class Assembled(NamedTuple):
    """Parts that fit each other.

    Attributes:
        arguments: of the model's constructor.
        sources: of the parts that were given by name.
        placeholder: the placeholder token; ``None`` where only its id was given.
    """

    arguments: dict[str, Any]
    sources: dict[str, PartSource]
    placeholder: str | None


def assemble_parts(
    language_model: Part,
    visual_encoder: Part | None,
    audio_encoder: Part | Mapping[str, Part] | None,
    *,
    placeholder: str,
    placeholder_token_id: int | None,
    encoder_options: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
    sizes: Mapping[str, Any],
) -> Assembled:
    """Loads the parts that are given by name, and builds the connector; see ``from_pretrained_parts``."""
    given: dict[str, Part] = {} if visual_encoder is None else {VISUAL: visual_encoder}
    if isinstance(audio_encoder, Mapping):
        given |= audio_encoder
    elif audio_encoder is not None:
        given["audio"] = audio_encoder
    if not given:
        raise InvalidValueError("visual_encoder, audio_encoder: at least one must be given, found neither")
    unknown = sorted(set(encoder_options) - set(given))
    if unknown:
        raise InvalidValueError(f"encoder_options: must be for {sorted(given)}, found {unknown}")
    encoders, sources = _load_encoders(given, encoder_options, options)
    llm: Any = language_model
    if not isinstance(language_model, nn.Module):
        given_options = {key: value for key, value in options.items() if value is not None}
        llm = load_language_model(str(language_model), given_options).requires_grad_(False)
    token, token_id = _placeholder(llm, placeholder, placeholder_token_id)
    audio = {name: encoder for name, encoder in encoders.items() if name != VISUAL}
    connector = AudioVisualConnector.from_encoders(
        visual=encoders.get(VISUAL), audio=audio or None, llm=embedding_dim(llm), **sizes
    )
    match_scale(connector, embedding_norm(llm))
    device = base_model(llm).get_input_embeddings().weight.device
    for part in (connector, *encoders.values()):
        part.to(device)
    arguments = {
        "language_model": llm,
        "connector": connector,
        "audio_encoders": audio,
        "visual_encoder": encoders.get(VISUAL),
        "placeholder_token_id": token_id,
    }
    return Assembled(arguments, sources, token)


def _load_encoders(
    given: Mapping[str, Part], encoder_options: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, PartSource]]:
    """The encoders, and the sources of those given by name; one error names all that are not there."""
    encoders: dict[str, Any] = {}
    sources: dict[str, PartSource] = {}
    wrong = []
    shared = {} if options.get("dtype") is None else {"dtype": options["dtype"]}
    for name, part in given.items():
        if isinstance(part, nn.Module):
            encoders[name] = part
            continue
        kind = VISUAL if name == VISUAL else "audio"
        try:
            encoders[name], source = load_encoder(kind, str(part), {**shared, **encoder_options.get(name, {})})
            if source is not None:
                sources[name] = source
        except InvalidValueError as error:
            wrong.append(str(error))
    if wrong:
        raise InvalidValueError("; ".join(wrong))
    return encoders, sources


def _placeholder(llm: Any, placeholder: str, token_id: int | None) -> tuple[str | None, int]:
    """The placeholder token and its id, which the language model's tokenizer gives."""
    if token_id is not None:
        return None, token_id
    source = source_of(base_model(llm))
    if source is None:
        raise InvalidValueError("placeholder_token_id: must be given for a language model that was not loaded by name")
    tokenizer = load_tokenizer(source.name, placeholder, source.revision)
    return placeholder, int(tokenizer.convert_tokens_to_ids(placeholder))
