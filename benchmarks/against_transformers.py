"""The Q-Former without causal attention, and on audio alone, against transformers' modules with the same weights."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from avfusion import Frames
from benchmarks import ours, sizes
from benchmarks.agreement import check_agreement
from benchmarks.measure import Timings, time_in_turns
from benchmarks.ours import NAME
from benchmarks.peers import granite_speech
from benchmarks.peers.transformers_qformer import IMPLEMENTATIONS, KINDS, TransformersQFormer, embedded
from benchmarks.suite import Measurement, Result, Settings, Target, times

WINDOWS = 24
SECONDS = 30
FASTER = {"cpu": 1.25, "cuda": 1.3}
WORK = f"cross-attention only, {WINDOWS} windows"

Calls = Mapping[str, Callable[[], Tensor]]
Models = Mapping[str, nn.Module]


def run(settings: Settings) -> Result:
    measurements: list[Measurement] = []
    targets: list[Target] = []
    for work, models, calls in (_cross_attention(settings), _audio(settings)):
        for training in (False, True):
            name = f"forward{' + backward' * training}, {work}"
            timings = _time(models, calls, settings, training=training)
            measurements += times(name, timings, NAME)
            if work == WORK and not training:
                targets += [
                    Target(
                        f"{name}: times as fast as {peer}",
                        FASTER[settings.device],
                        timings.ratio(peer, NAME).median,
                    )
                    for peer in (f"{kind}, sdpa" for kind in KINDS)
                ]
    return Result({"audio_sizes": _audio_sizes(settings)._asdict()}, measurements, targets)


def _cross_attention(settings: Settings) -> tuple[str, Models, Calls]:
    torch.manual_seed(0)
    size, device, dtype = sizes.of(settings.smoke), settings.device, _dtype(settings)
    mine = ours.qformer(size, causal_direction=None).to(device)
    tokens = torch.randn(WINDOWS, size.window_frames, size.slots, size.width, device=device)
    given = embedded(mine, tokens)
    peers = {
        f"{kind}, {name}": TransformersQFormer(mine, kind=kind, attn_implementation=name, sizes=size).to(device)
        for kind in KINDS
        for name in IMPLEMENTATIONS
    }
    for name, peer in peers.items():
        with torch.no_grad():
            check_agreement(name, mine(tokens), peer(given))
    tokens, given = tokens.to(dtype), given.to(dtype)
    calls: dict[str, Callable[[], Tensor]] = {NAME: lambda: mine(tokens)}
    calls |= {name: partial(_call, peer, given) for name, peer in peers.items()}
    return WORK, _to(dtype, {NAME: mine, **peers}), calls


def _audio(settings: Settings) -> tuple[str, Models, Calls]:
    torch.manual_seed(0)
    size, device, dtype = _audio_sizes(settings), settings.device, _dtype(settings)
    mine = ours.projector(size, causal_direction=None).to(device)
    count = int(SECONDS * granite_speech.RATE)
    tokens = torch.randn(1, count, size.slots, size.width, device=device)
    given = granite_speech.embedded_clip(ours.encoder_of(mine), tokens)
    peers = {
        f"GraniteSpeechEncoderProjector, {name}": granite_speech.GraniteSpeech(
            mine, attn_implementation=name, sizes=size
        ).to(device)
        for name in IMPLEMENTATIONS
    }
    for name, peer in peers.items():
        with torch.no_grad():
            frames = Frames.from_rate(tokens, granite_speech.RATE)
            check_agreement(name, mine(frames).embeddings, peer(given))
    frames, given = Frames.from_rate(tokens.to(dtype), granite_speech.RATE), given.to(dtype)
    calls: dict[str, Callable[[], Tensor]] = {NAME: lambda: mine(frames).embeddings}
    calls |= {name: partial(_call, peer, given) for name, peer in peers.items()}
    return f"{SECONDS} s of audio alone", _to(dtype, {NAME: mine, **peers}), calls


def _call(peer: nn.Module, embedded: Tensor) -> Tensor:
    """Its tokens want gradients in training, as ours do: they come from a trained LayerNorm and trained places."""
    return peer(embedded.detach().requires_grad_(torch.is_grad_enabled()))


def _time(models: Models, calls: Calls, settings: Settings, *, training: bool) -> Timings:
    def step(name: str) -> Callable[[], object]:
        if not training:
            return torch.inference_mode()(calls[name])

        def run() -> None:
            models[name].zero_grad()
            calls[name]().square().mean().backward()

        return run

    steps = {name: step(name) for name in calls}
    return time_in_turns(steps, device=settings.device, rounds=settings.rounds, block=settings.block)


def _to(dtype: torch.dtype, models: Models) -> Models:
    return {name: model.to(dtype) for name, model in models.items()}


def _dtype(settings: Settings) -> torch.dtype:
    return torch.bfloat16 if settings.device == "cuda" else torch.float32


def _audio_sizes(settings: Settings) -> sizes.Sizes:
    return granite_speech.SMOKE_AUDIO if settings.smoke else granite_speech.AUDIO
