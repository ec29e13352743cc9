"""Logits only where they are learned from: the head of a large vocabulary is a good part of a training step."""

import inspect
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from avfusion.models._wrappers import base_model, takes
from avfusion.models.prompts import IGNORED


def labelled_positions(language_model: Any, labels: Tensor) -> dict[str, Tensor]:
    """Arguments with which a language model computes logits at positions that have a label in some row, and no others.

    Empty for a language model that cannot choose positions, or whose loss cannot take shifted labels.
    """
    loss = getattr(base_model(language_model), "loss_function", None)
    if not takes(language_model, "logits_to_keep") or loss is None:
        return {}
    if "shift_labels" not in inspect.signature(loss).parameters:
        return {}
    following = pad(labels[:, 1:], (0, 1), value=IGNORED)  # a position's logits are of the token after it
    learned = (following != IGNORED).any(0)
    learned[0] |= ~learned.any()  # a head takes no empty selection
    positions = learned.nonzero()[:, 0].cpu()  # on the CPU it indexes tensors of every device
    return {"logits_to_keep": positions, "shift_labels": following[:, positions]}
