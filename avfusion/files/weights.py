"""Safetensors files of modules."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from avfusion.errors import CheckpointError
from avfusion.files import write_whole


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Loads tensors into a module, or raises one error that names all differences.

    Args:
        module: the module.
        tensors: tensors by name.
        source: origin of the tensors, for the message.

    Raises:
        CheckpointError: tensors that are missing, unknown, of another shape or kind, or not finite.
    """
    check_fit(module, tensors, source)
    module.load_state_dict(dict(tensors), assign=any(t.is_meta for t in module.state_dict().values()))


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises what :func:`load_exactly` raises, without loading; the module may be on the meta device."""
    wanted = module.state_dict()
    both = sorted(set(wanted) & set(tensors))
    found = {
        "missing": sorted(set(wanted) - set(tensors)),
        "unknown": sorted(set(tensors) - set(wanted)),
        "of another shape": [
            f"{name} is {tuple(tensors[name].shape)}, must be {tuple(wanted[name].shape)}"
            for name in both
            if tensors[name].shape != wanted[name].shape
        ],
        "of another kind": [
            f"{name} is {_kind(tensors[name])}, must be {'floating' if _floats(wanted[name]) else wanted[name].dtype}"
            for name in both
            if not _is_of_kind(tensors[name], wanted[name])
        ],
        "not finite": [name for name in both if _floats(tensors[name]) and not tensors[name].isfinite().all()],
    }
    differences = [
        f"{title} {len(names)}: {'; '.join(names[:5])}{' …' if len(names) > 5 else ''}"
        for title, names in found.items()
        if names
    ]
    if differences:
        raise CheckpointError(f"{source}: does not fit {type(module).__name__}. " + ". ".join(differences))


def _floats(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _is_of_kind(given: Tensor, wanted: Tensor) -> bool:
    """A floating tensor may come in another precision; any other must be of the very dtype."""
    return (_floats(given) and _floats(wanted)) or given.dtype == wanted.dtype


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def save_weights(module: nn.Module, path: Path) -> None:
    """Writes a module's tensors to a safetensors file."""
    from safetensors.torch import save_file

    # Copies, because a file may not hold one tensor under two names.
    tensors = {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in module.state_dict().items()
    }
    write_whole(path, lambda part: save_file(tensors, part, metadata={"format": "pt"}))


def read_weights(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing or broken.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path, device=device)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; save a component with save_pretrained") from None
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error
    return tensors


def assign_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Loads tensors into a module, and changes its dtypes to theirs.

    Raises:
        CheckpointError: the tensors do not fit.
    """
    check_fit(module, tensors, source)
    for name, tensor in module.state_dict(keep_vars=True).items():
        tensor.data = tensor.data.to(tensors[name].dtype)
    module.load_state_dict(dict(tensors))


def load_weights(module: nn.Module, path: Path, device: str = "cpu") -> None:
    """Loads a safetensors file into a module, and changes its dtypes to those in the file.

    Raises:
        CheckpointError: the file is missing or broken, or the tensors do not fit.
    """
    assign_weights(module, read_weights(path, device), str(path))
