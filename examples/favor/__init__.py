"""FAVOR as published, of parts of transformers and avfusion."""

from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

from examples.favor import workers  # noqa: F401 - whatever part of this is used, a fork of it is safe
from examples.favor.configuration_favor import FavorConfig
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.processing_favor import FavorProcessor

AutoConfig.register("favor", FavorConfig, exist_ok=True)
AutoModelForMultimodalLM.register(FavorConfig, FavorForConditionalGeneration, exist_ok=True)
AutoProcessor.register(FavorConfig, FavorProcessor, exist_ok=True)

__all__ = ["FavorConfig", "FavorForConditionalGeneration", "FavorProcessor"]
