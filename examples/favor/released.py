"""What a released checkpoint holds, name by name."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from avfusion import CheckpointError

# The release keeps one Q-Former under several names. The joint ones, on the right, are those that are read.
_SAME = {
    **dict.fromkeys(("ln_video", "ln_speech"), "ln_joint"),
    **dict.fromkeys(
        ("video_frame_position_embedding", "speech_frame_position_embedding"), "joint_frame_position_embedding"
    ),
    **dict.fromkeys(("video_query_tokens", "speech_query_tokens"), "joint_query_tokens"),
    **dict.fromkeys(("video_Qformer", "speech_Qformer"), "joint_Qformer"),
    **dict.fromkeys(("llama_proj", "llama_proj_speech"), "llama_proj_joint"),
}
_FROZEN = {
    **dict.fromkeys(("visual_encoder", "ln_vision"), "frozen: the base has the image encoder"),
    **dict.fromkeys(("Qformer", "query_tokens"), "frozen: the base has the image Q-Former"),
    "speech_encoder": "frozen: the base has Whisper",
    "llama_model": "frozen: the base has the language model",
    "beats": "frozen, and the base has another tower in its place",
}
_CONNECTOR = (*dict.fromkeys(_SAME.values()), "speech_pre_qformer_proj", "low_query_tokens")
_LORA = re.compile(r"llama_model\.base_model\.model\.(.+)\.lora_(A|B)(?:\.default)?\.weight")
_INNER, _DEPTH = ("model", "state_dict", "module"), 8  # where a state dict lies, and in how many of these at most
_DIMS = {"joint_query_tokens": 2, "low_query_tokens": 2, "joint_frame_position_embedding.weight": 2}
_BUFFERS = ("position_ids", "inv_freq")


class Contents(NamedTuple):
    """A checkpoint's tensors by what becomes of them.

    Attributes:
        connector: the connector's, by their joint names.
        lora: LoRA's, by their names in this assembly.
        sources: the name in the file of each of both.
        duplicates: name to the name in the file of the tensor that it repeats.
        unused: name to the reason.
        unknown: names that tell nothing.
    """

    connector: dict[str, Tensor]
    lora: dict[str, Tensor]
    sources: dict[str, str]
    duplicates: dict[str, str]
    unused: dict[str, str]
    unknown: list[str]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, without running anything that is in it.

    Args:
        path: of ``torch.save``, or of safetensors if it is named so.

    Raises:
        CheckpointError: no file, a broken one, one that wants code to run, or one without tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # torch names what it does not run, if that is why.
        asked = re.search(r"GLOBAL ([\w.]*\w)", str(error))
        raise CheckpointError(
            f"{path}: must hold tensors and plain values only; it asks to run {asked[1]}, which is refused"
            if asked
            else f"{path}: must hold tensors and plain values only, found something else"
        ) from error
    except RecursionError as error:
        raise CheckpointError(f"{path}: not a checkpoint, it is nested too deep") from error
    except Exception as error:  # what is inside a broken file is met by whatever code comes upon it
        raise CheckpointError(
            f"{path}: not a checkpoint, or a broken one ({str(error).partition(chr(10))[0]})"
        ) from error
    for _ in range(_DEPTH):  # the state dict may lie beside the optimiser's and other things
        inner = next((content[key] for key in _INNER if key in content), None) if isinstance(content, Mapping) else None
        if not isinstance(inner, Mapping):
            break
        content = inner
    else:
        raise CheckpointError(
            f"{path}: must hold its tensors at most {_DEPTH} levels deep under {', '.join(_INNER)}, found more levels"
        )
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name).removeprefix("module."): value for name, value in named if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no named tensors")
    odd = [name for name, tensor in tensors.items() if tensor.layout != torch.strided or tensor.is_quantized]
    if odd:
        raise CheckpointError(
            f"{path}: must hold dense tensors, found {len(odd)} of another kind: {', '.join(odd[:5])}"
        )
    return tensors


def sort(tensors: Mapping[str, Tensor]) -> Contents:
    """Tells what every tensor is.

    Raises:
        CheckpointError: tensors that must be equal, and are not, or that are no weights.
    """
    found = Contents({}, {}, {}, {}, {}, [])
    different: list[str] = []
    # The joint names first: then all others of the same tensor are its duplicates.
    for name in sorted(tensors, key=lambda name: name.partition(".")[0] in _SAME):
        top, dot, rest = name.partition(".")
        lora = _LORA.fullmatch(name)
        joint = _SAME.get(top, top)
        if rest.rpartition(".")[2] in _BUFFERS:
            found.unused[name] = "a buffer of constants"
            continue
        if lora is None and joint not in _CONNECTOR:
            if top in _FROZEN:
                found.unused[name] = _FROZEN[top]
            else:
                found.unknown.append(name)
            continue
        place, wanted = (
            (found.connector, joint + dot + rest)
            if lora is None
            else (found.lora, f"language_model.{lora[1]}.lora_{lora[2]}.weight")
        )
        if wanted not in found.sources:
            place[wanted], found.sources[wanted] = tensors[name], name
        elif torch.equal(place[wanted], tensors[name]):
            found.duplicates[name] = found.sources[wanted]
        else:
            different.append(f"{name} and {found.sources[wanted]}")
    odd = [
        f"{found.sources[name]} is {str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
        for name, tensor in (found.connector | found.lora).items()
        if not tensor.is_floating_point() or tensor.ndim < _DIMS.get(name, 1)
    ]
    if odd:
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise CheckpointError(f"checkpoint: must hold floating weights, found {'; '.join(odd[:5])}{more}")
    if different:
        more = f" and {len(different) - 5} more pairs" if len(different) > 5 else ""
        raise CheckpointError(f"checkpoint: must hold the same under {'; '.join(different[:5])}{more}; they differ")
    return found
