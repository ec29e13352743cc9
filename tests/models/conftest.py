"""Tiny parts that the tests put together: encoders, connector, language models and a tokenizer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from avfusion import (
    AudioVisualConnector,
    CausalQFormer,
    DiversityLoss,
    Frames,
    FrameSynchroniser,
    SlidingWindowProjector,
    TokenStream,
    Video,
    Waveform,
)
from avfusion.models import AudioVisualLanguageModel

WORDS = ["<unk>", "</s>", "<av>", "which", "colour", "was", "on", "screen", "red", "blue"]
LLM_DIM, VOCAB, PLACEHOLDER = 16, 24, 2


class Ear(nn.Module):
    """Eight tokens a second of sound at 80 samples a second."""

    def __init__(self, output_dim: int = 6) -> None:
        super().__init__()
        self.output_dim = output_dim
        self.proj = nn.Linear(10, output_dim)
        self.calls = 0

    def timeline(self, waveform: Waveform) -> TokenStream:
        kept = (waveform.lengths + 9) // 10
        count = int(kept.max())
        nothing = torch.empty(len(kept), count, 0)
        return TokenStream.from_rate(nothing, 8.0, lengths=kept, start=waveform.start)

    def forward(self, waveform: Waveform) -> TokenStream:
        self.calls += 1
        when = self.timeline(waveform)
        samples = torch.where(waveform.mask, waveform.samples, 0).to(self.proj.weight)
        samples = nn.functional.pad(samples, (0, 10 * when.mask.shape[1]))[:, : 10 * when.mask.shape[1]]
        return when._replace(tokens=self.proj(samples.unflatten(1, (-1, 10))))


class SlowEar(Ear):
    """An ear that cannot say when without listening."""

    timeline = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name == "timeline":
            raise AttributeError(name)
        return super().__getattribute__(name)

    def forward(self, waveform: Waveform) -> TokenStream:
        self.calls += 1
        when = Ear.timeline(self, waveform)
        return when._replace(tokens=torch.ones(*when.mask.shape, self.output_dim))


class Eye(nn.Module):
    """Three tokens a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.output_dim, self.tokens_per_frame = 5, 3
        self.proj = nn.Linear(3, 15)

    def forward(self, video: Video) -> Frames:
        pixels = video.pixels.to(self.proj.weight.dtype)
        pixels = torch.where(video.mask[:, :, None], pixels.mean((3, 4)), 0)
        tokens = self.proj(pixels).unflatten(-1, (3, 5))
        return Frames(tokens, video.mask[..., None].expand(-1, -1, 3), video.spans)


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=LLM_DIM,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=1,
        bos_token_id=None,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def gpt2() -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=LLM_DIM, n_layer=2, n_head=2, n_positions=128, bos_token_id=None, eos_token_id=1
    )
    config.pad_token_id = 1
    return GPT2LMHeadModel(config)


def qwen3() -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=LLM_DIM,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=1,
        bos_token_id=None,
        eos_token_id=1,
    )
    return Qwen3ForCausalLM(config)


LANGUAGE_MODELS: dict[str, Callable[[], Any]] = {"llama": llama, "gpt2": gpt2, "qwen3": qwen3}


@pytest.fixture
def language_models() -> dict[str, Callable[[], Any]]:
    return LANGUAGE_MODELS


@pytest.fixture
def make_connector() -> Callable[..., AudioVisualConnector]:
    def make(**options: Any) -> AudioVisualConnector:
        qformer = CausalQFormer(
            input_dim=12,
            hidden_size=8,
            num_heads=2,
            num_queries=2,
            window_frames=3,
            tokens_per_frame=8,
            instruction_dim=options.pop("instruction_dim", None),
        )
        return AudioVisualConnector(
            synchroniser=FrameSynchroniser(visual_dim=5, stream_dims={"audio": 7}, slots=8, **options),
            projector=SlidingWindowProjector(window_encoder=qformer, window_frames=3, stride_frames=2, llm_dim=LLM_DIM),
            input_dims={"audio": 6},
        )

    return make


@pytest.fixture
def make_model(make_connector: Callable[..., AudioVisualConnector]) -> Callable[..., AudioVisualLanguageModel]:
    """A model in evaluation mode; arguments replace its parts."""

    def make(llm: str = "llama", **parts: Any) -> AudioVisualLanguageModel:
        defaults = {
            "audio_encoders": {"audio": Ear()},
            "visual_encoder": Eye(),
            "placeholder_token_id": PLACEHOLDER,
            "diversity_loss": DiversityLoss(weight=0.5),
        }
        if "language_model" not in parts:
            defaults["language_model"] = LANGUAGE_MODELS[llm]()
        if "connector" not in parts:
            defaults["connector"] = make_connector()
        return AudioVisualLanguageModel(**{**defaults, **parts}).eval()

    return make


@pytest.fixture
def slow_ear() -> type[SlowEar]:
    return SlowEar


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Words; pads with its end token."""
    rule = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=rule, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


class Media:
    """Clips of ``frames`` pictures at 2 a second and of ``samples`` samples, with ``filler`` in the padding."""

    def __init__(self, frames: list[int], samples: list[int], filler: float = 0.0) -> None:
        self.frames, self.samples, self.filler = frames, samples, filler
        draw = torch.Generator().manual_seed(1)
        self.pictures = [torch.rand(8, 3, 2, 2, generator=draw) for _ in frames]
        self.sounds = [torch.randn(400, generator=draw) for _ in samples]

    def batch(self, rows: list[int] | None = None) -> dict[str, Any]:
        rows = list(range(len(self.frames))) if rows is None else rows
        frames, samples = [self.frames[row] for row in rows], [self.samples[row] for row in rows]
        pixels = self._padded(self.pictures, rows, frames)
        sound = self._padded(self.sounds, rows, samples)
        places = torch.arange(sound.shape[1]) < torch.tensor(samples)[:, None]
        return {
            "video": Video.from_rate(pixels, 2.0, lengths=frames),
            "waveform": Waveform(sound, places, 80, torch.zeros(len(rows), dtype=torch.float64)),
        }

    def _padded(self, values: list[Tensor], rows: list[int], lengths: list[int]) -> Tensor:
        padded = torch.full((len(rows), max(lengths), *values[0].shape[1:]), self.filler)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            padded[place, :length] = values[row][:length]
        return padded


@pytest.fixture
def media() -> Callable[..., Media]:
    return Media
