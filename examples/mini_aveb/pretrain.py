"""What the parts learn before they are joined: the towers to tell what they are shown, the connector to hand it on."""

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avfusion import Video
from avfusion.aveb import Record
from avfusion.media import Media, collate_media
from avfusion.models import AudioVisualLanguageModel
from examples.mini_aveb.data import Item, batches, collate
from examples.mini_aveb.labels import HEARD, SEEN, THINGS, heard, seen
from examples.mini_aveb.model import HIDDEN, SeparateConnector, Variant
from examples.mini_aveb.optimising import optimise
from examples.mini_aveb.towers import AUDIO_RATE, DIM, FRAME_RATE, Towers

_PICTURES, _SOUNDS, _CLIPS = 96, 16, 32  # of a step
_FEWEST = 3  # tokens of a sound that count


class Telling(nn.Module):
    """Linear layers that say from a tower's tokens what was in the picture or in the sound."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Linear(DIM, len(THINGS))
        self.whole = nn.Linear(DIM, SEEN - 2 * len(THINGS))
        self.sound = nn.Linear(DIM, len(HEARD))

    def pictures(self, tokens: Tensor) -> Tensor:
        """``(picture, SEEN)`` from ``(picture, TOKENS, DIM)``: each half of the picture tells what is in it."""
        left, right = tokens.unflatten(1, (4, 4)).mean(1).unflatten(1, (2, 2)).mean(2).unbind(1)
        return torch.cat([self.side(left), self.side(right), self.whole(tokens.mean(1))], 1)


def pretrain_towers(
    towers: Towers, pairs: Sequence[tuple[Record, dict[str, Any]]], media: Sequence[Media], *, steps: int, seed: int
) -> float:
    """Teaches both towers, together, what the generator put into pictures and sounds."""
    choose, telling = random.Random(seed), Telling()
    audio, vision = towers.encoders(frozen=False)
    by_kind: dict[bool, list[int]] = {True: [], False: []}  # written words are the hardest: every second picture
    for place, (record, _) in enumerate(pairs):
        if media[place].video is not None:
            by_kind[record.task == "ocr"].append(place)
    kinds = [places for places in by_kind.values() if places]
    sounding = [place for place, one in enumerate(media) if one.waveform is not None]
    targets = [
        None if one.video is None else seen(pairs[i][1], one.video.pixels.shape[1]) for i, one in enumerate(media)
    ]

    def pictures() -> tuple[Tensor, Tensor]:
        pixels, wanted = [], []
        for number in range(_PICTURES):
            place = choose.choice(kinds[number % len(kinds)])
            video, target = media[place].video, targets[place]
            if video is not None and target is not None:
                frame = choose.randrange(len(target))
                pixels.append(video.pixels[0, frame])
                wanted.append(target[frame])
        return torch.stack(pixels), torch.stack(wanted)

    def losses() -> Tensor:
        pixels, wanted = pictures()
        told = telling.pictures(vision(Video.from_rate(pixels[:, None], FRAME_RATE)).tokens[:, 0])
        loss = F.binary_cross_entropy_with_logits(told, wanted, reduction="none").sum(1).mean()
        chosen = choose.choices(sounding, k=_SOUNDS)
        _, waveform = collate_media([media[place]._replace(video=None) for place in chosen])
        stream = audio(waveform)
        lengths = stream.mask.sum(1).tolist()
        said = torch.cat([heard(pairs[place][1], length) for place, length in zip(chosen, lengths, strict=True)])
        return loss + F.cross_entropy(telling.sound(stream.tokens[stream.mask]), said)

    return optimise("towers", {towers: 3e-3, telling: 3e-3}, losses, steps=steps)


def pretrain_connector(
    model: AudioVisualLanguageModel, items: Sequence[Item], variant: Variant, *, steps: int, seed: int
) -> float:
    """Teaches the connector what to hand on: each embedding has to name what its share of the window holds.

    A window's share for each of its queries is as long as the others; the diversity loss counts here too.
    """
    connector, choose = model.connector, batches(items, _CLIPS, random.Random(seed))
    naming = nn.Linear(HIDDEN, SEEN + len(HEARD))

    def losses() -> Tensor:
        batch = next(choose)
        features = collate(batch, variant.frame_rate)
        loss = torch.zeros(())
        for part, names, told in _parts(connector):
            given = {name: features[name] for name in names if name in features}
            if not given:
                continue
            out = part(**given)
            seconds = variant.window_frames / part.projector.num_queries / variant.frame_rate
            wanted, real = _targets(batch, out.embeddings.shape[1], seconds)
            said = naming(out.embeddings[real])[:, told]
            missed = F.binary_cross_entropy_with_logits(said, wanted[real][:, told], reduction="none")
            loss = loss + missed.sum(1).mean() + model.diversity_loss(out.query_states, out.window_mask)
        return loss

    return optimise("connector", {connector: 2e-3, naming: 2e-3}, losses, steps=steps)


def _parts(connector: nn.Module) -> list[tuple[Any, tuple[str, ...], slice]]:
    """Each connector, the streams that it gets, and what its embeddings have to name."""
    if isinstance(connector, SeparateConnector):
        return [(connector.visual, ("visual",), slice(0, SEEN)), (connector.audio, ("audio",), slice(SEEN, None))]
    return [(connector, ("visual", "audio"), slice(None))]


def _targets(items: Sequence[Item], positions: int, seconds: float) -> tuple[Tensor, Tensor]:
    """``(item, position, SEEN + HEARD)``: what each position's ``seconds`` hold; and which are within the item."""
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
    return wanted, real
