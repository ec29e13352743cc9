"""Which rows of a batch the adapters answer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from avfusion.errors import InvalidValueError
from avfusion.models._wrappers import is_peft

_BASE = "__base__"  # peft's name for no adapter


@contextmanager
def adapters_for(llm: Any, has_clip: Sequence[bool], text_only: str) -> Iterator[dict[str, Any]]:
    """Within it, rows without a clip are the base model's, if asked; yields further arguments of ``generate``.

    Args:
        llm: the language model, possibly one of peft's.
        has_clip: of each row.
        text_only: ``"adapted"`` or ``"base"``.

    Raises:
        InvalidValueError: another ``text_only``, or a mixed batch for adapters that peft does not mix.
    """
    if text_only not in ("adapted", "base"):
        raise InvalidValueError(f'text_only: must be "adapted" or "base", found {text_only!r}')
    if text_only == "adapted" or all(has_clip) or not is_peft(llm):
        yield {}
    elif not any(has_clip):
        with llm.disable_adapter():
            yield {}
    else:
        kind = llm.active_peft_config.peft_type.value
        active = llm.active_adapters
        if kind != "LORA" or len(active) != 1:
            raise InvalidValueError(
                f'text_only: must be "adapted" where some rows have a clip, unless one LoRA adapter is active; '
                f"found {kind} {active}"
            )
        yield {"adapter_names": [active[0] if heard else _BASE for heard in has_clip]}
