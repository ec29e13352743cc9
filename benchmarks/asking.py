"""A question to a session, after a minute and after an hour of watching, against encoding what has been seen again."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from avfusion import Frames, TokenStream, Video, Waveform
from avfusion.encoders import BlockwiseAudioEncoder
from avfusion.models import AudioVisualLanguageModel, KeepNewest, LiveSession, prepare_inputs
from benchmarks import ours, sizes
from benchmarks.measure import time_in_turns
from benchmarks.sizes import FRAME_RATE, Sizes
from benchmarks.suite import Measurement, Settings, Target, times

# Small enough to watch for an hour in a benchmark; the encoders cost next to nothing, unlike real ones.
SIZES = Sizes(stream=192, audio=192, hidden=192, heads=4, llm_dim=512)
MINUTE, HOUR, SMOKE_MINUTE, SMOKE_HOUR = 60, 3600, 30, 45
RATE = 800  # samples a second
PROMPT, QUESTION = "USER: <av> {question} ASSISTANT:", "what has just happened ?"
ALIKE, SOONER = 1.1, 5.0


class Eye(nn.Module):
    """Tokens of a picture's patches."""

    def __init__(self, size: Sizes) -> None:
        super().__init__()
        self.output_dim, self.tokens_per_frame = size.stream, size.slots
        self.proj = nn.Linear(3, size.stream)

    def forward(self, video: Video) -> Frames:
        pixels = video.pixels.to(self.proj.weight).flatten(3).transpose(2, 3)
        return Frames(self.proj(pixels), video.mask[..., None].expand(-1, -1, self.tokens_per_frame), video.spans)


class Ear(nn.Module):
    """A token of some samples."""

    def __init__(self, size: Sizes) -> None:
        super().__init__()
        self.output_dim, self.rate = size.audio, size.audio_per_frame * FRAME_RATE
        self.proj = nn.Linear(round(RATE / self.rate), size.audio)

    def forward(self, waveform: Waveform) -> TokenStream:
        samples = waveform.samples.to(self.proj.weight)
        samples = nn.functional.pad(samples, (0, -samples.shape[1] % self.proj.in_features))
        lengths = -(-waveform.lengths // self.proj.in_features)
        tokens = self.proj(samples.unflatten(1, (-1, self.proj.in_features)))
        return TokenStream.from_rate(tokens, self.rate, lengths=lengths, start=waveform.start)


def first_token(settings: Settings) -> tuple[list[Measurement], list[Target]]:
    """From a question to the first token of its answer."""
    size = sizes.SMOKE._replace(audio=16, audio_per_frame=4) if settings.smoke else SIZES
    minute, hour = (SMOKE_MINUTE, SMOKE_HOUR) if settings.smoke else (MINUTE, HOUR)
    model, tokenizer = _model(size, settings), _tokenizer()
    short, long = (LiveSession(model, tokenizer, prompt=PROMPT, retention=KeepNewest(float(minute))) for _ in range(2))
    second = _second(size, settings)
    for session, seconds in ((short, minute), (long, hour)):
        for begin in range(seconds):
            session.watch(*_at(second, begin), ended=begin == seconds - 1)
    kept = int(short.kept.numbers.shape[1])
    if kept != long.kept.numbers.shape[1]:
        raise ValueError(f"kept: must be as many windows after both, found {kept} and {long.kept.numbers.shape[1]}")
    calls = {
        "the session, minute 1": lambda: list(short.ask(QUESTION, max_new_tokens=1, min_new_tokens=1)),
        "the session, minute 60": lambda: list(long.ask(QUESTION, max_new_tokens=1, min_new_tokens=1)),
        "the last minute encoded again": lambda: _offline(model, tokenizer, second, minute, minute),
    }
    timings = time_in_turns(calls, device=settings.device, rounds=settings.rounds, block=settings.block)
    hours = {"all encoded again at minute 60": lambda: _offline(model, tokenizer, second, hour, minute)}
    whole = time_in_turns(hours, device=settings.device, rounds=1)
    work = f"a question about the {kept} windows remembered, to its first token"
    later = timings.ratio("the session, minute 60", "the session, minute 1").median
    sooner = timings.ratio("the last minute encoded again", "the session, minute 60").median
    rows = [*times(work, timings, "the session, minute 1"), *times(work, whole)]
    return rows, [
        Target("first token of an answer: minute 60 in that at minute 1, with as much remembered", ALIKE, later, False),
        Target("first token of an answer: how many times sooner than by encoding the minute again", SOONER, sooner),
    ]


def _model(size: Sizes, settings: Settings) -> AudioVisualLanguageModel:
    config = LlamaConfig(
        vocab_size=64, hidden_size=size.llm_dim, intermediate_size=4 * size.llm_dim, num_hidden_layers=4,
        num_attention_heads=4, pad_token_id=1, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    model = AudioVisualLanguageModel(
        language_model=LlamaForCausalLM(config),
        connector=ours.connector(size, ours.projector(size)),
        audio_encoders={"audio": BlockwiseAudioEncoder(encoder=Ear(size), block=1.0)},
        visual_encoder=Eye(size),
        placeholder_token_id=2,
    )
    return model.to(settings.device, torch.bfloat16 if settings.device == "cuda" else torch.float32).eval()


def _tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "</s>", "<av>", "USER:", "ASSISTANT:", *QUESTION.split()]
    words += [f"word{place}" for place in range(64 - len(words))]
    rule = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=rule, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


def _second(size: Sizes, settings: Settings) -> tuple[Tensor, Tensor]:
    """Pictures and sound of a second."""
    pixels = torch.rand(1, int(FRAME_RATE), 3, size.slots, 1, device=settings.device)
    return pixels, torch.randn(1, RATE, device=settings.device)


def _at(second: tuple[Tensor, Tensor], begin: int, seconds: int = 1) -> tuple[Video, Waveform]:
    """That second, so many times from ``begin`` on."""
    pixels, sound = (value.repeat(1, seconds, *[1] * (value.ndim - 2)) for value in second)
    return Video.from_rate(pixels, FRAME_RATE, start=begin), Waveform.from_samples(sound, RATE, start=begin)


def _offline(
    model: AudioVisualLanguageModel, tokenizer: PreTrainedTokenizerFast, second: tuple[Tensor, Tensor], seconds: int,
    read: int,
) -> Tensor:  # fmt: skip
    """Encodes ``seconds`` and reads the last ``read`` of them."""
    embeddings = model.connect(model.encode(*_at(second, 0, seconds)))
    last = round(read / seconds * embeddings.mask.shape[1])
    embeddings = embeddings._replace(
        embeddings=embeddings.embeddings[:, -last:], mask=embeddings.mask[:, -last:], spans=embeddings.spans[:, -last:]
    )
    text = prepare_inputs(tokenizer, [PROMPT.replace("{question}", QUESTION)], [last])
    ids, mask = (text[name].to(embeddings.mask.device) for name in ("input_ids", "attention_mask"))
    generated: Tensor = model.language_model.generate(
        inputs_embeds=model.embed(ids, embeddings), attention_mask=mask, max_new_tokens=1, min_new_tokens=1
    )
    return generated
