"""Answers about clips that the model has not seen, answers without a clip, and answers about a live stream."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from tqdm import tqdm

from avfusion.media import open_live
from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor, Clip, LiveSession, conversation
from examples.real_parts import clips as files
from examples.real_parts.free_questions import phrases_right
from examples.real_parts.model import to_model
from examples.real_parts.questions import Question, ask
from examples.real_parts.text_questions import TEXT_HELD_OUT

CONDITIONS = {"both": ("visual", "audio"), "no sound": ("visual",), "no frames": ("audio",), "neither": ()}
BATCH = 20
LONGEST = 64  # tokens of an answer


class Answered(NamedTuple):
    """An answer, right if it is exactly the one expected."""

    clip: int
    question: Question
    given: str

    @property
    def right(self) -> bool:
        return self.given.strip() == self.question.answer


def accuracy(answered: Sequence[Answered]) -> dict[str, float]:
    """The share of right answers, of all and by kind; of descriptions also the share of right phrases."""
    kinds = {"all": list(answered)}
    for one in answered:
        kinds.setdefault(one.question.kind, []).append(one)
    shares = {kind: sum(one.right for one in some) / len(some) for kind, some in kinds.items()}
    if described := kinds.get("description"):
        right, all_of_them = zip(*(phrases_right(one.question.answer, one.given) for one in described), strict=True)
        shares["phrases of descriptions"] = sum(right) / sum(all_of_them)
    return {kind: round(share, 4) for kind, share in shares.items()}


@torch.no_grad()
def examine(
    model: AudioVisualLanguageModel,
    processor: AudioVisualProcessor,
    features: Sequence[Clip],
    questions: Sequence[tuple[int, Question]],
    condition: str = "both",
) -> list[Answered]:
    """Asks about clips of which only some streams are given."""
    kept = [_some(clip, CONDITIONS[condition]) for clip in features]
    answered = []
    for first in tqdm(range(0, len(questions), BATCH), f"asking, {condition}", unit="batch"):
        part = questions[first : first + BATCH]
        rows = [conversation(one.text, video=kept[number]) for number, one in part]
        inputs = to_model(processor.apply_chat_template(rows), model)
        ids = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
        given = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        answered += [Answered(number, one, text) for (number, one), text in zip(part, given, strict=True)]
    return answered


def _some(clip: Clip, streams: Sequence[str]) -> Clip | None:
    kept = {name: value for name, value in (clip.features or {}).items() if name in streams}
    return clip._replace(features=kept) if kept else None


@torch.no_grad()
def text_ability(model: AudioVisualLanguageModel, processor: AudioVisualProcessor, most: int = 32) -> dict[str, Any]:
    """Greedy answers without a clip, and their perplexity under the base model, beside that of its own answers."""
    rows = [conversation(text) for text in TEXT_HELD_OUT]
    answers: dict[str, list[str]] = {}
    perplexity = {}
    modes: dict[str, Literal["adapted", "base"]] = {"trained": "adapted", "base": "base"}
    for name, mode in modes.items():
        inputs = to_model(processor.apply_chat_template(rows), model)
        ids = model.generate(**inputs, text_only=mode, max_new_tokens=most, do_sample=False)
        answers[name] = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    for name, given in answers.items():
        perplexity[name] = _perplexity(model, processor, given)
    same = sum(a == b for a, b in zip(answers["trained"], answers["base"], strict=True))
    return {
        "prompts": len(rows),
        "same_answers": same,
        "perplexity": perplexity,
        "ratio": round(perplexity["trained"] / perplexity["base"], 4),
        "answers": [
            {"question": question, "trained": ours, "base": theirs}
            for question, ours, theirs in zip(TEXT_HELD_OUT, answers["trained"], answers["base"], strict=True)
        ],
    }


def _perplexity(model: AudioVisualLanguageModel, processor: AudioVisualProcessor, given: Sequence[str]) -> float:
    """Of all tokens of answers, without their ends, under the base model."""
    total, count = 0.0, 0
    for question, answer in zip(TEXT_HELD_OUT, given, strict=True):
        messages = [*conversation(question), {"role": "assistant", "content": answer}]
        inputs = to_model(processor.apply_chat_template(messages, return_labels=True), model)
        labels = inputs.pop("labels")[0, 1:]
        with model.language_model.disable_adapter():
            logits = model.language_model(**inputs).logits[0, :-1]
        real = (labels != -100) & (labels != processor.tokenizer.eos_token_id)
        lost = torch.nn.functional.cross_entropy(logits[real].float(), labels[real], reduction="sum")
        total, count = total + float(lost), count + int(real.sum())
    return round(math.exp(total / count), 4)


@torch.no_grad()
def watch(
    model: AudioVisualLanguageModel, processor: AudioVisualProcessor, clip: files.Clip, features: Clip, choose: Any
) -> dict[str, Any]:
    """Asks about the newest scene after every second of a stream, and generate about the same seconds of the file."""
    prompt = processor.apply_chat_template(conversation("{question}", video=features), tokenize=False)
    session = LiveSession(model, processor.tokenizer, prompt=prompt, add_special_tokens=False)
    options: dict[str, Any] = {"max_new_tokens": 10, "do_sample": False}
    asked = []
    source: dict[str, Any] = {name: getattr(processor, name) for name in ("frame_rate", "size", "sample_rate")}
    with open_live(str(clip.path), realtime=False, **source) as chunks:
        for chunk in chunks:
            watched = session.watch(chunk.video, chunk.waveform, watermark=chunk.watermark, ended=chunk.ended)
            now = watched.watermark
            if not 1 <= now <= len(clip.scenes) or now % files.SCENE:
                continue
            question = ask(clip.scenes[int(now) - 1], "colour", choose)
            live = "".join(session.ask(question.text, **options))
            inputs = to_model(
                processor.apply_chat_template(conversation(question.text, video=_until(features, now))), model
            )
            ids = model.generate(**inputs, **options)
            whole = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)[0]
            asked.append((question, live, whole))
    return {
        "file": Path(clip.path).name,
        "asked": len(asked),
        "equal": sum(live == whole for _, live, whole in asked),
        "right": sum(live.strip() == question.answer for question, live, _ in asked),
    }


def _until(clip: Clip, seconds: float) -> Clip:
    """The part of a clip's features before a time."""
    kept = clip.features or {}
    visual, audio = kept["visual"], kept["audio"]
    seen = visual._replace(mask=visual.mask & (visual.spans[..., 1] <= seconds + 1e-6)[..., None])
    heard = audio._replace(mask=audio.mask & (audio.timestamps < seconds))
    return clip._replace(features={"visual": seen, "audio": heard})
