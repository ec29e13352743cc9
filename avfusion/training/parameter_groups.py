"""Learning rates of connector and language model, for any optimiser."""

from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from avfusion.errors import InvalidValueError

PARTS = {
    "connector": "connector",
    "language_model": "language_model",
    "visual_encoder": "encoder",
    "audio_encoders": "encoder",
}


def parameter_groups(
    model: nn.Module,
    *,
    connector_lr: float,
    language_model_lr: float | None = None,
    encoder_lr: float | None = None,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """The trained parameters of a model in groups: each part has its learning rate, and weight decay where it helps.

    Only weights of linear and convolution layers decay, LoRA's among them. Norms, biases, embeddings, queries and
    position embeddings do not. Freeze first: what is frozen is in no group.

    Args:
        model: an :class:`~avfusion.models.AudioVisualLanguageModel`.
        connector_lr: learning rate of the connector, and of anything that is in no other part.
        language_model_lr: of the language model: its LoRA adapters, or all that is trained of it.
        encoder_lr: of the encoders.
        weight_decay: of the weights that decay.

    Returns:
        Groups for ``torch.optim`` with ``params``, ``lr`` and ``weight_decay``, and ``name`` (``"connector"``, ...) to
        tell them apart; no empty one.

    Raises:
        InvalidValueError: nothing is trained, or a part is trained whose learning rate is not given.

    Example:
        >>> from torch import nn
        >>> from avfusion.training import parameter_groups
        >>> model = nn.Module()
        >>> model.connector, model.language_model = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        >>> for group in parameter_groups(model, connector_lr=3e-5, language_model_lr=1e-3, weight_decay=0.1):
        ...     print(group["name"], group["lr"], group["weight_decay"], len(group["params"]))
        connector 3e-05 0.1 1
        connector 3e-05 0.0 1
        language_model 0.001 0.1 1
    """
    rates = {"connector": connector_lr, "language_model": language_model_lr, "encoder": encoder_lr}
    decayed = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | _ConvNd)
    }  # by identity: a tied weight has several names
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    groups: dict[tuple[str, float], dict[str, Any]] = {}
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        part = _part(name)
        rate = rates[part]
        if rate is None:
            raise InvalidValueError(f"{part}_lr: must be given, since {name} is trained, found None")
        decay = weight_decay if id(value) in decayed - tables else 0.0
        group = {"params": [], "lr": rate, "weight_decay": decay, "name": part}
        groups.setdefault((part, decay), group)["params"].append(value)
    if not groups:
        raise InvalidValueError("model: must have parameters that are trained, found none")
    return list(groups.values())


def _part(name: str) -> str:
    """The part that a parameter belongs to; its second word counts below a wrapper such as DistributedDataParallel."""
    return next((PARTS[word] for word in name.split(".")[:2] if word in PARTS), "connector")
