"""What the model gives, and the cache by either of its names."""

import warnings
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from avfusion import InvalidValueError


@dataclass
class FavorOutput(CausalLMOutputWithPast):
    """What the language model gives, and the diversity loss that is part of ``loss``."""

    diversity_loss: Tensor | None = None


CACHE = fields(FavorOutput)[2].name  # "cache" from transformers 5.24 on, "past_key_values" before


def one_cache(cache: Any, past_key_values: Any) -> Any:
    """The cache, by whichever name it came."""
    if past_key_values is None:
        return cache
    if cache is not None:
        raise InvalidValueError(f"cache, past_key_values: must not come together, found both; give {CACHE} alone")
    if CACHE == "cache":  # the models of transformers warn too
        warnings.warn("`past_key_values` is deprecated; give `cache`", FutureWarning, stacklevel=3)
    return past_key_values
