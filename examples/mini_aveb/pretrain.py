"""What the parts learn before they are joined: the towers to tell what they are shown, the connector to hand it on."""

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avfusion import DiversityLoss, Video
from avfusion.aveb import Record
from avfusion.aveb.mini import COLOURS, LEVELS, MAKERS, SHAPES, SPOKEN
from avfusion.media import Media, collate_media
from avfusion.models import AudioVisualLanguageModel
from examples.mini_aveb.data import Item, batches, collate
from examples.mini_aveb.labels import HEARD, SEEN, THINGS, heard, seen
from examples.mini_aveb.model import HIDDEN, SeparateConnector, Variant
from examples.mini_aveb.optimising import optimise
from examples.mini_aveb.towers import AUDIO_RATE, DIM, FRAME_RATE, Towers

_PICTURES, _SOUNDS, _CLIPS = 66, 16, 12  # of a step
_RARE = -4.0  # log odds: most things are not there, and a hundred steps would go into learning that first
_LOOKS = len(COLOURS) + len(SHAPES)
_NAMES = 3 * _LOOKS + len(SPOKEN) + len(HEARD)
"""What embeddings name: looks in the left half, in the right half, of what is large; written words; what is heard."""

_FEWEST = 3  # tokens of a sound that count


class Telling(nn.Module):
    """Linear layers that say of each token of a tower what it is about; of a picture the surest token counts."""

    def __init__(self) -> None:
        super().__init__()
        names = len(THINGS) + len(COLOURS) + len(SHAPES)
        self.thing, self.large = nn.Linear(DIM, names), nn.Linear(DIM, names)
        self.word = nn.Linear(DIM, len(SPOKEN))
        self.sound = nn.Linear(DIM, len(HEARD))
        for layer in (self.thing, self.large, self.word):
            nn.init.constant_(layer.bias, _RARE)

    def pictures(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """The loss of ``(picture, TOKENS, DIM)`` whose contents are ``(picture, SEEN)``."""
        left, right, large, word = wanted.split([len(THINGS)] * 3 + [len(SPOKEN)], 1)
        told = self.thing(tokens).unflatten(1, (4, 2, 2)).amax((1, 3))
        loss = _missed(told.amax(1), _factors(left.maximum(right)))
        sides = _missed(told[:, 0], _factors(left)) + _missed(told[:, 1], _factors(right))
        loss = loss + sides * (left != right).any(1)  # of some pictures it is not known which half a thing is in
        loss = loss + _missed(self.large(tokens).amax(1), _factors(large))
        return (loss + _missed(self.word(tokens).amax(1), word)).mean()


def _factors(things: Tensor) -> Tensor:
    """Things, their colours and their shapes: what has a red circle also has something red."""
    table = things.unflatten(1, (len(COLOURS), len(SHAPES)))
    return torch.cat([things, table.amax(2), table.amax(1)], 1)


def _missed(told: Tensor, wanted: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(told, wanted, reduction="none").sum(1)


def pretrain_towers(
    towers: Towers, pairs: Sequence[tuple[Record, dict[str, Any]]], media: Sequence[Media], *, steps: int, seed: int
) -> float:
    """Teaches both towers what the generator put into pictures and sounds."""
    choose, telling = random.Random(seed), Telling()
    audio, vision = towers.encoders(frozen=False)
    targets = [
        None if one.video is None else seen(truth, one.video.pixels.shape[1])
        for (_, truth), one in zip(pairs, media, strict=True)
    ]
    moving = [place for place, (record, _) in enumerate(pairs) if record.task in ("avssd", "avm")]
    filmed = [place for place, (record, _) in enumerate(pairs) if targets[place] is not None and record.task != "ocr"]
    sounding = [place for place, one in enumerate(media) if one.waveform is not None]
    written = np.random.default_rng(seed)

    def pictures() -> tuple[Tensor, Tensor]:
        """A third are things, a third pulse, and a third are words, new ones: it takes many to learn to read."""
        pixels, wanted = [], []
        for place in choose.choices(filmed, k=_PICTURES // 3) + choose.choices(moving, k=_PICTURES // 3):
            video, target = media[place].video, targets[place]
            if video is not None and target is not None:
                frame = choose.randrange(len(target))
                pixels.append(video.pixels[0, frame])
                wanted.append(target[frame])
        for _ in range(_PICTURES // 3):
            made = MAKERS["ocr"](written, LEVELS["easy"], {})
            if made.image is not None:
                pixels.append(torch.tensor(made.image).permute(2, 0, 1))
                wanted.append(seen(made.truth, 1)[0])
        return torch.stack(pixels), torch.stack(wanted)

    def losses() -> Tensor:
        pixels, wanted = pictures()
        loss = telling.pictures(vision(Video.from_rate(pixels[:, None], FRAME_RATE)).tokens[:, 0], wanted)
        chosen = choose.choices(sounding, k=_SOUNDS)
        _, waveform = collate_media([media[place]._replace(video=None) for place in chosen])
        stream = audio(waveform)
        lengths = stream.mask.sum(1).tolist()
        said = torch.cat([heard(pairs[place][1], length) for place, length in zip(chosen, lengths, strict=True)])
        return loss + F.cross_entropy(telling.sound(stream.tokens[stream.mask]), said)

    return optimise("towers", {towers.convolutions: 6e-3, towers.whisper: 3e-3, telling: 5e-3}, losses, steps=steps)


def pretrain_connector(
    model: AudioVisualLanguageModel, items: Sequence[Item], variant: Variant, *, steps: int, seed: int
) -> dict[str, Tensor]:
    """Teaches the connector what to hand on: each embedding has to name what its share of the window holds, half a
    second by half a second.

    A window's share for each of its queries is as long as the others; the diversity loss counts here too.

    Returns:
        Of each word that names something the direction in which embeddings say it, ``(HIDDEN,)`` of length 1.
    """
    connector, choose = model.connector, batches(items, _CLIPS, random.Random(seed))
    diversity = DiversityLoss(weight=variant.diversity)
    naming = nn.Linear(HIDDEN, _shares(connector, variant) * _NAMES)
    nn.init.constant_(naming.bias, _RARE)

    def losses() -> Tensor:
        batch = [items[place] for place in next(choose)]
        features = collate(batch, variant.frame_rate)
        loss = torch.zeros(())
        for part, streams, told in _parts(connector):
            given = {name: features[name] for name in streams if name in features}
            if not given:
                continue
            out = part(**given)
            shares = _shares(connector, variant)
            seconds = variant.window_frames / part.projector.num_queries / variant.frame_rate / shares
            said = naming(out.embeddings).unflatten(2, (shares, _NAMES)).flatten(1, 2)
            wanted, real = _targets(batch, said.shape[1], seconds)
            missed = F.binary_cross_entropy_with_logits(said[real][:, told], wanted[real][:, told], reduction="none")
            loss = loss + missed.sum(1).mean() + diversity(out.query_states, out.window_mask)
        return loss

    optimise("connector", {connector: 3e-3, naming: 3e-3}, losses, steps=steps)
    return _directions(naming.weight.detach().unflatten(0, (-1, _NAMES)).mean(0))


def _directions(weight: Tensor) -> dict[str, Tensor]:
    """A word may name a colour, something written and something heard at once."""
    weight = F.normalize(weight - weight.mean(0), dim=-1)
    things, written, sounds = weight.split([3 * _LOOKS, len(SPOKEN), len(HEARD)])
    sides = things[: 2 * _LOOKS].unflatten(0, (2, _LOOKS)).mean(0)
    found: dict[str, Tensor] = {}
    for words, vectors in (
        (COLOURS, sides[: len(COLOURS)]),
        (SHAPES, sides[len(COLOURS) :]),
        (SPOKEN, written),
        (HEARD[1:], sounds[1:]),
    ):
        for word, vector in zip(words, F.normalize(vectors, dim=-1), strict=True):
            found[word] = found.get(word, 0) + vector
    return {word: F.normalize(vector, dim=-1) for word, vector in found.items()}


def _shares(connector: nn.Module, variant: Variant) -> int:
    """Moments of half a second, at most, that each embedding stands for."""
    queries = variant.queries // (1 + isinstance(connector, SeparateConnector))
    return max(1, round(variant.window_frames / queries / variant.frame_rate / 0.5))


def _parts(connector: nn.Module) -> list[tuple[Any, tuple[str, ...], slice]]:
    """Each connector, the streams that it gets, and what its embeddings have to name."""
    if isinstance(connector, SeparateConnector):
        return [
            (connector.visual, ("visual",), slice(0, _NAMES - len(HEARD))),
            (connector.audio, ("audio",), slice(_NAMES - len(HEARD), None)),
        ]
    return [(connector, ("visual", "audio"), slice(None))]


def _targets(items: Sequence[Item], positions: int, seconds: float) -> tuple[Tensor, Tensor]:
    """``(item, position, _NAMES)``: what each position's ``seconds`` hold; and which are within the item."""
    wanted = torch.zeros(len(items), positions, SEEN + len(HEARD))
    real = torch.zeros(len(items), positions, dtype=torch.bool)
    frames = round(seconds * FRAME_RATE)
    for row, item in enumerate(items):
        length = min(max(1, math.ceil(item.seconds / seconds - 0.01)), positions)
        real[row, :length] = True
        if item.seen is not None:
            shown = item.seen[:1].expand(length * frames, -1) if item.record.image is not None else item.seen
            shown = F.pad(shown[: length * frames], (0, 0, 0, max(0, length * frames - len(shown))))
            wanted[row, :length, :SEEN] = shown.unflatten(0, (length, frames)).any(1).float()
        if item.heard is not None:
            place = ((torch.arange(len(item.heard)) + 0.5) / AUDIO_RATE / seconds).long().clamp(max=length - 1)
            count = torch.zeros(length, len(HEARD)).index_put_((place, item.heard), torch.ones(()), accumulate=True)
            wanted[row, :length, SEEN:] = (count >= _FEWEST).float()
    things, rest = wanted.split([3 * len(THINGS), len(SPOKEN) + len(HEARD)], -1)
    table = things.unflatten(2, (3, len(COLOURS), len(SHAPES)))
    looks = torch.cat([table.amax(4), table.amax(3)], 3).flatten(2)
    return torch.cat([looks, rest], 2), real
