"""A model from the towers' tokens: connector first, then all of it."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerFast

from avfusion.models import AudioVisualLanguageModel
from examples.mini_aveb.data import Item
from examples.mini_aveb.model import Variant, begin_words, build_model
from examples.mini_aveb.pretrain import pretrain_connector
from examples.mini_aveb.settings import Settings
from examples.mini_aveb.towers import Towers
from examples.mini_aveb.train import train


def fit(
    towers: Towers,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item],
    variant: Variant,
    settings: Settings,
    *,
    seed: int,
) -> AudioVisualLanguageModel:
    """A trained model of a variant; the towers' tokens are the same for all."""
    torch.manual_seed(seed)
    model = build_model(variant, towers, tokenizer)
    directions = pretrain_connector(model, items, variant, steps=settings.connector_steps, seed=seed)
    begin_words(model, tokenizer, directions)
    train(model, tokenizer, items, variant, reading_steps=settings.reading_steps, steps=settings.steps, seed=seed)
    return model
