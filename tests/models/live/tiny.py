"""A tiny model that watches live, its clip in chunks, and what it answers offline."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
)

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    Frames,
    FrameSynchroniser,
    LLMEmbeddings,
    SlidingWindowProjector,
    TokenStream,
    Video,
    Waveform,
)
from avfusion.encoders import BlockwiseAudioEncoder
from avfusion.models import AudioVisualLanguageModel, LiveSession, prepare_inputs

DIM, PLACEHOLDER, RATE = 16, 2, 80
WORDS = ["<unk>", "</s>", "<av>", *"abcdefghijklmnopqrstu"]
PROMPT = "a b <av> c {question} d"
WINDOW, STRIDE, QUERIES = 3, 2, 2
ATTENTION = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
OPTIONS = {"vocab_size": len(WORDS), "pad_token_id": 1, "bos_token_id": None, "eos_token_id": 1,
           "initializer_range": 0.5, "tie_word_embeddings": False}  # fmt: skip


def lora() -> Any:
    adapted = get_peft_model(LANGUAGE_MODELS["llama"](), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
    return adapted


def static() -> Any:
    model = LANGUAGE_MODELS["llama"]()
    model.generation_config.cache_implementation = "static"
    return model


CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**ATTENTION, intermediate_size=24, **OPTIONS),
    # Sliding windows that are shorter than the clip, and than the prompt.
    "mistral": MistralConfig(**ATTENTION, intermediate_size=24, sliding_window=7, **OPTIONS),
    "gemma3": Gemma3TextConfig(
        **ATTENTION, head_dim=8, intermediate_size=24, query_pre_attn_scalar=8, sliding_window=5,
        layer_types=["sliding_attention", "full_attention"], **OPTIONS,
    ),
    "gpt2": GPT2Config(n_embd=DIM, n_layer=2, n_head=2, n_positions=256, **OPTIONS),
    "mamba": MambaConfig(hidden_size=DIM, num_hidden_layers=2, state_size=4, **OPTIONS),
}  # fmt: skip
LANGUAGE_MODELS: dict[str, Callable[[], Any]] = {
    **{name: lambda config=config: AutoModelForCausalLM.from_config(config) for name, config in CONFIGS.items()},
    "lora": lora,
    "static": static,
}


class Ear(nn.Module):
    """Eight tokens a second, each of its own ten samples."""

    def __init__(self) -> None:
        super().__init__()
        self.output_dim = 6
        self.proj = nn.Linear(10, 6)
        self.calls = 0

    def forward(self, waveform: Waveform) -> TokenStream:
        self.calls += 1
        lengths = (waveform.lengths + 9) // 10
        samples = torch.where(waveform.mask, waveform.samples, 0).to(self.proj.weight)
        samples = nn.functional.pad(samples, (0, 10 * int(lengths.max())))[:, : 10 * int(lengths.max())]
        return TokenStream.from_rate(
            self.proj(samples.unflatten(1, (-1, 10))), 8.0, lengths=lengths, start=waveform.start
        )


class Eye(nn.Module):
    """Three tokens a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.output_dim, self.tokens_per_frame = 5, 3
        self.proj = nn.Linear(3, 15)
        self.calls = 0

    def forward(self, video: Video) -> Frames:
        self.calls += 1
        tokens = self.proj(video.pixels.to(self.proj.weight.dtype).mean((3, 4))).unflatten(-1, (3, 5))
        return Frames(tokens, video.mask[..., None].expand(-1, -1, 3), video.spans)


def tokenizer() -> PreTrainedTokenizerFast:
    """A word for every token of the language models."""
    rule = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=rule, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


@functools.cache
def pieces() -> PreTrainedTokenizerFast:
    """Byte pairs, and a token that begins every text."""
    rule = Tokenizer(models.BPE(unk_token="<unk>"))
    rule.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "</s>", "<av>", "<s>"], show_progress=False)
    rule.train_from_iterator(["USER: a bc\n def {question}\nASSISTANT: <question> gé"] * 3, trainer)
    rule.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=rule, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
        additional_special_tokens=["<av>"],
    )  # fmt: skip


def model(llm: str = "llama", *, look_ahead: float = 0.25, **changes: Any) -> AudioVisualLanguageModel:
    """In float64 and evaluation mode; its audio encoder hears blocks of half a second, as long as a frame."""
    torch.manual_seed(3)
    qformer = CausalQFormer(
        input_dim=12, hidden_size=8, num_heads=2, num_queries=QUERIES, window_frames=WINDOW, tokens_per_frame=8,
        instruction_dim=changes.pop("instruction_dim", None),
    )  # fmt: skip
    connector = AudioVisualConnector(
        synchroniser=FrameSynchroniser(visual_dim=5, stream_dims={"audio": 7}, slots=8),
        projector=SlidingWindowProjector(
            window_encoder=qformer, window_frames=WINDOW, stride_frames=STRIDE, llm_dim=DIM
        ),
        input_dims={"audio": 6},
    )
    nn.init.normal_(connector.projector.proj.weight)
    parts = {
        "language_model": LANGUAGE_MODELS[llm](),
        "connector": connector,
        "audio_encoders": {"audio": BlockwiseAudioEncoder(encoder=Ear(), block=0.5, look_ahead=look_ahead)},
        "visual_encoder": Eye(),
        "placeholder_token_id": PLACEHOLDER,
    }
    return AudioVisualLanguageModel(**{**parts, **changes}).double().eval()


class Clip:
    """Pictures at 2 a second and sound for as long."""

    def __init__(self, frames: int, samples: int | None = None) -> None:
        draw = torch.Generator().manual_seed(1)
        self.pixels = torch.rand(1, frames, 3, 2, 2, generator=draw, dtype=torch.float64)
        count = 40 * frames if samples is None else samples
        self.sound = torch.randn(1, count, generator=draw, dtype=torch.float64)

    @property
    def frames(self) -> int:
        return self.pixels.shape[1]

    @property
    def samples(self) -> int:
        return self.sound.shape[1]

    def video(self, begin: int, end: int) -> Video | None:
        if begin == end:
            return None
        return Video.from_rate(self.pixels[:, begin:end], 2.0, start=begin / 2)

    def waveform(self, begin: int, end: int) -> Waveform | None:
        if begin == end:
            return None
        return Waveform.from_samples(self.sound[:, begin:end], RATE, start=begin / RATE)

    def parts(self, step: int = 1) -> Iterator[dict[str, Any]]:
        """What comes in every ``step`` frames' time."""
        for frame in range(0, self.frames, step):
            end = min(frame + step, self.frames)
            sound = self.waveform(min(40 * frame, self.samples), min(40 * end, self.samples))
            yield {"video": self.video(frame, end), "waveform": sound}

    def until(self, seconds: float) -> dict[str, Any]:
        """The clip, cut there."""
        return {
            "video": self.video(0, min(round(2 * seconds), self.frames)),
            "waveform": self.waveform(0, min(round(RATE * seconds), self.samples)),
        }


def session(parts: AudioVisualLanguageModel, **options: Any) -> LiveSession:
    return LiveSession(parts, tokenizer(), **{"prompt": PROMPT, **options})


def inputs(question: str, count: int) -> dict[str, Tensor]:
    return prepare_inputs(tokenizer(), [PROMPT.replace("{question}", question)], [count])


def offline(parts: AudioVisualLanguageModel, clip: dict[str, Any], question: str, **options: Any) -> str:
    """What the model answers when it is given a whole clip."""
    media = {name: value for name, value in clip.items() if value is not None}
    count = int(parts.num_placeholders(**media)) if media else 0
    ids = parts.generate(**inputs(question, count), **media, **options)
    return str(tokenizer().decode(ids[0], skip_special_tokens=True))


def on_embeddings(parts: AudioVisualLanguageModel, embeddings: Tensor, question: str, **options: Any) -> str:
    """What the model answers for embeddings ``(1, position, llm_dim)``."""
    count = embeddings.shape[1]
    media = LLMEmbeddings(
        embeddings, torch.ones(1, count, dtype=torch.bool), torch.zeros(1, count, 2, dtype=torch.float64),
        embeddings.new_zeros(count // QUERIES, QUERIES, 1),
    )  # fmt: skip
    text = inputs(question, count)
    embeds = parts.embed(text["input_ids"], media)
    ids = parts.language_model.generate(inputs_embeds=embeds, attention_mask=text["attention_mask"], **options)
    return str(tokenizer().decode(ids[0], skip_special_tokens=True))
