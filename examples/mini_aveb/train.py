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

_ITEMS = 8  # of a step


def train(
    model: AudioVisualLanguageModel,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[Item],
    variant: Variant,
    *,
    reading_steps: int,
    steps: int,
    seed: int,
) -> float:
    """Trains every task at once, with more questions than the records ask.

    First the language model alone learns to read the connector's embeddings, which stay as they are and are computed
    once; then both learn together, the connector with the diversity loss.
    """
    choose = random.Random(seed)
    embeddings = _embeddings(model, items, variant)
    drawn = batches(items, _ITEMS, choose)

    def reading() -> Tensor:
        places = next(drawn)
        inputs, index = _inputs(
            tokenizer, [items[place] for place in places], choose, [len(embeddings[place]) for place in places]
        )
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        shown = torch.cat([embeddings[places[row]] for row in index.tolist()])
        text = model.language_model.get_input_embeddings()(ids)
        text = text.masked_scatter((ids == model.placeholder_token_id)[..., None], shown)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = model.language_model(
            inputs_embeds=text, attention_mask=mask, position_ids=positions, labels=inputs["labels"]
        )
        return out.loss

    def together() -> Tensor:
        batch = [items[place] for place in next(drawn)]
        features = collate(batch, variant.frame_rate)
        inputs, index = _inputs(tokenizer, batch, choose, model.num_placeholders(features=features).tolist())
        return model(**inputs, features=features, media_index=index).loss

    model.train()
    optimise("reading", {model.language_model: 3e-3}, reading, steps=reading_steps)
    loss = optimise("training", {model.language_model: 3e-4, model.connector: 3e-4}, together, steps=steps)
    model.eval()
    return loss


@torch.no_grad()
def _embeddings(model: AudioVisualLanguageModel, items: Sequence[Item], variant: Variant) -> list[Tensor]:
    """``(position, HIDDEN)`` of every item."""
    found: list[Tensor] = [torch.empty(0)] * len(items)
    order = sorted(range(len(items)), key=lambda place: items[place].seconds)
    model.connector.eval()
    for first in range(0, len(order), 50):
        places = order[first : first + 50]
        out = model.connect(collate([items[place] for place in places], variant.frame_rate))
        for row, place in enumerate(places):
            found[place] = out.embeddings[row, out.mask[row]]
    return found


def _inputs(
    tokenizer: PreTrainedTokenizerFast, batch: Sequence[Item], choose: random.Random, counts: Sequence[int]
) -> tuple[dict[str, Tensor], Tensor]:
    """Questions about a batch with their answers, and which item each row is about."""
    rows = [(place, record) for place, item in enumerate(batch) for record in ask(item.record, item.truth, choose)]
    asked = [request_of(record, choose.randrange(2**32)) for _, record in rows]
    inputs = prepare_inputs(
        tokenizer,
        [as_prompt(request) for request, _ in asked],
        [counts[place] for place, _ in rows],
        answers=[answer for _, answer in asked],
    )
    return inputs, torch.tensor([place for place, _ in rows])


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
