"""The trained model in the benchmark: ``python -m avfusion.aveb run --model examples.mini_aveb.answering:load``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from avfusion.aveb import Request
from avfusion.files import write_whole
from avfusion.media import collate_media
from avfusion.models import AudioVisualLanguageModel
from examples.mini_aveb.data import read
from examples.mini_aveb.model import Variant
from examples.mini_aveb.towers import Towers
from examples.mini_aveb.train import answer


class MiniAnswerer:
    """Answers the benchmark's requests from their files.

    Args:
        model: a trained model.
        tokenizer: of its words.
        variant: how it was built.
    """

    def __init__(self, model: AudioVisualLanguageModel, tokenizer: PreTrainedTokenizerFast, variant: Variant) -> None:
        self.model, self.tokenizer, self.variant = model, tokenizer, variant

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """A text for each request."""
        found = [read(request, self.variant.frame_rate) for request in requests]
        media = [one for one in found if one is not None]
        features = self.model.encode(*collate_media(media)) if media else {}
        rows = torch.tensor([one is not None for one in found])
        return answer(self.model, self.tokenizer, features, requests, (rows.cumsum(0) - 1).where(rows, -1))


def save(model: AudioVisualLanguageModel, tokenizer: PreTrainedTokenizerFast, variant: Variant, folder: Path) -> None:
    """Everything that :func:`load` needs."""
    model.save_pretrained(folder, save_encoders=True)
    tokenizer.save_pretrained(folder)
    parts = {
        "encoders": model.encoders.values(),
        "connector": [model.connector],
        "language_model": [model.language_model],
    }
    counts = {name: sum(one.numel() for part in of for one in part.parameters()) for name, of in parts.items()}
    (folder / "parameters.json").write_text(json.dumps(counts) + "\n")
    write_whole(folder / "variant.json", json.dumps(asdict(variant), indent=1) + "\n")


def load(model: str = "runs/mini_aveb/model") -> MiniAnswerer:
    """A model that ``python -m examples.mini_aveb`` trained.

    Args:
        model: its folder.

    Raises:
        CheckpointError: a folder without a model.
    """
    torch.set_num_threads(1)  # it is so small that a second thread gains nothing
    audio, visual = Towers().encoders(frozen=True)
    loaded = AudioVisualLanguageModel.from_pretrained(model, audio_encoders={"audio": audio}, visual_encoder=visual)
    variant = Variant(**json.loads(Path(model, "variant.json").read_text()))
    return MiniAnswerer(loaded, AutoTokenizer.from_pretrained(model), variant)
