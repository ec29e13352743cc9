"""Generation of transformers, with media beside the text."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from examples.favor.output import CACHE


class MediaGenerationMixin(GenerationMixin):
    """Gives media to the first step only, and to beams once. The model has their names in ``media_names``."""

    media_names: frozenset[str]

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, inputs_embeds: Tensor | None = None, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """What a step of generation gets: media only until the cache holds them.

        Later steps are the same for all batches and tokens, so that they compile to one graph.
        """
        inputs = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        wanted = inputs["read_media"] = is_first_iteration or not kwargs.get("use_cache", True)
        cache, new = inputs.get(CACHE), inputs.get("input_ids")
        if wanted and cache is not None and cache.get_seq_length() > 0 and new is not None:
            wanted = bool((new == self.config.media_token_id).any())
        dropped = () if wanted else (*self.media_names, "media_index")
        return {name: value for name, value in inputs.items() if name not in dropped}

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        text = {name: value for name, value in model_kwargs.items() if name not in self.media_names}
        super()._validate_model_kwargs(text)

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Repeats the rows for beams; the clips stay as they are, and are encoded once."""
        media = {name: kwargs.pop(name) for name in self.media_names if name in kwargs}
        if expand_size > 1 and any(value is not None for value in media.values()) and kwargs.get("media_index") is None:
            kwargs["media_index"] = torch.arange(len(next(v for v in media.values() if v is not None)))
        input_ids, kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return input_ids, {**kwargs, **media}
