"""Words with times, and their assignment to the queries of windows."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError


@dataclass(frozen=True, eq=False)
class TimedText:
    """What is said or seen during a span: a word of a transcript, a label, or a caption.

    Args:
        start: start in seconds.
        end: end in seconds, not before ``start``.
        text: the words; or ``(llm_dim,)`` floating-point, an embedding of a caption in the space of the language
            model's word embeddings.

    Raises:
        InvalidTypeError: text that is neither.
        InvalidValueError: an empty text, an embedding of another shape, or times that are not finite or in the wrong
            order.

    Example:
        >>> from avfusion.training import TimedText
        >>> TimedText(0.5, 1.1, "dog").end
        1.1
    """

    start: float
    end: float
    text: str | Tensor

    def __post_init__(self) -> None:
        if not float("-inf") < self.start <= self.end < float("inf"):
            raise InvalidValueError(f"start, end: must be finite and in order, found {self.start} and {self.end}")
        if isinstance(self.text, Tensor):
            if self.text.ndim != 1 or not self.text.is_floating_point():
                raise InvalidValueError(
                    f"text: an embedding must be (llm_dim,) floating-point, found {tuple(self.text.shape)} "
                    f"{self.text.dtype}"
                )
        elif not isinstance(self.text, str):
            raise InvalidTypeError(f"text: must be a string or an embedding, found {type(self.text).__name__}")
        elif not self.text.strip():
            raise InvalidValueError("text: must not be empty, found only space")


def assign_texts(spans: Sequence[tuple[float, float]], texts: Sequence[TimedText]) -> list[list[TimedText]]:
    r"""Assigns the texts of a clip to its queries.

    Queries of equal spans are a window of :math:`Q` queries. Its texts are the :math:`n` whose centre lies in the span,
    in the order of their centres, and of the list where these are equal. The target of query
    :math:`q` is text :math:`\lfloor (q + \frac12)\, n / Q \rfloor` if :math:`n \le Q`; else its targets are all texts
    :math:`j` for which :math:`\lfloor (j + \frac12)\, Q / n \rfloor = q`. So each text is a target, in order.

    Args:
        spans: ``(start, end)`` of each query, in seconds.
        texts: the clip's texts, in any order.

    Returns:
        For each query its texts; none in a window without texts.

    Example:
        >>> from avfusion.training import TimedText, assign_texts
        >>> texts = [TimedText(0.1, 0.4, "dog"), TimedText(1.2, 1.6, "sun"), TimedText(2.1, 2.5, "rain")]
        >>> [[text.text for text in one] for one in assign_texts([(0.0, 2.0)] * 4 + [(2.0, 4.0), (4.0, 6.0)], texts)]
        [['dog'], ['dog'], ['sun'], ['sun'], ['rain'], []]
    """
    windows: dict[tuple[float, float], list[int]] = {}
    for query, span in enumerate(spans):
        windows.setdefault(span, []).append(query)
    ordered = sorted(texts, key=_centre)
    said: list[list[TimedText]] = [[] for _ in spans]
    for (start, end), queries in windows.items():
        inside = [text for text in ordered if start <= _centre(text) < end]
        count, size = len(inside), len(queries)
        for place, query in enumerate(queries):
            if 0 < count <= size:
                said[query].append(inside[(2 * place + 1) * count // (2 * size)])
        if count > size:
            for place, text in enumerate(inside):
                said[queries[(2 * place + 1) * size // (2 * count)]].append(text)
    return said


def _centre(text: TimedText) -> float:
    return (text.start + text.end) / 2
