"""FAVOR as published, of parts of transformers and avfusion."""

from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

from examples.favor.configuration_favor import FavorConfig
from examples.favor.modeling_favor import FavorForConditionalGeneration
from examples.favor.processing_favor import FavorProcessor

AutoConfig.register("favor", FavorConfig, exist_ok=True)
AutoModelForMultimodalLM.register(FavorConfig, FavorForConditionalGeneration, exist_ok=True)
AutoProcessor.register(FavorConfig, FavorProcessor, exist_ok=True)

__all__ = ["FavorConfig", "FavorForConditionalGeneration", "FavorProcessor"]
