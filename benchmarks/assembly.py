"""The reference assembly with random weights: where the time of a forward pass goes, and what kept features save."""

import argparse
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import BlipImageProcessor, PrinterCallback, WhisperFeatureExtractor, set_seed
from transformers.utils import logging

from avfusion.features import FeatureWriter
from avfusion.media import write_video
from avfusion.models import conversation
from benchmarks.measure import CPU, GPU, WALL, Spread
from benchmarks.suite import Measurement, Result, Settings, Target
from examples.favor import FavorConfig, FavorForConditionalGeneration, FavorProcessor, train
from examples.favor.cache import encode_examples
from examples.favor.data import Conversations, with_clip
from examples.favor.features import FeatureCache, cache_settings
from examples.favor.presets import full_config, lora_config
from examples.favor.processing_favor import shared_options
from examples.favor.records import Example
from examples.favor.tags import Messages
from examples.favor.tiny import tiny_config, tiny_tokenizer
from examples.favor.trainer import FavorTrainer
from examples.favor.workers import WORKERS

PRESET = "favor-vicuna-7b"
# A quarter of the published widths and an eighth of the layers. Where fewer layers are left out, widths are narrower:
# the connector keeps its two, has an eighth of its widths, and so about twice its published share of the operations.
SCALED: dict[str, Any] = {
    "vision_config": {
        "model_type": "instructblip_vision_model",
        "hidden_size": 352,
        "intermediate_size": 1536,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
    },
    "qformer_config": {
        "model_type": "instructblip_qformer",
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "encoder_hidden_size": 352,
        "vocab_size": 2000,
    },
    "audio_config": {
        "model_type": "whisper",
        "d_model": 320,
        "encoder_layers": 4,
        "encoder_attention_heads": 5,
        "encoder_ffn_dim": 1280,
        "decoder_layers": 1,
    },
    "text_config": {
        "model_type": "llama",
        "hidden_size": 1024,
        "intermediate_size": 2752,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "vocab_size": 2000,
    },
    "stream_dim": 96,
    "connector_hidden_size": 96,
    "connector_heads": 2,
}
SCALED_RANK = 8  # of LoRA
AT_MOST = 0.05
AT_LEAST = {"cpu": 5.0, "cuda": 8.0}
CLIPS, SECONDS = 12, 10.0
EPOCHS = 3  # rounds of epochs, which are long
FORWARD = "a forward pass"


def run(settings: Settings) -> Result:
    set_seed(0)
    logging.set_verbosity_error()
    model, processor = _assemble(settings)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        measurements, share = _stages(model, processor, Path(folder), settings)
        more, gain = _epochs(model, processor, Path(folder), settings)
    kind = f"{PRESET}, {'tiny' if settings.smoke else 'full size' if settings.device == 'cuda' else 'scaled down'}"
    parts = {name: sum(value.numel() for value in part.parameters()) for name, part in _parts(model).items()}
    return Result({"model": kind, "parameters": parts}, measurements + more, [share, gain])


def _assemble(settings: Settings) -> tuple[Any, FavorProcessor]:
    full = settings.device == "cuda" and not settings.smoke
    config = tiny_config(PRESET) if settings.smoke else full_config(PRESET) if full else FavorConfig(**SCALED)
    with torch.device(settings.device):
        dtype = torch.bfloat16 if settings.device == "cuda" else torch.float32
        model = FavorForConditionalGeneration._from_config(config, dtype=dtype).eval()
    side, chunk = config.vision_config.image_size, config.audio_config.max_source_positions // 50
    processor = FavorProcessor(
        tiny_tokenizer(),
        BlipImageProcessor(size={"height": side, "width": side}),
        WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins, chunk_length=chunk),
        qformer_tokenizer=tiny_tokenizer(),
        **shared_options(config),
    )
    return model, processor


def _parts(model: Any) -> dict[str, nn.Module]:
    """What a forward pass is made of; the rest is glue."""
    return {
        "vision tower": model.visual_encoder.vision_model,
        "image Q-Former": model.visual_encoder.qformer,
        "audio tower": model.audio_encoder.model,
        "synchroniser and connector": model.connector,
        "language model": model.language_model,
    }


def _stages(
    model: Any, processor: FavorProcessor, folder: Path, settings: Settings
) -> tuple[list[Measurement], Target]:
    """Every stage of answering about a ragged batch, all of them once a round."""
    asked = _ragged(folder, settings)
    host = WALL if settings.device == "cuda" else CPU
    clock, mark = (GPU, _event) if settings.device == "cuda" else (CPU, time.process_time)
    watch = _Stopwatch(_parts(model), mark)
    seconds: dict[tuple[str, str], list[float]] = {}
    shares: dict[str, list[float]] = {}
    for number in range(settings.rounds + 1):
        times = _host_times(processor, asked, host)
        inputs = processor.apply_chat_template(asked).to(model.device)
        spent, wall = watch.run(partial(model, **inputs), settings.device)
        if number == 0:  # to warm up
            continue
        whole = spent[FORWARD]
        spent["merge and glue"] = whole - sum(value for name, value in spent.items() if name != FORWARD)
        times |= {(name, clock): value for name, value in spent.items()} | {(FORWARD, WALL): wall}
        for cell, value in times.items():
            seconds.setdefault(cell, []).append(value)
        outside = {"outside encoders and language model": spent["synchroniser and connector"] + spent["merge and glue"]}
        for name, value in (spent | outside).items():
            shares.setdefault(name, []).append(value / whole)
    watch.remove()
    work = f"stages, a ragged batch of {len(asked)} conversations"
    rows = [Measurement(work, name, by, "s", Spread.of(values)) for (name, by), values in seconds.items()]
    rows += [Measurement(work, name, "share of the forward pass", "", Spread.of(one)) for name, one in shares.items()]
    share = Spread.of(shares["outside encoders and language model"]).median
    return rows, Target("share of a forward pass outside encoders and language model", AT_MOST, share, at_least=False)


def _host_times(processor: FavorProcessor, asked: Sequence[Messages], clock: str) -> dict[tuple[str, str], float]:
    """As a worker does it: on one thread."""
    now = time.perf_counter if clock == WALL else time.process_time
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = now()
    clips = [processor.load_clip(messages) for messages in asked]
    middle = now()
    processor.apply_chat_template(
        [messages if clip is None else with_clip(messages, clip) for messages, clip in zip(asked, clips, strict=True)]
    )
    end = now()
    torch.set_num_threads(threads)
    return {("decode media", clock): middle - start, ("processor", clock): end - middle}


class _Stopwatch:
    """Adds up what passes between the beginning and the end of parts of a model."""

    def __init__(self, parts: Mapping[str, nn.Module], mark: Callable[[], Any]) -> None:
        self.mark = mark
        self.marks: dict[str, list[Any]] = {name: [] for name in parts}
        self.hooks: list[Any] = []
        for name, part in parts.items():
            note = self._noting(name)
            self.hooks += [part.register_forward_pre_hook(note), part.register_forward_hook(note)]

    def _noting(self, name: str) -> Callable[..., None]:
        return lambda *_: self.marks[name].append(self.mark())

    def run(self, call: Callable[[], object], device: str) -> tuple[dict[str, float], float]:
        """Seconds of the call and of each part by the clock, and seconds of the call by the wall's."""
        for marks in self.marks.values():
            marks.clear()
        wall, start = time.perf_counter(), self.mark()
        with torch.inference_mode():
            call()
        end = self.mark()
        if device == "cuda":
            torch.cuda.synchronize()
        wall = time.perf_counter() - wall
        pairs = {name: zip(marks[::2], marks[1::2], strict=True) for name, marks in self.marks.items()}
        spent = {name: sum(_between(*pair) for pair in both) for name, both in pairs.items()}
        return {**spent, FORWARD: _between(start, end)}, wall

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(start: Any, end: Any) -> float:
    return float(end - start if isinstance(start, float) else start.elapsed_time(end) / 1000)


def _epochs(
    model: Any, processor: FavorProcessor, folder: Path, settings: Settings
) -> tuple[list[Measurement], Target]:
    """Whole epochs of training by the wall's clock: other processes read the media."""
    clips, seconds = (2, 1.0) if settings.smoke else (CLIPS, SECONDS)
    answer = {"role": "assistant", "content": "Hum."}  # bytes are tokens here, words in earnest
    files = [_clip(folder / f"epoch{number}.mp4", seconds, number, settings) for number in range(clips)]
    rows = [[*conversation("What?", video=file), answer] for file in files]
    examples = [Example(row, str(number)) for number, row in enumerate(rows)]

    chosen = cache_settings(model, processor)
    start = time.perf_counter()
    with FeatureWriter(folder / "features", chosen, dtype=None, shard_size=10**8) as writer:
        encode_examples(model, processor, examples, writer, batch_size=4, workers=1 if settings.smoke else WORKERS)
    making = time.perf_counter() - start
    features = FeatureCache(folder / "features", chosen)

    model.connector.float()
    rank = {} if settings.device == "cuda" else {"r": SCALED_RANK, "lora_alpha": SCALED_RANK}
    adapted = get_peft_model(model, lora_config(PRESET, **rank))
    sources: dict[str, FeatureCache | None] = {"from media": None, "from the feature cache": features}
    spent: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(2 if settings.smoke else 1 + min(settings.rounds, EPOCHS)):  # the first one warms up
        for name, source in sources.items():
            data = Conversations(examples, processor=processor, features=source)
            trainer = _trainer(adapted, processor, data, folder, cached=source is not None, settings=settings)
            start = time.perf_counter()
            trainer.train()
            if number > 0:
                spent[name].append(time.perf_counter() - start)
    media, kept = spent.values()
    gain = Spread.of([one / other for one, other in zip(media, kept, strict=True)])
    work = f"an epoch of training, {clips} clips of {seconds:g} s"
    measured = [
        Measurement(work, "from the feature cache", WALL, "s", Spread.of(kept)),
        Measurement(work, "from media", WALL, "s", Spread.of(media), gain),
        Measurement(work, "making the feature cache, once", WALL, "s", Spread.of([making])),
    ]
    name = "an epoch of training from media in one from the feature cache"
    return measured, Target(name, AT_LEAST[settings.device], gain.median)


def _trainer(
    model: Any, processor: FavorProcessor, data: Conversations, folder: Path, *, cached: bool, settings: Settings
) -> FavorTrainer:
    """As the command line would make it, without checkpoints and words."""
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    given = ["--model", PRESET, "--data", "none", "--out", str(folder / "out"), "--epochs", "1"]
    given += ["--batch-size", "4", "--accumulate", "1"]
    given += ["--features", str(folder / "features")] * cached + ["--workers", "1"] * settings.smoke
    quiet = ("save_strategy=no", "report_to=none", "logging_strategy=no", "disable_tqdm=true")
    given += [part for value in quiet for part in ("--set", value)]
    if settings.device == "cpu":
        given += ["--set", "use_cpu=true", "--dtype", "float32"]
    trainer = FavorTrainer(
        model=model,
        args=train.training_arguments(parser.parse_args(given)),
        data_collator=processor.collate,
        train_dataset=data,
        processing_class=processor,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _ragged(folder: Path, settings: Settings) -> list[Messages]:
    """Rows of unlike length and media: padding would cost, were it computed."""
    unit = 0.2 if settings.smoke else 1.0
    long, short, mute, heard = (
        _clip(folder / f"{name}.mp4", seconds * unit, number, settings, sound=name != "mute")
        for number, (name, seconds) in enumerate((("long", 10.0), ("short", 4.0), ("mute", 6.0), ("heard", 8.0)))
    )
    return [
        conversation("What happens while someone speaks, and what after that?", video=long),
        conversation("What is heard?", video=short),
        conversation("What is seen?", video=mute),
        conversation("Who speaks?", audio=heard),
        conversation("And what happens then?", video=long),
        conversation("What can you do?"),
    ]


def _clip(path: Path, seconds: float, seed: int, settings: Settings, *, sound: bool = True) -> str:
    """A square that moves over a gradient, 25 pictures a second, and a tone."""
    height, width = (32, 32) if settings.smoke else (360, 640)
    count, side = max(2, math.ceil(seconds * 25)), height // 4
    across = torch.linspace(0, 200, width).expand(height, width)
    still = torch.stack([across, across.flip(1), torch.linspace(0, 200, height)[:, None].expand(height, width)])
    pixels = still.byte().repeat(count, 1, 1, 1)
    for number in range(count):
        left = (number * 4 + 40 * seed) % (width - side)
        pixels[number, :, side : 2 * side, left : left + side] = 255
    times = torch.arange(round(seconds * 16_000)) / 16_000
    tone: Tensor | None = 0.3 * torch.sin(2 * torch.pi * (220 + 40 * seed) * times) if sound else None
    write_video(path, pixels, frame_rate=25.0, samples=tone)
    return str(path)
