"""What transformers' own common tests ask of a model: a small configuration and inputs for it.

``.ci/transformers_common`` runs them against this class.
"""

from typing import Any

import torch
from torch import Tensor

from examples.favor import FavorConfig
from examples.favor.tiny import tiny_config


class FavorModelTester:
    """Tiny FAVOR, with a clip of pictures and sound in every row."""

    batch_size = 3
    is_training = True
    num_hidden_layers = 2
    num_attention_heads = 2
    hidden_size = 32
    vocab_size = 300
    frames, seconds, media_tokens = 4, 2, 4
    seq_length = media_tokens + 9

    def __init__(self, parent: Any = None, preset: str = "favor-vicuna-7b") -> None:
        self.parent = parent
        self.preset = preset

    def get_config(self) -> FavorConfig:
        return tiny_config(self.preset)

    def prepare_config_and_inputs_for_common(self) -> tuple[FavorConfig, dict[str, Tensor]]:
        config, rows = self.get_config(), self.batch_size
        ids = torch.randint(5, 250, (rows, self.seq_length))
        ids[:, 1 : 1 + self.media_tokens] = config.media_token_id
        side = config.vision_config.image_size
        frames = 2 * config.audio_config.max_source_positions * self.seconds
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values_videos": torch.rand(rows, self.frames, 3, side, side),
            "input_features": torch.rand(rows, config.audio_config.num_mel_bins, frames),
        }
        if config.qformer_config is not None:
            inputs["qformer_input_ids"] = torch.randint(3, 200, (rows, 5))
        if config.event_config is not None:
            inputs["input_values"] = torch.randn(rows, 16_000 * self.seconds)
        return config, inputs
