"""transformers' logits processors that look at the text or at its length, built for rows of one length."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import (
    BaseWatermarkingConfig,
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

DEFAULT_NEW_TOKENS = 20  # transformers' own, where no length is set

NEUTRAL: dict[str, Any] = {
    "encoder_repetition_penalty": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "guidance_scale": 1.0,
    "remove_invalid_values": False,
}
"""Values that switch a processor off, where it is not ``None``."""


class RowGroup(NamedTuple):
    """Rows of a batch whose text has the same length.

    Attributes:
        rows: their places in the batch.
        text: ``(row, length)``: what the processors see of their prompts.
        positions: real positions of each prompt, embeddings counted.
        limit: new tokens that each row may have at most; ``None`` where it is not set.
    """

    rows: list[int]
    text: Tensor
    positions: int
    limit: int | None


class Call(NamedTuple):
    """What a processor is built from.

    Attributes:
        model: whose tokens are processed.
        settings: of the call and the model's ``generation_config``.
        group: the rows.
        copies: sequences of each row: beams, or several answers.
        device: of the scores.
    """

    model: Any
    settings: Mapping[str, Any]
    group: RowGroup
    copies: int
    device: torch.device

    @property
    def length(self) -> int:
        """Tokens that the processors see of each prompt."""
        return int(self.group.text.shape[1])

    @property
    def ends(self) -> Tensor | None:
        """``(token,)`` end tokens."""
        value = self.settings.get("eos_token_id")
        return None if value is None else torch.as_tensor(value, device=self.device).reshape(-1)

    def expand(self, values: Tensor) -> Tensor:
        """Values of each row, for each of its sequences."""
        return values.to(self.device).repeat_interleave(self.copies, 0)


def active(settings: Mapping[str, Any]) -> list[str]:
    """The settings that ask for a processor, in the order in which transformers applies them."""
    names = (*_BUILD, "watermarking_config")
    return [name for name in names if settings.get(name) is not None and settings[name] != NEUTRAL.get(name)]


def build(name: str, call: Call) -> Any:
    """The processor of a setting, or ``None`` where it does nothing to these rows."""
    if name == "watermarking_config":
        config = GenerationConfig(watermarking_config=call.settings[name]).watermarking_config
        return config.construct_processor(call.model.config.get_text_config().vocab_size, call.device)
    return _BUILD[name](call.settings[name], call)


class PerRowWatermark(BaseWatermarkingConfig):
    """Has transformers apply a processor where it would apply its own watermark: after everything else."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def validate(self) -> None:
        """Nothing to check: the configuration that it stands for has been."""

    def construct_processor(self, vocab_size: int, device: Any) -> Any:
        """The processor."""
        return self.processor


def _guidance(scale: float, call: Call) -> Any:
    negative = {name: call.settings.get(name) for name in ("negative_prompt_ids", "negative_prompt_attention_mask")}
    ids, mask = (None if v is None else call.expand(v[call.group.rows]) for v in negative.values())
    if ids is None and not call.length:
        return None  # there is no text to go on from
    return UnbatchedClassifierFreeGuidanceLogitsProcessor(
        scale, call.model, unconditional_ids=ids, unconditional_attention_mask=mask, use_cache=True
    )


def _encoder_penalty(penalty: float, call: Call) -> Any:
    if not call.length:
        return None
    return EncoderRepetitionPenaltyLogitsProcessor(penalty=penalty, encoder_input_ids=call.expand(call.group.text))


def _encoder_ngrams(size: int, call: Call) -> Any:
    return EncoderNoRepeatNGramLogitsProcessor(size, call.expand(call.group.text)) if call.length else None


def _min_new(count: int, call: Call) -> Any:
    if call.ends is None or count <= 0:
        return None
    return MinNewTokensLengthLogitsProcessor(call.length, count, call.ends, device=str(call.device))


def _min_length(length: int, call: Call) -> Any:
    given = call.settings.get("min_new_tokens") is not None  # which takes precedence
    return None if given else _min_new(length - call.group.positions, call)


def _prefix(allowed: Callable[[int, Tensor], list[int]], call: Call) -> Any:
    rows = call.group.rows
    return PrefixConstrainedLogitsProcessor(lambda row, ids: allowed(rows[row], ids), call.copies)


def _forced_first(token: int, call: Call) -> Any:
    return ForcedBOSTokenLogitsProcessor(token) if call.length == call.group.positions == 1 else None


def _forced_last(token: Any, call: Call) -> Any:
    limit = DEFAULT_NEW_TOKENS if call.group.limit is None else call.group.limit
    return ForcedEOSTokenLogitsProcessor(call.length + limit, token, device=str(call.device))


def _decay(values: Any, call: Call) -> Any:
    return ExponentialDecayLengthPenalty(values, call.ends, call.length)


def _suppress_first(tokens: Any, call: Call) -> Any:
    later = call.group.positions == 1 and call.settings.get("forced_bos_token_id") is not None
    return SuppressTokensAtBeginLogitsProcessor(tokens, call.length + later, device=str(call.device))


_BUILD: dict[str, Callable[[Any, Call], Any]] = {
    "guidance_scale": _guidance,
    "sequence_bias": lambda value, call: SequenceBiasLogitsProcessor(value),
    "encoder_repetition_penalty": _encoder_penalty,
    "repetition_penalty": lambda value, call: RepetitionPenaltyLogitsProcessor(value),
    "no_repeat_ngram_size": lambda value, call: NoRepeatNGramLogitsProcessor(value),
    "encoder_no_repeat_ngram_size": _encoder_ngrams,
    "bad_words_ids": lambda value, call: NoBadWordsLogitsProcessor(value, call.ends),
    "min_length": _min_length,
    "min_new_tokens": _min_new,
    "prefix_allowed_tokens_fn": _prefix,
    "forced_bos_token_id": _forced_first,
    "forced_eos_token_id": _forced_last,
    "remove_invalid_values": lambda value, call: InfNanRemoveLogitsProcessor(),
    "exponential_decay_length_penalty": _decay,
    "suppress_tokens": lambda value, call: SuppressTokensLogitsProcessor(value, device=str(call.device)),
    "begin_suppress_tokens": _suppress_first,
}
