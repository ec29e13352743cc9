"""The encoders' pretraining, the training of connector and language model, and what the model answers."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from avfusion import Frames, FrameSynchroniser, TokenStream
from avfusion.media import Media, collate_media
from avfusion.models import AudioVisualLanguageModel, prepare_inputs
from examples.tiny_avllm.data import COLOURS, SCENE, TONES, Clip
from examples.tiny_avllm.model import ENCODER_DIM, SLOTS, Towers
from examples.tiny_avllm.questions import Question, as_prompt, ask_about_every_scene, ask_for_all_scenes

CLIPS_PER_STEP = 16


class EncodedClips(NamedTuple):
    """Frozen encoders always give the same, so they run once: their tokens, and what is in the clips."""

    features: dict[str, Frames | TokenStream]
    clips: Sequence[Clip]

    def select(self, index: Sequence[int]) -> "EncodedClips":
        chosen = {name: type(value)(*(part[index] for part in value)) for name, value in self.features.items()}
        return EncodedClips(chosen, [self.clips[i] for i in index])


def optimise(
    title: str,
    parameters: Iterable[nn.Parameter],
    losses: Callable[[], Tensor],
    *,
    steps: int,
    rate: float,
    bar: int = 0,
) -> None:
    """Steps of AdamW on ``losses()``, with a progress bar in line ``bar``."""
    trained = list(parameters)
    optimiser = torch.optim.AdamW(trained, rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    for _ in (progress := tqdm(range(steps), title, unit="step", position=bar)):
        loss = losses()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}")


def pretrain_encoders(towers: Towers, media: Sequence[Media], clips: Sequence[Clip], *, steps: int) -> None:
    """Teaches them colours and tones: a linear layer on the average of a scene's tokens has to name both."""
    audio, visual = towers.encoders(frozen=False)
    synchronise = FrameSynchroniser(
        visual_dim=ENCODER_DIM, stream_dims={"audio": ENCODER_DIM}, frame_rate=1 / SCENE, slots=SLOTS
    )
    colours, tones = [*COLOURS], [*TONES]
    head = nn.Linear(2 * ENCODER_DIM, len(colours) + len(tones))

    def losses() -> Tensor:
        chosen = torch.randint(len(clips), (CLIPS_PER_STEP,)).tolist()
        video, waveform = collate_media([media[i] for i in chosen])
        frames = synchronise(visual=visual(video), audio=audio(waveform))
        colour, tone = head(frames.tokens.mean(2)).flatten(0, 1).split([len(colours), len(tones)], -1)
        scenes = [scene for i in chosen for scene in clips[i].scenes]
        seen = torch.tensor([colours.index(scene.colour) for scene in scenes])
        heard = torch.tensor([tones.index(scene.tone) for scene in scenes])
        return F.cross_entropy(colour, seen) + F.cross_entropy(tone, heard)

    optimise("encoders", [*towers.parameters(), *head.parameters()], losses, steps=steps, rate=1e-3)


@torch.no_grad()
def encode(model: AudioVisualLanguageModel, media: Sequence[Media], clips: Sequence[Clip]) -> EncodedClips:
    video, waveform = collate_media(media)
    return EncodedClips(model.encode(video, waveform), clips)


def train(
    title: str,
    model: AudioVisualLanguageModel,
    tokenizer: PreTrainedTokenizerFast,
    data: EncodedClips,
    telling_steps: int,
    answering_steps: int,
    seed: int,
    bar: int = 0,
) -> None:
    """Trains connector and language model: first to tell what happens in a clip, then to answer questions too.

    Telling makes the embeddings hold what was seen beside what was heard; questions alone find that out much later.
    """
    choose = random.Random(seed)

    def losses(count: int, ask: Callable[[Clip], list[Question]]) -> Tensor:
        batch = data.select(choose.choices(range(len(data.clips)), k=count))
        asked = [ask(clip) for clip in batch.clips]
        index = torch.tensor([clip for clip, questions in enumerate(asked) for _ in questions])
        counts = model.num_placeholders(features=batch.features)[index]
        prompts = [as_prompt(question.text) for questions in asked for question in questions]
        answers = [question.answer for questions in asked for question in questions]
        inputs = prepare_inputs(tokenizer, prompts, counts, answers=answers)
        return model(**inputs, features=batch.features, media_index=index).loss

    def telling() -> Tensor:
        return losses(2 * CLIPS_PER_STEP, lambda clip: [ask_for_all_scenes(clip.scenes, choose)])

    def answering() -> Tensor:
        return losses(
            CLIPS_PER_STEP,
            lambda clip: [ask_for_all_scenes(clip.scenes, choose), *ask_about_every_scene(clip.scenes, choose)],
        )

    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimise(f"{title}: telling", trained, telling, steps=telling_steps, rate=3e-3, bar=bar)
    optimise(f"{title}: answering", trained, answering, steps=answering_steps, rate=3e-3, bar=bar)
    model.eval()


def answer(
    model: AudioVisualLanguageModel,
    tokenizer: PreTrainedTokenizerFast,
    features: dict[str, Frames | TokenStream],
    questions: Sequence[Sequence[str]],
) -> list[list[str]]:
    """Free-form answers to each clip's questions."""
    index = torch.tensor([clip for clip, asked in enumerate(questions) for _ in asked])
    counts = model.num_placeholders(features=features)[index]
    inputs = prepare_inputs(tokenizer, [as_prompt(text) for asked in questions for text in asked], counts)
    ids = model.generate(
        inputs["input_ids"],
        inputs["attention_mask"],
        features=features,
        media_index=index,
        max_new_tokens=32,
        do_sample=False,
    )
    texts = iter(tokenizer.batch_decode(ids, skip_special_tokens=True))
    return [[next(texts).strip() for _ in asked] for asked in questions]


class Answered(NamedTuple):
    clip: Clip
    question: Question
    given: str

    @property
    def right(self) -> bool:
        return self.given == self.question.answer


def examine(
    model: AudioVisualLanguageModel, tokenizer: PreTrainedTokenizerFast, data: EncodedClips, *, seed: int
) -> list[Answered]:
    """Asks about every scene of every clip."""
    choose = random.Random(seed)
    answered = []
    for first in range(0, len(data.clips), 50):
        batch = data.select(range(first, min(first + 50, len(data.clips))))
        asked = [ask_about_every_scene(clip.scenes, choose) for clip in batch.clips]
        given = answer(model, tokenizer, batch.features, [[question.text for question in of] for of in asked])
        answered += [
            Answered(clip, question, text)
            for clip, of_clip, texts in zip(batch.clips, asked, given, strict=True)
            for question, text in zip(of_clip, texts, strict=True)
        ]
    return answered


def accuracy(answered: Sequence[Answered]) -> float:
    return sum(one.right for one in answered) / len(answered)
