"""The FAVOR and video-SALMONN releases' connector weights."""

import re
from collections.abc import Iterator, Mapping
from typing import cast

from torch import Tensor

from avfusion.errors import CheckpointError, InvalidValueError
from avfusion.files.weights import load_exactly
from avfusion.functional.masks import CausalDirection, check_direction
from avfusion.modules.audio_visual_connector import AudioVisualConnector
from avfusion.modules.projector.multi_resolution_projector import MultiResolutionProjector
from avfusion.modules.projector.sliding_window_projector import SlidingWindowProjector
from avfusion.modules.qformer.causal_qformer import CausalQFormer
from avfusion.modules.synchroniser.frame_synchroniser import FrameSynchroniser

_SLOTS = 32
_FRAME_RATE, _AUDIO_RATE = 2.0, 50.0
_PREFIX = "projector.window_encoder."
_WIDEST = "feed_forward.up.weight"

# The release keeps one Q-Former under up to three sets of names; the joint one is read.
_TOP = {
    "ln_joint": "input_norm",
    "joint_frame_position_embedding.weight": "position_embedding",
    "joint_query_tokens": "query_tokens",
    "joint_Qformer.bert.embeddings.LayerNorm": "query_norm",
}
_LAYER = {
    "attention.self.query": "self_attention.attention.q_proj",
    "attention.self.key": "self_attention.attention.k_proj",
    "attention.self.value": "self_attention.attention.v_proj",
    "attention.output.dense": "self_attention.attention.out_proj",
    "attention.output.LayerNorm": "self_attention.norm",
    "intermediate_query.dense": "query_feed_forward.up",
    "output_query.dense": "query_feed_forward.down",
    "output_query.LayerNorm": "query_feed_forward.norm",
}
_LAYER |= {
    f"{theirs}{old.removeprefix('attention')}": new.replace("self_attention", ours)
    for theirs, ours in (("crossattention", "cross_attention"), ("encoder_causal_attention", "causal_attention"))
    for old, new in tuple(_LAYER.items())[:5]
}
_OUTER = {
    "llama_proj_joint": "projector.proj",
    "speech_pre_qformer_proj": "input_projections.audio",
    "low_query_tokens": "projector.fine_query_tokens",
}
_NAMES = {old: _PREFIX + new for old, new in _TOP.items()} | _OUTER
_DIMS = {  # of what sizes are read off
    _PREFIX + "position_embedding": 2,
    _PREFIX + "query_tokens": 2,
    _PREFIX + "input_norm.weight": 1,
    "projector.proj.weight": 2,
    "projector.fine_query_tokens": 2,
    "input_projections.audio.weight": 2,
}
_OLD_NAMES = {new: old for old, new in _NAMES.items()}
_OLD_LAYER = {new: old for old, new in _LAYER.items()}
_LAYER_NAME = re.compile(r"joint_Qformer\.bert\.encoder\.layer\.(\d{1,4})\.(.+)")


def connector_from_release(
    state_dict: Mapping[str, Tensor],
    *,
    num_heads: int,
    window_frames: int,
    causal_direction: str,
    fine_window_frames: int | None = None,
    visual_dim: int | None = None,
) -> AudioVisualConnector:
    """Builds a connector from the tensors of a released checkpoint, with the behaviour of the release.

    All sizes except the arguments follow from the tensors. The connector takes plain tensors at the released rates,
    ``visual`` ``(batch, frame, 32, dim)`` at 2 frames per second and ``audio`` ``(batch, time, dim)`` at 50 tokens per
    second, and attends to empty slots as the release does. Weights without causal attention give a plain Q-Former;
    weights with ``low_query_tokens`` (video-SALMONN) a :class:`~avfusion.MultiResolutionProjector`.

    Args:
        state_dict: tensors by the release's names; tensors of the language model and the encoders are ignored.
        num_heads: attention heads.
        window_frames: frames per window.
        causal_direction: ``"reversed"``, as the released weights were trained, or ``"causal"``; a remark in brackets,
            as in ``"reversed (as released)"``, is ignored.
        fine_window_frames: frames per fine window; given if and only if there are ``low_query_tokens``.
        visual_dim: width of a visual token; audio tokens have the rest of the Q-Former's input width. Weights with an
            audio map (``speech_pre_qformer_proj``) determine it; for others the default is half of the input width, as
            in the published models.

    Returns:
        The connector in evaluation mode, in the tensors' dtype.

    Raises:
        CheckpointError: tensors that are missing, unknown or of another shape.
        InvalidValueError: ``fine_window_frames`` or ``visual_dim`` does not fit the weights, or an unknown direction.

    Example:
        >>> import torch
        >>> from avfusion import AudioVisualConnector, CausalQFormer, FrameSynchroniser, SlidingWindowProjector
        >>> from avfusion.interop import connector_from_release, connector_to_release
        >>> qformer = CausalQFormer(input_dim=16, hidden_size=8, num_heads=2, num_queries=4, window_frames=5)
        >>> released = connector_to_release(
        ...     AudioVisualConnector(
        ...         synchroniser=FrameSynchroniser(visual_dim=8, stream_dims={"audio": 8}),
        ...         projector=SlidingWindowProjector(window_encoder=qformer, window_frames=5, llm_dim=12),
        ...         input_dims={"audio": 20},
        ...     )
        ... )
        >>> connector = connector_from_release(released, num_heads=2, window_frames=5, causal_direction="reversed")
        >>> connector(visual=torch.randn(1, 7, 32, 8), audio=torch.randn(1, 175, 20)).embeddings.shape
        torch.Size([1, 8, 12])
    """
    named = dict(_rename(state_dict))
    for name in ("position_embedding", "query_tokens", "input_norm.weight"):
        if _PREFIX + name not in named:
            raise CheckpointError(f"state_dict: holds no released connector, {_release_name(name)} is missing")
    if "projector.proj.weight" not in named:
        raise CheckpointError("state_dict: holds no released connector, llama_proj_joint.weight is missing")
    direction = causal_direction.partition(" ")[0]
    check_direction(direction)
    for name, dims in _DIMS.items():
        if name in named and named[name].ndim != dims:
            raise CheckpointError(
                f"state_dict: {_release_name(name)} must have {dims} dimensions, found shape {tuple(named[name].shape)}"
            )
    connector = _build(
        named, num_heads, window_frames, cast(CausalDirection, direction), fine_window_frames, visual_dim
    )
    positions = _PREFIX + "position_embedding"
    # The table is longer than a window; the rows past it are never read.
    named[positions] = named[positions][: window_frames * _SLOTS]
    if fine_window_frames is not None:
        named = {_in_two_resolutions(name): tensor for name, tensor in named.items()}
    load_exactly(connector, named, "state_dict")
    return connector.to(named["projector.proj.weight"].dtype).eval()


def connector_to_release(connector: AudioVisualConnector) -> dict[str, Tensor]:
    """The tensors of a connector under the release's names.

    Args:
        connector: a connector with a :class:`~avfusion.CausalQFormer` of 32 slots per frame, and no input maps that the
            release lacks.

    Returns:
        Tensors by the release's names, which share memory with the connector's.

    Raises:
        InvalidValueError: the connector has tensors without a name in the release.

    Example:
        >>> from avfusion import AudioVisualConnector, CausalQFormer, FrameSynchroniser, SlidingWindowProjector
        >>> from avfusion.interop import connector_to_release
        >>> qformer = CausalQFormer(input_dim=16, hidden_size=8, num_heads=2, num_queries=4, window_frames=5)
        >>> connector = AudioVisualConnector(
        ...     synchroniser=FrameSynchroniser(visual_dim=8, stream_dims={"audio": 8}),
        ...     projector=SlidingWindowProjector(window_encoder=qformer, window_frames=5, llm_dim=12),
        ... )
        >>> connector_to_release(connector)["llama_proj_joint.weight"].shape
        torch.Size([12, 8])
    """
    named: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in connector.state_dict().items():
        old = _release_name(_in_one_resolution(name))
        if old is None:
            unknown.append(name)
        else:
            named[old] = tensor[None] if old.endswith("query_tokens") else tensor
    if unknown:
        raise InvalidValueError(f"connector: the release has no name for {unknown}")
    return named


def _release_name(name: str) -> str | None:
    """The release's name of one of the connector's tensors."""
    layer = re.fullmatch(rf"{re.escape(_PREFIX)}layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if layer:
        old = _OLD_LAYER.get(layer[2])
        return old and f"joint_Qformer.bert.encoder.layer.{layer[1]}.{old}.{layer[3]}"
    stem = name.removesuffix(".weight").removesuffix(".bias")
    old = _OLD_NAMES.get(stem)
    return old and old + name[len(stem) :]


def _in_two_resolutions(name: str) -> str:
    """The name of a tensor where the window encoder has two sets of queries around the Q-Former."""
    if name == _OUTER["low_query_tokens"]:
        return _PREFIX + "fine_query_tokens"
    return _PREFIX + "window_encoder." + name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else name


def _in_one_resolution(name: str) -> str:
    """Undoes :func:`_in_two_resolutions`."""
    if name == _PREFIX + "fine_query_tokens":
        return _OUTER["low_query_tokens"]
    return name.replace(_PREFIX + "window_encoder.", _PREFIX, 1)


def _rename(state_dict: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in state_dict.items():
        layer = _LAYER_NAME.fullmatch(name)
        stem, _, kind = (layer[2] if layer else name).rpartition(".")
        if layer:
            if stem not in _LAYER:
                raise CheckpointError(f"state_dict: unknown tensor of the released Q-Former, {name}")
            yield f"{_PREFIX}layers.{layer[1]}.{_LAYER[stem]}.{kind}", tensor
        elif name in _NAMES:
            yield _NAMES[name], tensor.squeeze(0) if name.endswith("query_tokens") else tensor
        elif stem in _NAMES:
            yield f"{_NAMES[stem]}.{kind}", tensor
        elif name.startswith("joint_Qformer."):
            raise CheckpointError(f"state_dict: unknown tensor of the released Q-Former, {name}")


def _build(
    named: Mapping[str, Tensor],
    num_heads: int,
    window_frames: int,
    causal_direction: CausalDirection,
    fine_window_frames: int | None,
    visual_dim: int | None,
) -> AudioVisualConnector:
    def shape(name: str) -> tuple[int, ...]:
        return tuple(named[name].shape)

    layers = _PREFIX + "layers."
    input_dim, (num_queries, hidden) = shape(_PREFIX + "input_norm.weight")[0], shape(_PREFIX + "query_tokens")
    audio_map = "input_projections.audio.weight"
    visual_dim = _visual_dim(visual_dim, input_dim, shape(audio_map)[0] if audio_map in named else None)
    audio_dim = input_dim - visual_dim
    numbers = [int(name[len(layers) :].split(".")[0]) for name in named if name.startswith(layers)]
    if numbers and max(numbers) >= len(numbers):  # more layers than tensors
        raise CheckpointError(f"state_dict: must hold every layer up to the last, found number {max(numbers)}")
    fine = "projector.fine_query_tokens"
    if (fine in named) != (fine_window_frames is not None):
        raise InvalidValueError(
            "fine_window_frames: must be given if and only if the weights hold low_query_tokens, "
            f"found {fine_window_frames} and {'some' if fine in named else 'none'}"
        )
    qformer = CausalQFormer(
        input_dim=input_dim,
        hidden_size=hidden,
        num_layers=1 + max(numbers, default=0),
        num_heads=num_heads,
        num_queries=num_queries,
        intermediate_size=next((t.shape[0] for n, t in named.items() if t.ndim and n.endswith(_WIDEST)), None),
        window_frames=window_frames,
        tokens_per_frame=_SLOTS,
        causal_direction=causal_direction if any("causal_attention" in name for name in named) else None,
        padding="released",
    )
    llm_dim = shape("projector.proj.weight")[0]
    projector = (
        SlidingWindowProjector(window_encoder=qformer, window_frames=window_frames, llm_dim=llm_dim)
        if fine_window_frames is None
        else MultiResolutionProjector(
            window_encoder=qformer,
            window_frames=window_frames,
            fine_window_frames=fine_window_frames,
            fine_num_queries=shape(fine)[0],
            llm_dim=llm_dim,
        )
    )
    return AudioVisualConnector(
        synchroniser=FrameSynchroniser(
            visual_dim=visual_dim,
            stream_dims={"audio": audio_dim},
            frame_rate=_FRAME_RATE,
            stream_rates={"audio": _AUDIO_RATE},
            slots=_SLOTS,
            padding="released",
        ),
        projector=projector,
        input_dims={"audio": shape(audio_map)[1]} if audio_map in named else {},
    )


def _visual_dim(given: int | None, input_dim: int, mapped: int | None) -> int:
    """The visual stream's width in an input that it shares with the audio's, which an audio map tells."""
    if mapped is not None:
        if not 0 < mapped < input_dim:
            raise CheckpointError(
                f"state_dict: the audio map must be narrower than ln_joint, {input_dim}, found {mapped} wide"
            )
        if given not in (None, input_dim - mapped):
            raise InvalidValueError(
                f"visual_dim: must be {input_dim - mapped}, which the audio map leaves of {input_dim}, found {given}"
            )
        return input_dim - mapped
    if given is None and input_dim % 2:
        raise InvalidValueError(f"visual_dim: must be given, as the input, {input_dim} wide, has no halves, found None")
    visual_dim = input_dim // 2 if given is None else given
    if not 0 < visual_dim < input_dim:
        raise InvalidValueError(f"visual_dim: must be from 1 to {input_dim - 1}, found {visual_dim}")
    return visual_dim
