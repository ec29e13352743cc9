"""Connector and language model learn the tasks, and answer them."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from avfusion.aveb import Request, shuffled
from avfusion.aveb.runner import Answer
from avfusion.models import AudioVisualLanguageModel, prepare_inputs
from examples.mini_aveb.asking import ask
from examples.mini_aveb.data import Features, Item, batches, collate, request_of
from examples.mini_aveb.model import Variant
from examples.mini_aveb.optimising import optimise
from examples.mini_aveb.text import as_prompt

ITEMS_PER_STEP = 32


def train(
    model: AudioVisualLanguageModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item],
    variant: Variant,
    *,
    steps: int,
    seed: int,
) -> float:
    """Trains connector and language model on every task at once, with more questions than the records ask."""
    choose = random.Random(seed)
    drawn = batches(items, ITEMS_PER_STEP, choose)

    def losses() -> Tensor:
        batch = next(drawn)
        features = collate(batch, variant.frame_rate)
        rows = [(place, record) for place, item in enumerate(batch) for record in ask(item.record, item.truth, choose)]
        asked = [request_of(record, choose.randrange(2**32)) for _, record in rows]
        index = torch.tensor([place for place, _ in rows])
        inputs = prepare_inputs(
            tokenizer,
            [as_prompt(request) for request, _ in asked],
            model.num_placeholders(features=features)[index],
            answers=[answer for _, answer in asked],
        )
        return model(**inputs, features=features, media_index=index).loss

    model.train()
    # Until the language model looks at the embeddings, their gradients are noise; Adam would make full steps of it.
    loss = optimise("training", {model.language_model: 2e-3, model.connector: 1e-4}, losses, steps=steps)
    model.eval()
    return loss


@torch.no_grad()
def answer(
    model: AudioVisualLanguageModel,
    tokenizer: PreTrainedTokenizerFast,
    features: Features,
    requests: Sequence[Request],
    index: Tensor | None = None,
) -> list[str]:
    """A text for each request.

    Args:
        model: a trained model.
        tokenizer: of its words.
        features: of media.
        requests: what is asked.
        index: row of ``features`` that each request is about, -1 for none; each its own row without it.
    """
    counts = torch.zeros(len(requests), dtype=torch.int64)
    if features:
        index = torch.arange(len(requests)) if index is None else index
        counts = model.num_placeholders(features=features)[index].where(index >= 0, 0)
    inputs = prepare_inputs(tokenizer, [as_prompt(request) for request in requests], counts)
    ids = model.generate(
        inputs["input_ids"],
        inputs["attention_mask"],
        features=features or None,
        media_index=index if features else None,
        max_new_tokens=16,
        do_sample=False,
    )
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


def examine(
    model: AudioVisualLanguageModel, tokenizer: PreTrainedTokenizerFast, items: Sequence[Item], variant: Variant
) -> dict[str, list[Answer]]:
    """Answers to every item, by task."""
    found: dict[str, list[Answer]] = {}
    for first in range(0, len(items), 50):
        batch = items[first : first + 50]
        requests = [request_of(item.record, 0)[0] for item in batch]
        texts = answer(model, tokenizer, collate(batch, variant.frame_rate), requests)
        for item, text in zip(batch, texts, strict=True):
            shown = shuffled(item.record, 0)
            found.setdefault(item.record.task, []).append(Answer.of(item.record, shown, text))
    return found
