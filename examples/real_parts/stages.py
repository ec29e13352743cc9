"""The stages of training: the connector into the language model's word embeddings, then both on answers."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor, Clip, MediaBatch, collate_features
from avfusion.models import conversation as about
from avfusion.training import AlignmentLoss, TextReplay, TimedText, base_answers, drop_modalities, parameter_groups
from examples.real_parts import clips as files
from examples.real_parts.arms import Arm
from examples.real_parts.model import SeparateConnector, to_model
from examples.real_parts.questions import Dialogue
from examples.real_parts.text_questions import TEXT_TRAINING
from examples.tiny_avllm.data import COLOURS

ALIGNED_AT_ONCE = 16  # clips
ANSWERED_AT_ONCE, TURNS = 4, 4  # clips, and questions about each
TEXT_ROWS = 2  # beside the clips of a step
SILENCE = "nothing"  # what a silent second is aligned with
DROPPED = 0.25  # share of clips that lose their frames, and of those that lose their sound


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
        "audio": [TimedText(*span, scene.word or SILENCE) for span, scene in scenes],
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
    texts = [texts_of(clip) for clip in clips]
    silent = any(not scene.word for clip in clips for scene in clip.scenes)
    names = [*files.WORDS, *COLOURS, *([SILENCE] if silent else [])]
    loss = AlignmentLoss(model.language_model, processor.tokenizer, candidates=names)
    choose = random.Random(seed)
    whole, separate = model.connector, isinstance(model.connector, SeparateConnector)
    # Each connector, and the streams whose texts are its targets, in order.
    trained = [(whole.audio, ["audio"]), (whole.visual, ["visual"])] if separate else [(whole, ["audio", "visual"])]
    like = next(whole.parameters())

    def losses() -> Iterator[torch.Tensor]:
        while True:
            index = [choose.randrange(len(clips)) for _ in range(ALIGNED_AT_ONCE)]
            given: dict[str, Any] = collate_features([features[number].features or {} for number in index])
            given = dict(MediaBatch(features=given).to(like.device).features or {})
            given = {name: value._replace(tokens=value.tokens.to(like)) for name, value in given.items()}
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
    dialogue: Dialogue,
    arm: Arm,
    steps: int,
    seed: int,
    connector_lr: float = 3e-5,
    language_model_lr: float = 5e-4,
) -> None:
    """Trains LoRA and connector on dialogues about clips, and on text that the language model wrote itself."""
    choose = random.Random(seed)
    dropping = torch.Generator().manual_seed(seed)
    collate: Callable[[list[Any]], Any] = processor.collate
    if arm.replay:
        collate = TextReplay(collate, base_answers(model, processor, TEXT_TRAINING), rows=TEXT_ROWS)

    def losses() -> Iterator[torch.Tensor]:
        while True:
            rows = []
            for number in choose.sample(range(len(clips)), ANSWERED_AT_ONCE):
                shown = _dropped(features[number], dropping) if arm.dropped else features[number]
                turns = dialogue(clips[number], choose, TURNS, _streams(shown))
                messages = about(turns[0].text, video=shown)
                for turn, question in enumerate(turns):
                    messages += [] if turn == 0 else [{"role": "user", "content": question.text}]
                    messages.append({"role": "assistant", "content": question.answer})
                rows.append(messages)
            yield model(**to_model(collate(rows), model)).loss

    model.labelled_logits_only = True
    groups = parameter_groups(model, connector_lr=connector_lr, language_model_lr=language_model_lr)
    optimise(model, torch.optim.AdamW(groups), losses(), steps, "training")


def _dropped(clip: Clip, generator: torch.Generator) -> Clip:
    """The clip, without its frames or without its sound, or whole."""
    batch = MediaBatch(features=collate_features([clip.features or {}]))
    return clip._replace(features=drop_modalities(batch, video=DROPPED, audio=DROPPED, generator=generator).features)


def _streams(clip: Clip) -> frozenset[str]:
    """What of a clip is not masked."""
    return frozenset(name for name, value in (clip.features or {}).items() if value.mask.any())
