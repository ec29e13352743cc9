"""What scripts need and are not about: clips of noise, a tokenizer of a few words, small sizes, one training step."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from avfusion import AudioVisualConnector, DiversityLoss, Video, Waveform
from avfusion.models import AudioVisualLanguageModel, prepare_inputs

WORDS = ["<unk>", "</s>", "<av>", "what", "happens", "who", "speaks", "a", "dog", "barks", "twice", "nobody"]
QUESTIONS = ["<av> what happens", "<av> who speaks"]
ANSWERS = ["a dog barks twice", "nobody"]

# Sizes of networks that run in seconds; real ones come from their checkpoints.
TOWER = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
CROP: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
# Of a connector; without them it has the paper's: windows of 5 s, 32 queries of width 768.
SMALL: dict[str, Any] = {"window_seconds": 2.0, "num_queries": 4, "hidden_size": 32}

Result = tuple[AudioVisualLanguageModel, Tensor, Tensor]


def noise_clips(sample_rate: int = 16000) -> tuple[Video, Waveform]:
    """Pictures at two a second, and sound: 3 s of both; 1.5 s of pictures with 2 s of sound.

    Real files: ``collate_media([load_media(path, frame_rate=2.0, sample_rate=16000) for path in paths])``.
    """
    pixels = torch.randint(256, (2, 6, 3, 48, 64), dtype=torch.uint8)
    sound = [0.1 * torch.randn(round(seconds * sample_rate)) for seconds in (3.0, 2.0)]
    return Video.from_rate(pixels, 2.0, lengths=[6, 3]), Waveform.from_samples(sound, sample_rate)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word a token.

    A real one: ``AutoTokenizer.from_pretrained(NAME)``, then ``tokenizer.add_tokens(["<av>"], special_tokens=True)``.
    The placeholder itself is never looked up, so the language model's embeddings need not grow for it.
    """
    rule = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=rule, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


def assemble(
    tokenizer: PreTrainedTokenizerFast,
    *,
    language_model: nn.Module,
    connector: AudioVisualConnector,
    visual: nn.Module,
    audio: nn.Module | Mapping[str, nn.Module],
) -> AudioVisualLanguageModel:
    """All parts in one model, with the diversity loss."""
    return AudioVisualLanguageModel(
        language_model=language_model,
        connector=connector,
        audio_encoders=audio if isinstance(audio, Mapping) else {"audio": audio},
        visual_encoder=visual,
        placeholder_token_id=tokenizer.convert_tokens_to_ids("<av>"),
        diversity_loss=DiversityLoss(weight=0.01),
    )


def run(build: Callable[[PreTrainedTokenizerFast], AudioVisualLanguageModel], sample_rate: int = 16000) -> Result:
    """Builds a model, trains and asks it."""
    tokenizer = word_tokenizer()
    return train_and_ask(build(tokenizer), tokenizer, sample_rate)


def train_and_ask(
    model: AudioVisualLanguageModel, tokenizer: PreTrainedTokenizerFast, sample_rate: int = 16000
) -> Result:
    """One forward and backward pass, and an answer: as ``whisper_clip_llama.py`` spells it out."""
    video, waveform = noise_clips(sample_rate)
    counts = model.num_placeholders(video=video, waveform=waveform)
    taught = prepare_inputs(tokenizer, QUESTIONS, counts, answers=ANSWERS)
    loss = model.train()(**taught, video=video, waveform=waveform).loss
    loss.backward()
    asked = prepare_inputs(tokenizer, QUESTIONS, counts)
    end = tokenizer.eos_token_id  # checkpoints and their tokenizers agree on it
    ids = model.eval().generate(
        asked["input_ids"],
        asked["attention_mask"],
        video=video,
        waveform=waveform,
        max_new_tokens=5,
        eos_token_id=end,
        pad_token_id=end,
    )
    print(f"{counts.tolist()} embeddings, loss {loss.item():.2f}, says {tokenizer.batch_decode(ids)}")
    return model, loss, ids
