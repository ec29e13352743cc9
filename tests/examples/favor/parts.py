"""The models of transformers and timm in favor's encoders."""

from typing import Any

from torch import nn


def inside(model: Any) -> dict[str, nn.Module]:
    """Those that see and hear, by what they are; of timm's the first layer, as the whole is never called."""
    eyes = model.visual_encoder
    if hasattr(eyes, "qformer"):
        seeing = {"vision": eyes.vision_model, "qformer": eyes.qformer}
    else:
        seeing = {"vision": getattr(eyes.model, "conv_stem", eyes.model)}
    return {**seeing, "audio": model.audio_encoder.model}
