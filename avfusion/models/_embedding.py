"""Text embeddings of a table that may be sharded."""

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from avfusion.errors import InvalidValueError


def look_up(table: Any, input_ids: Tensor) -> Tensor:
    """``table(input_ids)``, also where FSDP2 gathers the table only inside the language model's own forward."""
    weight: Any = getattr(table, "weight", None)
    if type(getattr(weight, "data", None)).__name__ != "DTensor" or hasattr(table, "unshard"):
        return table(input_ids)
    if weight.requires_grad and torch.is_grad_enabled():
        raise InvalidValueError(
            "language_model: its table of input embeddings must be frozen where the language model is sharded by "
            "itself, found it trained; fully_shard its layers, then the whole model, which shards the table too"
        )
    return functional_call(table, {"weight": weight.full_tensor()}, (input_ids,))
