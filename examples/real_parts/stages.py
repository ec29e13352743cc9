"""The stages of training: the connector into the language model's word embeddings, then both on answers."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor, Clip, collate_features
from avfusion.models import conversation as about
from avfusion.training import AlignmentLoss, TextReplay, TimedText, base_answers, parameter_groups
from examples.real_parts import clips as files
from examples.real_parts.model import SeparateConnector
from examples.real_parts.questions import TEXT_TRAINING, dialogue
from examples.tiny_avllm.data import COLOURS

ALIGNED_AT_ONCE = 16  # clips
ANSWERED_AT_ONCE, TURNS = 4, 4  # clips, and questions about each
TEXT_ROWS = 2  # beside the clips of a step


def optimise(
    module: nn.Module, optimizer: torch.optim.Optimizer, losses: Iterator[torch.Tensor], steps: int, name: str
) -> None:
    """AdamW's steps with one cycle of the learning rate: warm-up for a tenth, then down."""
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.1)
    trained = [value for group in optimizer.param_groups for value in group["params"]]
    module.train()
    for _ in (bar := tqdm(range(steps), name, unit="step")):
        loss = next(losses)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    module.eval()


def texts_of(clip: files.Clip) -> dict[str, list[TimedText]]:
    """What is said and what is shown, in the second in which it is."""
    spans = [(number * files.SCENE, (number + 1) * files.SCENE) for number in range(len(clip.scenes))]
    scenes = list(zip(spans, clip.scenes, strict=True))
    return {
        "audio": [TimedText(*span, scene.word) for span, scene in scenes],
        "visual": [TimedText(*span, scene.colour) for span, scene in scenes],
    }


def _joined(texts: dict[str, list[TimedText]], names: Sequence[str]) -> list[TimedText]:
    return [text for name in names for text in texts[name]]


def align(
    model: AudioVisualLanguageModel,
    processor: AudioVisualProcessor,
    clips: Sequence[files.Clip],
    features: Sequence[Clip],
    *,
    steps: int,
    seed: int,
) -> None:
    """Trains the connector to give the language model's own embeddings of the words and colours."""
    loss = AlignmentLoss(model.language_model, processor.tokenizer, candidates=[*files.WORDS, *COLOURS])
    choose = random.Random(seed)
    texts = [texts_of(clip) for clip in clips]
    whole, separate = model.connector, isinstance(model.connector, SeparateConnector)
    # Each connector, and the streams whose texts are its targets, in order.
    trained = [(whole.audio, ["audio"]), (whole.visual, ["visual"])] if separate else [(whole, ["audio", "visual"])]

    def losses() -> Iterator[torch.Tensor]:
        while True:
            index = [choose.randrange(len(clips)) for _ in range(ALIGNED_AT_ONCE)]
            given: dict[str, Any] = collate_features([features[number].features or {} for number in index])
            given = {name: value._replace(tokens=value.tokens.float()) for name, value in given.items()}
            parts = [
                loss(part(**{name: given[name] for name in names}), [_joined(texts[number], names) for number in index])
                for part, names in trained
            ]
            yield torch.stack([part.loss for part in parts]).sum()

    optimizer = torch.optim.AdamW(model.connector.parameters(), lr=1e-3)
    optimise(model.connector, optimizer, losses(), steps, "aligning")


def train(
    model: AudioVisualLanguageModel,
    processor: AudioVisualProcessor,
    clips: Sequence[files.Clip],
    features: Sequence[Clip],
    *,
    steps: int,
    seed: int,
) -> None:
    """Trains LoRA and connector on dialogues about clips, and on text that the language model wrote itself."""
    choose = random.Random(seed)
    texts = base_answers(model, processor, TEXT_TRAINING)
    collate = TextReplay(processor.collate, texts, rows=TEXT_ROWS)

    def losses() -> Iterator[torch.Tensor]:
        while True:
            rows = []
            for number in choose.sample(range(len(clips)), ANSWERED_AT_ONCE):
                turns = dialogue(clips[number], choose, TURNS)
                messages = about(turns[0].text, video=features[number])
                for turn, question in enumerate(turns):
                    messages += [] if turn == 0 else [{"role": "user", "content": question.text}]
                    messages.append({"role": "assistant", "content": question.answer})
                rows.append(messages)
            yield model(**collate(rows)).loss

    model.labelled_logits_only = True
    groups = parameter_groups(model, connector_lr=3e-5, language_model_lr=1e-3)
    optimise(model, torch.optim.AdamW(groups), losses(), steps, "training")
