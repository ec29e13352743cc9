"""Protocols that look at signatures: what a part offers is what its call and its methods take."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import nn

_Parameter = inspect.Parameter
_POSITIONAL = (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (_Parameter.POSITIONAL_OR_KEYWORD, _Parameter.KEYWORD_ONLY)


class SignatureProtocol(type(Protocol)):  # type: ignore[misc]
    """Metaclass of Protocols of which ``isinstance`` compares arguments too, rather than names of methods alone.

    A part is an instance if :func:`missing` finds nothing. An argument counts if the part names it: one that would go
    into ``**kwargs`` may be dropped there.
    """

    def __instancecheck__(cls, instance: object) -> bool:
        return not missing(instance, cls) if Protocol in cls.__bases__ else super().__instancecheck__(instance)


def missing(part: object, protocol: type) -> list[str]:
    """What a part lacks of a Protocol, as messages name it; nothing where it satisfies it.

    Args:
        part: usually an ``nn.Module``.
        protocol: a Protocol whose arguments are positional-only, or keyword-only where the part must name them.

    Example:
        >>> import torch
        >>> from avfusion import QuerySetWindowEncoder
        >>> missing(torch.nn.Linear(2, 2), QuerySetWindowEncoder)
        ['num_queries', 'output_dim', 'a 2nd argument of its call', 'the argument queries of its call']
    """
    found = []
    for kind in reversed(protocol.__mro__):
        if Protocol in kind.__bases__:
            found += [name for name in inspect.get_annotations(kind) if getattr(part, name, None) is None]
    for name, wanted in _methods(protocol):
        where = "its call" if name == "__call__" else name
        given = part.forward if name == "__call__" and isinstance(part, nn.Module) else getattr(part, name, None)
        if not callable(given):
            found.append(where)
            continue
        found += [f"{argument} of {where}" for argument in _missing_arguments(given, wanted)]
    return found


def _methods(protocol: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The methods that a Protocol and its bases ask for, each as the most specific one has it."""
    own = {"__init__", "__subclasshook__", "__class_getitem__", "__init_subclass__"}  # of every Protocol
    names = dict.fromkeys(
        name
        for kind in reversed(protocol.__mro__)
        if Protocol in kind.__bases__
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and name not in own
    )
    for name in names:
        yield name, getattr(protocol, name)


def _missing_arguments(given: Callable[..., Any], wanted: Callable[..., Any]) -> Iterator[str]:
    try:
        takes = inspect.signature(given).parameters.values()
    except (TypeError, ValueError):  # of code that is not Python's, and does not tell
        return
    asked = list(inspect.signature(wanted).parameters.values())[1:]  # without self
    count = sum(each.kind is _Parameter.POSITIONAL_ONLY for each in asked)
    room = sum(each.kind in _POSITIONAL for each in takes)
    if room < count and not any(each.kind is _Parameter.VAR_POSITIONAL for each in takes):
        yield f"a {('1st', '2nd', '3rd')[min(count, 3) - 1]} argument"
    named = {each.name for each in takes if each.kind in _NAMED}
    yield from (
        f"the argument {each.name}" for each in asked if each.kind is _Parameter.KEYWORD_ONLY and each.name not in named
    )
