"""The encoders' pretraining, the training of connector and language model, and what the model answers."""

import random
from collections.abc import Callable, Mapping, Sequence
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
from examples.tiny_avllm.model import ENCODER_DIM, HIDDEN, SLOTS, SeparateConnector, Towers
from examples.tiny_avllm.questions import Question, as_prompt, ask_about_every_scene

CLIPS_PER_STEP = 16


class EncodedClips(NamedTuple):
    """Frozen encoders always give the same, so they run once: their tokens, and what is in the clips."""

    features: dict[str, Frames | TokenStream]
    clips: Sequence[Clip]

    def select(self, index: Sequence[int]) -> "EncodedClips":
        chosen = {name: type(value)(*(part[index] for part in value)) for name, value in self.features.items()}
        return EncodedClips(chosen, [self.clips[i] for i in index])


def optimise(
    title: str, rates: Mapping[nn.Module, float], losses: Callable[[], Tensor], *, steps: int, bar: int = 0
) -> None:
    """Steps of AdamW on ``losses()``, each module at its rate, with a progress bar in line ``bar``."""
    groups = [{"params": [*module.parameters()], "lr": rate} for module, rate in rates.items()]
    optimiser = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [*rates.values()], total_steps=steps, pct_start=0.1)
    for _ in (progress := tqdm(range(steps), title, unit="step", position=bar)):
        loss = losses()
        loss.backward()
        nn.utils.clip_grad_norm_([parameter for module in rates for parameter in module.parameters()], 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}")


class Naming(nn.Module):
    """Linear layers that have to name the colour and the tone of each scene, to pretrain what is before them.

    Args:
        dim: width of what they get.
        scenes: that each part of what they get has to tell of.
    """

    def __init__(self, dim: int, *, scenes: int = 1) -> None:
        super().__init__()
        self.colour = nn.Linear(dim, scenes * len(COLOURS))
        self.tone = nn.Linear(dim, scenes * len(TONES))

    def forward(self, seen: Tensor, heard: Tensor, clips: Sequence[Clip]) -> Tensor:
        """The loss; ``seen`` and ``heard`` are ``(clip, part, dim)``, from the first scene on."""
        scenes = [scene for clip in clips for scene in clip.scenes]
        lengths = torch.tensor([len(clip.scenes) for clip in clips])

        def loss(named: Tensor, names: Sequence[str], truth: Sequence[str]) -> Tensor:
            named = named.reshape(len(clips), -1, len(names))
            real = torch.arange(named.shape[1]) < lengths[:, None]
            return F.cross_entropy(named[real], torch.tensor([names.index(name) for name in truth]))

        return loss(self.colour(seen), [*COLOURS], [scene.colour for scene in scenes]) + loss(
            self.tone(heard), [*TONES], [scene.tone for scene in scenes]
        )


def pretrain_encoders(towers: Towers, media: Sequence[Media], clips: Sequence[Clip], *, steps: int) -> None:
    """Teaches them colours and tones: the average of a scene's tokens has to tell both."""
    audio, visual = towers.encoders(frozen=False)
    synchronise = FrameSynchroniser(
        visual_dim=ENCODER_DIM, stream_dims={"audio": ENCODER_DIM}, frame_rate=1 / SCENE, slots=SLOTS
    )
    naming = Naming(2 * ENCODER_DIM)

    def losses() -> Tensor:
        chosen = torch.randint(len(clips), (CLIPS_PER_STEP,)).tolist()
        video, waveform = collate_media([media[i] for i in chosen])
        tokens = synchronise(visual=visual(video), audio=audio(waveform)).tokens.mean(2)
        return naming(tokens, tokens, [clips[i] for i in chosen])

    optimise("encoders", {towers: 4e-3, naming: 4e-3}, losses, steps=steps)


def pretrain_connector(connector: nn.Module, data: EncodedClips, *, steps: int, bar: int = 0) -> None:
    """Teaches it what to hand on: each embedding has to tell of its share of the scenes.

    The synchronised one's tell the colour and the tone of one scene; half of the twin's tell the colours of two scenes,
    and the other half the tones.
    """
    separate = isinstance(connector, SeparateConnector)
    naming = Naming(HIDDEN, scenes=2 if separate else 1)

    def losses() -> Tensor:
        batch = data.select(torch.randint(len(data.clips), (CLIPS_PER_STEP,)).tolist())
        embeddings = connector(**batch.features).embeddings
        seen, heard = embeddings.chunk(2, 1) if separate else (embeddings, embeddings)
        return naming(seen, heard, batch.clips)

    optimise("connector", {connector: 3e-3, naming: 3e-3}, losses, steps=steps, bar=bar)


@torch.no_grad()
def encode(model: AudioVisualLanguageModel, media: Sequence[Media], clips: Sequence[Clip]) -> EncodedClips:
    video, waveform = collate_media(media)
    return EncodedClips(model.encode(video, waveform), clips)


def train(
    title: str,
    model: AudioVisualLanguageModel,
    tokenizer: PreTrainedTokenizerFast,
    data: EncodedClips,
    *,
    steps: int,
    seed: int,
    bar: int = 0,
) -> None:
    """Trains connector and language model: a step asks about every scene of some clips, one question a row."""
    choose = random.Random(seed)

    def losses() -> Tensor:
        batch = data.select(choose.choices(range(len(data.clips)), k=CLIPS_PER_STEP))
        asked = [ask_about_every_scene(clip.scenes, choose) for clip in batch.clips]
        index = torch.tensor([clip for clip, questions in enumerate(asked) for _ in questions])
        counts = model.num_placeholders(features=batch.features)[index]
        prompts = [as_prompt(question.text) for questions in asked for question in questions]
        answers = [question.answer for questions in asked for question in questions]
        inputs = prepare_inputs(tokenizer, prompts, counts, answers=answers)
        return model(**inputs, features=batch.features, media_index=index).loss

    model.train()
    # Until the language model looks at the embeddings, their gradients are noise; Adam would make full steps of it.
    optimise(title, {model.language_model: 3e-3, model.connector: 3e-5}, losses, steps=steps, bar=bar)
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
