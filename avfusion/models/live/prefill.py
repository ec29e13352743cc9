"""The language model's cache: grown window by window, and forked for each question."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from avfusion.models._cache import CACHE
from avfusion.models._wrappers import is_peft, takes, unwrap

AT_ONCE = 1024  # positions: what one call of the language model reads, so that its memory does not depend on the rest


class Prefilled(NamedTuple):
    """How far the language model has read.

    Attributes:
        cache: after that, or ``None``.
        length: positions in it.
    """

    cache: Any
    length: int


NOT_PREFILLED = Prefilled(None, 0)


class Prefiller:
    """Reads embeddings into a cache.

    A cache is never changed: what goes on from it is a fork. The layers that this is done with, those of all plain and
    sliding-window attention, put new tensors in the place of old ones when they grow, so that a fork costs nothing
    until it does. Models with other layers keep no cache.

    Args:
        language_model: a causal language model of transformers, or a ``PeftModel``.
    """

    def __init__(self, language_model: Any) -> None:
        self.language_model = language_model
        self._takes = {name for name in ("position_ids", "logits_to_keep") if takes(language_model, name)}
        language_model = unwrap(language_model)
        prompted = is_peft(language_model) and language_model.active_peft_config.is_prompt_learning
        chosen = getattr(language_model.generation_config, "cache_implementation", None)
        self.keeps_cache = not prompted and chosen in (None, "dynamic")

    def prefill(self, prefilled: Prefilled, embeds: Tensor) -> Prefilled:
        """Goes on from ``prefilled``, which stays as it is.

        Args:
            prefilled: what has been read.
            embeds: ``(1, position, llm_dim)`` of what comes next.
        """
        cache, length = fork(prefilled.cache), prefilled.length
        for part in embeds.split(AT_ONCE, 1):
            if not self.keeps_cache:
                return NOT_PREFILLED
            cache, length = self._append(cache, length, part), length + part.shape[1]
            self.keeps_cache = can_fork(cache)
        return Prefilled(cache, length) if self.keeps_cache else NOT_PREFILLED

    def _append(self, cache: Any, length: int, embeds: Tensor) -> Any:
        total = length + embeds.shape[1]
        options: dict[str, Any] = {"use_cache": True}
        if "position_ids" in self._takes:
            options["position_ids"] = torch.arange(length, total, device=embeds.device)[None]
        if "logits_to_keep" in self._takes:
            options["logits_to_keep"] = 1
        if cache is not None:
            options[CACHE] = cache
        mask = torch.ones(1, total, dtype=torch.int64, device=embeds.device)
        return self.language_model(inputs_embeds=embeds, attention_mask=mask, **options).get(CACHE)


def can_fork(cache: Any) -> bool:
    """Whether growing a fork of ``cache`` leaves it as it was."""
    known = (DynamicLayer, DynamicSlidingWindowLayer)
    return type(cache) is DynamicCache and not cache.offloading and all(type(layer) in known for layer in cache.layers)


def fork(cache: Any) -> Any:
    """A cache that goes on from ``cache``, with the same tensors."""
    if cache is None:
        return None
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    return other
