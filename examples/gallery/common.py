"""What scripts need and are not about: clips of noise, a tokenizer of a few words, and one step of training."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from avfusion import AudioVisualConnector, CausalQFormer, FrameSynchroniser, SlidingWindowProjector, Video, Waveform
from avfusion.models import AudioVisualLanguageModel, prepare_inputs

WORDS = ["<unk>", "</s>", "<av>", "what", "happens", "who", "speaks", "a", "dog", "barks", "twice", "nobody"]
QUESTIONS = ["<av> what happens", "<av> who speaks"]
ANSWERS = ["a dog barks twice", "nobody"]


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


def small_connector(*, visual_dim: int, audio_dim: int, slots: int, llm_dim: int) -> AudioVisualConnector:
    """For scripts that are about encoders: as ``whisper_clip_llama.py`` spells it out."""
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(visual_dim=visual_dim, stream_dims={"audio": audio_dim}, slots=slots),
        projector=SlidingWindowProjector(
            window_encoder=CausalQFormer(
                input_dim=visual_dim + audio_dim,
                hidden_size=32,
                num_heads=4,
                num_queries=4,
                window_frames=4,
                tokens_per_frame=slots,
            ),
            window_frames=4,
            llm_dim=llm_dim,
        ),
    )


def train_and_ask(
    model: AudioVisualLanguageModel, tokenizer: PreTrainedTokenizerFast, sample_rate: int = 16000
) -> tuple[AudioVisualLanguageModel, Tensor, Tensor]:
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
