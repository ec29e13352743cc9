"""Items on disk: mp4, wav and png, to the byte the same every time."""

import wave
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from avfusion.aveb._synthesis import RATE
from avfusion.aveb.mini.items import Made
from avfusion.aveb.mini.vocabulary import FRAME_RATE
from avfusion.media import write_video


def write_media(made: Made, stem: Path) -> dict[str, Path]:
    """Writes an item's media and gives the fields of its record that name them."""
    found: dict[str, Path] = {}
    if made.image is not None:
        found["image"] = stem.with_suffix(".png")
        Image.fromarray(made.image).save(found["image"])
    if made.frames is not None:
        found["video"] = stem.with_suffix(".mp4")
        pixels = torch.from_numpy(np.stack(made.frames)).permute(0, 3, 1, 2).contiguous()
        samples = None if made.sound is None else torch.from_numpy(made.sound)
        write_video(found["video"], pixels, FRAME_RATE, samples, sample_rate=RATE)
        if samples is not None:
            found["audio"] = found["video"]
    elif made.sound is not None:
        found["audio"] = stem.with_suffix(".wav")
        with wave.open(str(found["audio"]), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
            file.writeframes((made.sound * 32767).astype("<i2").tobytes())
    return found
