"""The connector against a plain port of the released one: time, operations, memory."""

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from avfusion import AudioVisualConnector
from benchmarks import flops, ours, sizes
from benchmarks.agreement import check_agreement
from benchmarks.measure import Spread, Timings, time_in_turns
from benchmarks.memory import peak_bytes
from benchmarks.ours import NAME
from benchmarks.peers import weights
from benchmarks.peers.released import ReleasedConnector
from benchmarks.peers.released_audio_visual import ReleasedAudioVisual
from benchmarks.sizes import Sizes
from benchmarks.suite import Measurement, Result, Settings, Target, times

PEER = "released connector"
GRAPHS, COMPILED = f"{NAME}, CUDA graphs", f"{NAME}, compiled"
CLIPS, FRAMES = 4, 60
MANY_CLIPS = 40  # of a large batch, which a GPU is not left waiting with
RAGGED = (60, 35, 20, 5)  # half of the frames are real, and 13 of 24 windows
CHECKPOINT_EVERY = 6
COMPILED_TOLERANCE = 0.02


class Bound(NamedTuple):
    cpu: float  # in float32
    cuda: float  # in bfloat16


FASTER = {
    "forward, 24 windows": Bound(1.35, 2.2),
    "forward + backward, 24 windows": Bound(1.3, 1.9),
    "forward, ragged batch": Bound(2.6, 4.0),
    "forward + backward, ragged batch": Bound(2.3, 3.5),
    "forward, 240 windows": Bound(1.35, 2.2),  # as is the next, on a GPU only
    "forward + backward, 240 windows": Bound(1.3, 1.9),
}
FASTER_WITH_GRAPHS = 6.0
DENSE, WITH_GRAPHS, MANY = "24 windows", "6 windows", "240 windows"
SHARE_OF_PEAK = {False: Bound(0.85, 0.65), True: Bound(0.85, 0.55)}  # forward; and backward, on a GPU only
FORWARD_MEMORY = Bound(0.07, 0.1)
TRAINING_MEMORY = Bound(0.45, 0.45)


class Models(NamedTuple):
    """The same weights in every one of avfusion's variants and in the peer."""

    variants: dict[str, AudioVisualConnector]
    peer: ReleasedAudioVisual

    def to(self, dtype: torch.dtype) -> "Models":
        return Models({name: model.to(dtype) for name, model in self.variants.items()}, self.peer.to(dtype))


class Work(NamedTuple):
    """One thing to compute in several ways.

    Attributes:
        name: what.
        ours: embeddings of ``(model,)``.
        theirs: embeddings of the peer.
        real: ``(clip, position)`` bool: embeddings that both must give.
        audio: whether the map of the audio tokens is part of it.
    """

    name: str
    ours: Callable[[AudioVisualConnector], Tensor]
    theirs: Callable[[ReleasedAudioVisual], Tensor]
    real: Tensor
    audio: bool = False


def run(settings: Settings) -> Result:
    size = sizes.of(settings.smoke)
    dtype = torch.bfloat16 if settings.device == "cuda" else torch.float32
    models = _models(size, settings)
    for work in _works(size, settings.device, torch.float32):
        _check(work, models)
    models = models.to(dtype)

    measurements: list[Measurement] = []
    targets: list[Target] = []
    for work in _works(size, settings.device, dtype):
        _check_compiled(work, models)
        for training in (False, True):
            name = f"forward{' + backward' * training}, {work.name}"
            if work.audio and not training:
                continue
            calls = _calls(work, models, settings, training=training)
            shared = work.name in (DENSE, MANY) and (settings.device == "cuda" or not training)
            products = flops.products(settings.device, dtype, settings.smoke) if shared else {}
            timings = time_in_turns(
                calls | {product: call for product, (_, call) in products.items()},
                device=settings.device,
                rounds=settings.rounds,
                block=settings.block,
            )
            measurements += [row for row in times(name, timings, NAME) if row.variant not in products]
            if name in FASTER:
                bound = _of(FASTER[name], settings)
                targets.append(Target(f"{name}: times as fast as the {PEER}", bound, timings.ratio(PEER, NAME).median))
            if GRAPHS in calls and work.name == WITH_GRAPHS:
                targets.append(
                    Target(
                        f"{name}, with CUDA graphs: times as fast as the {PEER}",
                        FASTER_WITH_GRAPHS,
                        timings.ratio(PEER, GRAPHS).median,
                    )
                )
            if shared:
                counted: Mapping[str, Callable[[], object]] = (
                    calls if training else {who: embed for who, (embed, _) in _embedders(work, models).items()}
                )
                rows, target = _operations(name, counted, products, timings, settings, training=training)
                measurements += rows
                targets.append(target)
            print(name, {variant: f"{Spread.of(timings.of(variant)).median:.3g} s" for variant in calls}, flush=True)
    for rows, target in _memory(settings):
        measurements += rows
        targets.append(target)
    return Result({"sizes": size._asdict(), "dtype": str(dtype).removeprefix("torch.")}, measurements, targets)


def _models(size: Sizes, settings: Settings) -> Models:
    torch.manual_seed(0)
    model = ours.connector(size, ours.projector(size))
    peer = ReleasedAudioVisual(ReleasedConnector(**size.of_connector()), audio=size.audio, stream=size.stream)
    peer.connector.load_state_dict(weights.for_released(model.projector))
    peer.audio_map.load_state_dict(model.input_projections["audio"].state_dict())
    variants = {}
    for name, implementation in ours.implementations(settings.device).items():
        variants[name] = copy.deepcopy(model).to(settings.device)
        ours.encoder_of(variants[name].projector).set_attn_implementation(implementation)
    if settings.device == "cuda":
        torch._dynamo.config.recompile_limit = 64  # graphs of two models for every dtype, shape and mode
        for name, options in ((GRAPHS, {"mode": "reduce-overhead", "dynamic": False}), (COMPILED, {})):
            variants[name] = copy.deepcopy(variants[NAME])
            variants[name].projector.compile_window_encoder(**options)
    return Models(variants, peer.to(settings.device))


def _works(size: Sizes, device: str, dtype: torch.dtype) -> Iterator[Work]:
    torch.manual_seed(1)
    yield _on_frames(DENSE, size, [FRAMES] * CLIPS, device, dtype)
    yield _on_frames(WITH_GRAPHS, size, [FRAMES], device, dtype)
    yield _on_frames("ragged batch", size, list(RAGGED), device, dtype)
    if device == "cuda":
        yield _on_frames(MANY, size, [FRAMES] * MANY_CLIPS, device, dtype)
    visual = torch.randn(CLIPS, FRAMES, size.slots, size.stream, device=device, dtype=dtype)
    audio = torch.randn(CLIPS, FRAMES, size.audio_per_frame, size.audio, device=device, dtype=dtype)
    everything = torch.ones(CLIPS, FRAMES, dtype=torch.bool, device=device)
    yield Work(
        "24 windows with a trained map of the audio",
        lambda model: model(visual=visual, audio=audio.flatten(1, 2)).embeddings,
        lambda peer: peer(visual, audio, everything),
        _positions(everything, size),
        audio=True,
    )


def _on_frames(name: str, size: Sizes, lengths: list[int], device: str, dtype: torch.dtype) -> Work:
    tokens = ours.tokens(size, len(lengths), max(lengths), device=device, dtype=dtype)
    frames = ours.frames(tokens, lengths)
    real = frames.mask.any(-1)
    return Work(
        name,
        lambda model: model.projector(frames).embeddings,
        lambda peer: peer.connector(tokens, real),
        _positions(real, size),
    )


def _positions(real: Tensor, size: Sizes) -> Tensor:
    """Which embeddings stand for a window with a real frame."""
    return real.unflatten(1, (-1, size.window_frames)).any(-1).repeat_interleave(size.queries, 1)


def _embedders(work: Work, models: Models) -> dict[str, tuple[Callable[[], Tensor], nn.Module]]:
    """What gives the embeddings, and with whose weights, by variant."""
    mine = {name: (partial(work.ours, model), model) for name, model in models.variants.items()}
    return {**mine, PEER: (partial(work.theirs, models.peer), models.peer)}


def _calls(work: Work, models: Models, settings: Settings, *, training: bool) -> dict[str, Callable[[], object]]:
    # Each backend on the first work; the default on all.
    wanted = {*ours.implementations(settings.device)} if work.name == DENSE else {NAME}
    wanted |= {PEER, *_compiled(work)} - ({GRAPHS} if training and work.name == WITH_GRAPHS else set())
    last = models.peer.connector.proj
    noise = torch.randn(*work.real.shape, last.out_features, device=work.real.device, dtype=last.weight.dtype)
    gradient = noise * work.real[..., None]  # what stands for padding has no part in the loss
    return {
        name: _backward(embed, model, gradient) if training else torch.inference_mode()(embed)
        for name, (embed, model) in _embedders(work, models).items()
        if name in wanted
    }


def _compiled(work: Work) -> set[str]:
    """Which of the compiled variants do it; the models have none but on a GPU."""
    return {DENSE: {GRAPHS, COMPILED}, MANY: {COMPILED}, WITH_GRAPHS: {GRAPHS}}.get(work.name, set())


def _backward(embed: Callable[[], Tensor], model: nn.Module, gradient: Tensor) -> Callable[[], None]:
    """A step without the optimiser's."""

    def step() -> None:
        model.zero_grad()
        embed().backward(gradient)

    return step


def _check(work: Work, models: Models) -> None:
    """Embeddings of every variant, and the gradients that reach the queries of the default."""
    theirs = work.theirs(models.peer)
    for name, model in models.variants.items():
        if name in (GRAPHS, COMPILED):
            continue  # in the dtype that is timed, as compiling takes long
        with torch.no_grad():
            check_agreement(f"{name}, {work.name}", work.ours(model)[work.real], theirs[work.real])
    model = models.variants[NAME]
    mine, other = ours.encoder_of(model.projector).query_tokens, models.peer.connector.queries
    for embeddings in (work.ours(model), theirs):
        embeddings[work.real].square().sum().backward()
    assert mine.grad is not None
    assert other.grad is not None
    check_agreement(f"gradients, {work.name}", mine.grad, other.grad[0])
    model.zero_grad()
    models.peer.zero_grad()


@torch.inference_mode()
def _check_compiled(work: Work, models: Models) -> None:
    """The compiled variants give what the default does, within the rounding of half precision."""
    for name in _compiled(work) & {*models.variants}:
        wanted, found = (work.ours(models.variants[who])[work.real].float() for who in (NAME, name))
        error = ((found - wanted).norm() / wanted.norm()).item()
        if not error <= COMPILED_TOLERANCE:
            raise RuntimeError(f"{name}, {work.name}: outputs must agree within {COMPILED_TOLERANCE}, found {error:g}")


def _operations(
    work: str,
    calls: Mapping[str, Callable[[], object]],
    products: dict[str, tuple[int, Callable[[], object]]],
    timings: Timings,
    settings: Settings,
    *,
    training: bool,
) -> tuple[list[Measurement], Target]:
    """Operations executed a second, beside the best matrix product of the same round.

    Those that compiling leaves are not counted: compiled variants are said to execute the default's, of which they may
    leave some out.
    """
    executed = {name: flops.executed_flops(calls[name], training=training) for name in (NAME, PEER)}
    executed |= {name: executed[NAME] for name in (GRAPHS, COMPILED) if name in timings.seconds[timings.clock]}
    rates = {name: [count / second for second in timings.of(name)] for name, count in executed.items()}
    rates |= {name: [count / second for second in timings.of(name)] for name, (count, _) in products.items()}
    peaks = [max(rates[name][turn] for name in products) for turn in range(settings.rounds)]
    share = {name: Spread.of([rate / peak for rate, peak in zip(rates[name], peaks, strict=True)]) for name in executed}
    rows = [Measurement(work, name, "operations", "FLOP", Spread.of([count])) for name, count in executed.items()]
    rows += [Measurement(work, name, "rate", "FLOP/s", Spread.of(values)) for name, values in rates.items()]
    rows += [Measurement(work, name, "share of peak", "", value) for name, value in share.items()]
    name = f"{work}: share of the rate of a matrix product"
    return rows, Target(name, _of(SHARE_OF_PEAK[training], settings), share[NAME].median)


def _memory(settings: Settings) -> Iterator[tuple[list[Measurement], Target]]:
    few, many = (2, 4) if settings.smoke else (24, 120)
    for task, windows, bound in (("forward", many, FORWARD_MEMORY), ("training", few, TRAINING_MEMORY)):
        work = f"memory beside weights and inputs, {task}, {windows} windows"
        every = CHECKPOINT_EVERY if task == "training" else None
        mine = peak_bytes(settings, model="avfusion", task=task, windows=windows, checkpoint_every=every)
        theirs = peak_bytes(settings, model="released", task=task, windows=windows)
        rows = [Measurement(work, NAME, "peak memory", "B", Spread.of([mine]))]
        rows.append(
            Measurement(work, PEER, "peak memory", "B", Spread.of([theirs]), Spread.of([theirs / max(mine, 1)]))
        )
        yield rows, Target(f"{work}: part of the {PEER}'s", _of(bound, settings), mine / max(theirs, 1), at_least=False)


def _of(bound: Bound, settings: Settings) -> float:
    return bound.cuda if settings.device == "cuda" else bound.cpu
