"""A model by its name on the command line."""

import importlib
import json
from collections.abc import Sequence
from typing import Any

from avfusion.aveb.requests import Answerer
from avfusion.errors import InvalidTypeError, InvalidValueError


def load_model(name: str, options: Sequence[str] = ()) -> Answerer:
    """The model of a name.

    Args:
        name: ``PACKAGE.MODULE:CALLABLE``, which gives an :class:`~avfusion.aveb.Answerer`; or
            ``hf:NAME``, a multimodal model of transformers from the Hub or a folder.
        options: ``NAME=VALUE`` for the callable, numbers, ``true``, ``false`` and ``null`` as in JSON.

    Raises:
        InvalidValueError: no such module or callable, or an option that is not one.
        InvalidTypeError: what the callable gives cannot answer.

    Example:
        >>> from avfusion.aveb.runner import load_model
        >>> load_model("builtins:list")
        Traceback (most recent call last):
        avfusion.errors.InvalidTypeError: model: builtins:list must give something with answer(requests), found list
    """
    given = dict(map(_option, options))
    if name.startswith("hf:"):
        from avfusion.aveb.runner.transformers_model import TransformersAnswerer

        return TransformersAnswerer.from_pretrained(name.removeprefix("hf:"), **given)
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise InvalidValueError(f"model: must be PACKAGE.MODULE:CALLABLE or hf:NAME, found {name!r}")
    try:
        make: Any = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise InvalidValueError(f"model: cannot find {name} ({error})") from error
    try:
        model = make(**given)
    except TypeError as error:
        raise InvalidValueError(f"model-option: {name} does not take {sorted(given)} ({error})") from error
    if not isinstance(model, Answerer):
        raise InvalidTypeError(f"model: {name} must give something with answer(requests), found {type(model).__name__}")
    return model


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InvalidValueError(f"model-option: must be NAME=VALUE, found {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
