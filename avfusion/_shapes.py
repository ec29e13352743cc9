"""Shape annotations: jaxtyping where it is installed (development, tests, docs), inert otherwise.

One legend for the whole library: ``batch`` clips, ``time`` tokens of a stream, ``frame`` video frames, ``token``
tokens of one frame (its slots), ``dim`` feature width, ``window`` windows (of the whole batch unless said
otherwise), ``query`` queries of a window, ``hidden`` query width, ``position`` places in the language model's input,
``llm_dim`` its embedding width.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:  # the core needs torch and einops alone

        class _Plain:
            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Int = _Plain

__all__ = ["Bool", "Float", "Int"]
