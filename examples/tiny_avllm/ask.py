"""Keeping a trained model, and asking it about any file."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from avfusion.media import collate_media
from avfusion.models import AudioVisualLanguageModel
from examples.tiny_avllm.data import read
from examples.tiny_avllm.model import Towers
from examples.tiny_avllm.train import answer


def save(model: AudioVisualLanguageModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The connector, the language model, the encoders and the tokenizer."""
    model.save_pretrained(folder, save_encoders=True)
    tokenizer.save_pretrained(folder)


def load(folder: Path) -> tuple[AudioVisualLanguageModel, PreTrainedTokenizerFast]:
    audio, visual = Towers().encoders(frozen=True)
    model = AudioVisualLanguageModel.from_pretrained(folder, audio_encoders={"audio": audio}, visual_encoder=visual)
    return model, AutoTokenizer.from_pretrained(folder)


def ask(folder: Path, file: Path, question: str) -> str:
    """What the model in ``folder`` answers about any file that has pictures or sound.

    Raises:
        MediaError: a file that cannot be read.
        CheckpointError: a folder without a model.
    """
    video, waveform = collate_media([read(file)])
    model, tokenizer = load(folder)
    with torch.no_grad():
        [[text]] = answer(model, tokenizer, model.encode(video, waveform), [[question]])
    return text
