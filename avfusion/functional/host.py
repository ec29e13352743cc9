"""Moving times and masks to the CPU, where frames and windows are planned, and back.

Plans take some hundred operations on small tensors. On a GPU each would launch a kernel, which takes longer than the
operation does on a CPU.
"""

import torch
from torch import Tensor


def to_host(value: Tensor) -> Tensor:
    """The tensor on the CPU; where it is in compiled and exported code, and on the meta device.

    Example:
        >>> import torch
        >>> to_host(torch.ones(2)).device.type
        'cpu'
    """
    return value if torch.compiler.is_compiling() or value.is_meta else value.cpu()


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``. A copy to a GPU waits for no kernel, because the CPU's memory is read at once.

    Example:
        >>> import torch
        >>> to_device(torch.ones(2), torch.device("meta")).shape
        torch.Size([2])
    """
    return value.to(device, non_blocking=device.type == "cuda")
