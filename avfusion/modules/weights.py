"""Tensors from a module to a safetensors file, and back without a difference."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from avfusion.errors import CheckpointError
from avfusion.files import write_whole


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Loads tensors into a module, or raises one error that names everything that differs.

    Args:
        module: takes the tensors.
        tensors: name to tensor.
        source: where they come from, for the message.

    Raises:
        CheckpointError: tensors missing, left over, or of another shape.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(tensors))
    unknown = sorted(set(tensors) - set(wanted))
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, must be {tuple(wanted[name].shape)}"
        for name in sorted(set(wanted) & set(tensors))
        if tensors[name].shape != wanted[name].shape
    ]
    differences = [
        f"{title} {len(names)}: {'; '.join(names[:5])}{' …' if len(names) > 5 else ''}"
        for title, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
        if names
    ]
    if differences:
        raise CheckpointError(f"{source}: does not fit {type(module).__name__}. " + ". ".join(differences))
    module.load_state_dict(dict(tensors), assign=any(t.is_meta for t in wanted.values()))


def save_weights(module: nn.Module, path: Path) -> None:
    """Writes a module's tensors to a safetensors file."""
    from safetensors.torch import save_file

    # Copies, because a file may not hold one tensor under two names.
    tensors = {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in module.state_dict().items()
    }
    write_whole(path, lambda part: save_file(tensors, part, metadata={"format": "pt"}))


def load_weights(module: nn.Module, path: Path, device: str = "cpu") -> None:
    """Loads a safetensors file into a module, exactly, in the dtype it was saved in.

    Raises:
        CheckpointError: a file that is missing or broken, or tensors that do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path, device=device)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; save a component with save_pretrained") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name in tensors:  # else named below, with all that differs
            tensor.data = tensor.data.to(tensors[name].dtype)
    load_exactly(module, tensors, str(path))
