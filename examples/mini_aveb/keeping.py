"""What the frozen towers make of every file, computed once and kept for all that is trained on it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from avfusion.aveb import Record
from avfusion.files import write_whole
from avfusion.media import collate_media
from examples.mini_aveb.data import Item, media_of
from examples.mini_aveb.labels import heard, seen
from examples.mini_aveb.towers import Towers

Pairs = Sequence[tuple[Record, dict[str, Any]]]


@torch.no_grad()
def encode(towers: Towers, pairs: Pairs) -> dict[str, Tensor]:
    """Tokens by ``ID/visual``, ``(frame, TOKENS, DIM)``, and ``ID/audio``, ``(time, DIM)``, in float16."""
    audio, vision = towers.encoders(frozen=True)
    found = {}
    for first in tqdm(range(0, len(pairs), 32), "encoding", unit="batch", disable=None):
        chosen = pairs[first : first + 32]
        video, waveform = collate_media(media_of(chosen))
        frames = None if video is None else vision(video)
        stream = None if waveform is None else audio(waveform)
        for row, (record, _) in enumerate(chosen):
            if frames is not None and (real := frames.frame_mask[row]).any():
                found[f"{record.id}/visual"] = frames.tokens[row, real].half()
            if stream is not None and stream.mask[row].any():
                found[f"{record.id}/audio"] = stream.tokens[row, stream.mask[row]].half()
    return found


def items_of(tokens: dict[str, Tensor], pairs: Pairs) -> list[Item]:
    """Every record with its tokens and what the generator says is in them."""
    items = []
    for record, truth in pairs:
        visual, audio = tokens.get(f"{record.id}/visual"), tokens.get(f"{record.id}/audio")
        shown = None if visual is None else seen(truth, len(visual)).bool()
        items.append(Item(record, truth, visual, audio, shown, None if audio is None else heard(truth, len(audio))))
    return items


def write(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file that is whole or not there."""
    write_whole(path, lambda part: save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part))


def read_towers(path: Path) -> Towers:
    """Towers that :func:`write` has kept."""
    towers = Towers()
    towers.load_state_dict(load_file(path))
    return towers.eval()


def read_items(path: Path, pairs: Pairs) -> list[Item]:
    """Items whose tokens :func:`write` has kept."""
    return items_of(load_file(path), pairs)
