"""Instruction data for training: conversations with their media, and batches of them."""

import random
from collections.abc import Sequence
from typing import Literal

import torch
from torch.utils.data import Dataset

from avfusion import InvalidValueError
from avfusion.models import Clip
from examples.favor.features import FeatureCache
from examples.favor.processing_favor import FavorProcessor
from examples.favor.records import Example
from examples.favor.streams import STREAMS, VISUAL
from examples.favor.tags import Messages


class Conversations(Dataset[Messages]):
    """Conversations with what their files hold; read where they are asked for, so in the workers of a DataLoader.

    Modality dropout shows a clip that has both sound and pictures without one of them, so that the model learns to
    listen and to watch. What is dropped depends on seed, epoch and index alone: a training that is continued sees the
    same.

    Args:
        examples: of :func:`read_examples`.
        processor: reads the media.
        features: the towers' tokens, instead of media.
        drop_audio: probability of showing a clip without its sound.
        drop_video: probability of showing a clip without its pictures.
        seed: of the dropout.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        processor: FavorProcessor,
        features: FeatureCache | None = None,
        drop_audio: float = 0.0,
        drop_video: float = 0.0,
        seed: int = 0,
    ) -> None:
        if min(drop_audio, drop_video) < 0 or not drop_audio + drop_video <= 1:
            raise InvalidValueError(
                "drop_audio, drop_video: must be probabilities with a sum of at most 1, "
                f"found {drop_audio} and {drop_video}"
            )
        self.examples = list(examples)
        self.processor = processor
        self.features = features
        self.drop_audio = drop_audio
        self.drop_video = drop_video
        self.seed = seed
        # In shared memory, because workers that outlive an epoch have to see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Other clips lack other modalities in another epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Messages:
        example = self.examples[index]
        try:
            clip = (
                self.processor.load_clip(example.messages)
                if self.features is None
                else self.features.clip(example.messages)
            )
        except InvalidValueError as error:
            raise type(error)(f"{example.place}: {error}") from None
        if clip is None:
            return example.messages
        return with_clip(example.messages, without(clip, self.dropped(index)))

    def dropped(self, index: int) -> Literal["audio", "video"] | None:
        """What this epoch takes from a clip that has both."""
        chance = random.Random(f"{self.seed} {int(self._epoch)} {index}").random()
        if chance < self.drop_audio:
            return "audio"
        return "video" if chance < self.drop_audio + self.drop_video else None


def with_clip(messages: Messages, clip: Clip) -> Messages:
    """The conversation with the clip where its files were."""
    replaced = []
    for message in messages:
        content = message["content"]
        text = content if isinstance(content, str) else [part for part in content if part["type"] == "text"]
        if len(text) < len(content):
            text = [{"type": "video", "video": clip}, *text]
        replaced.append({**message, "content": text})
    return replaced


def without(clip: Clip, dropped: Literal["audio", "video"] | None) -> Clip:
    """The clip without its sound or pictures, if it has both."""
    if dropped is None:
        return clip
    if clip.features is not None:
        there = {name for name, stream in STREAMS.items() if len(clip.features.get(stream.tokens, ()))}
        if VISUAL not in there or there == {VISUAL}:
            return clip
        kept = there - {VISUAL} if dropped == "video" else {VISUAL}
        names = {part for name in kept for part in STREAMS[name].features}
        return clip._replace(features={name: value for name, value in clip.features.items() if name in names})
    if clip.video is None or clip.waveform is None or not (clip.video.mask.any() and clip.waveform.mask.any()):
        return clip
    return clip._replace(waveform=None) if dropped == "audio" else clip._replace(video=None)
