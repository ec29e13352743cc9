"""What features depend on besides the media: the encoders, and how files are read."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avfusion.errors import CheckpointError, InvalidValueError
from avfusion.models._given import checksum
from avfusion.models._wrappers import unwrap

_OMITTED = object()
# How many go through an encoder at once, and whether it is trained, change no token.
_IRRELEVANT = {
    "training",
    "frozen",
    "_group_size",
    "segment_batch_size",
    "transformers_version",
    "dtype",
    "torch_dtype",
}


def feature_settings(model: Any, processor: Any = None) -> dict[str, Any]:
    """What a model's features depend on besides the media, as values of JSON.

    Args:
        model: an :class:`~avfusion.models.AudioVisualLanguageModel`.
        processor: its processor, which says at which rates and size media are read.

    Returns:
        :func:`encoder_digest` of each encoder, and the processor's ``media_options``.

    Raises:
        InvalidValueError: an encoder whose weights are not here.

    Example:
        >>> from torch import nn
        >>> from avfusion.features import feature_settings
        >>> class Listener:
        ...     encoders = {"audio": nn.Linear(10, 4)}
        >>> list(feature_settings(Listener()))
        ['audio encoder']
    """
    found: dict[str, Any] = {f"{name} encoder": encoder_digest(encoder) for name, encoder in model.encoders.items()}
    if processor is not None:
        found["media"] = media_settings(processor)
    return found


def media_settings(processor: Any) -> Any:
    """Rates and size at which a processor reads media, as JSON gives them back."""
    return json.loads(json.dumps(processor.media_options))


def encoder_digest(encoder: nn.Module) -> str:
    """A digest of all that an encoder's tokens depend on.

    It covers the values and dtypes of all parameters and buffers, configurations of transformers, preprocessors, and
    the options of avfusion's encoders. Options of your own encoder class are covered if they are in its ``config``.

    Args:
        encoder: the encoder, on any device; each tensor is read once.

    Returns:
        64 hexadecimal digits, the same in every process.

    Raises:
        InvalidValueError: weights that are on the meta device, or sharded over processes.

    Example:
        >>> import torch
        >>> from avfusion.features import encoder_digest
        >>> encoder = torch.nn.Linear(10, 4)
        >>> before = encoder_digest(encoder)
        >>> before == encoder_digest(encoder)
        True
        >>> with torch.no_grad():
        ...     _ = encoder.weight[0, 0].add_(1e-3)
        >>> before == encoder_digest(encoder)
        False
    """
    encoder = unwrap(encoder)
    tensors = {name: value for name, value in encoder.state_dict().items() if isinstance(value, Tensor)}
    sums = {name: checksum(value) for name, value in tensors.items()}
    absent = sorted(name for name, value in sums.items() if value is None)
    if absent:
        raise InvalidValueError(
            f"encoder: must have its weights in this process, found none of {', '.join(absent[:3])}"
        )
    told = {"class": type(encoder).__name__, "tensors": sums, "options": _options(encoder)}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def check_settings(directory: Any, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises :class:`~avfusion.CheckpointError` for features of other settings; the message names the first."""
    for name, value in wanted.items():
        if found.get(name) != value:
            raise CheckpointError(
                f"features: {directory} must be of {name} {value!r}, found {name} {found.get(name)!r:.200}; "
                "keep the features of another model in another directory"
            )


def _options(encoder: nn.Module) -> dict[str, Any]:
    found = {}
    described_before: set[int] = set()  # a model of transformers hands its configuration to all its layers
    for name, part in encoder.named_modules():
        values = vars(part)
        if not type(part).__module__.startswith("avfusion."):
            config = values.get("config")
            values = {} if config is None or id(config) in described_before else {"config": config}
            described_before.add(id(config))
        described = _plain(values)
        if described:
            found[name] = described
    return found


def _plain(value: Any) -> Any:
    """A value as JSON holds it, without what JSON cannot hold."""
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, Mapping):
        kept = {str(key): _plain(one) for key, one in value.items() if str(key) not in _IRRELEVANT}
        return {key: one for key, one in kept.items() if one is not _OMITTED and one != {}}
    if isinstance(value, list | tuple):
        return [one for one in map(_plain, value) if one is not _OMITTED]
    for name in ("to_diff_dict", "to_dict"):
        if hasattr(value, name) and not isinstance(value, type):
            told = getattr(value, name)()
            return _plain({key: one for key, one in told.items() if not str(key).startswith("_")})
    return _OMITTED
