"""Multiple choice: which candidate an answer picks."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from avfusion.aveb._text import plain
from avfusion.aveb.parsers._decide import decide
from avfusion.aveb.parsers._markup import final_text
from avfusion.aveb.parsers._mentions import letter_mentions, merged
from avfusion.aveb.parsers._names import bare, text_mentions
from avfusion.errors import InvalidTypeError, InvalidValueError

_MOST = 26
_PLACE = re.compile(r"\W*(?:in|on|at|by|from|near|inside|outside|with|under)\s+(?:the|an?)\s+(?=\w)", re.IGNORECASE)


def parse_choice(text: str, candidates: Sequence[str]) -> int | None:
    r"""Which candidate an answer picks.

    Reasoning and markup are stripped first. The candidate's exact text is read as it is; else letters (``B``, ``(b)``,
    ``D) a dress``), numbered options (``option 3``, "the third option") and candidates' texts are mentions, without
    those that the answer rejects ("not A", "D is wrong"), asks about, takes back ("A, no, B") or names in a reason. Of
    the mentions that are left the last one declared counts ("the answer is B", "B is correct", ``\boxed{B}``), else the
    one that opens the answer, else the only one.

    Args:
        text: what the model said.
        candidates: the texts to choose from, lettered A, B, … and numbered from 1 in this order; at most 26.

    Returns:
        The candidate's index, or ``None`` where the answer picks none, several, or a letter with another one's text.

    Raises:
        InvalidValueError: no candidate, or more than there are letters.
        InvalidTypeError: one string instead of a sequence.

    Example:
        >>> from avfusion.aveb.parsers import parse_choice
        >>> parse_choice("The answer is (B).", ["cat", "dog"]), parse_choice("I see a dog", ["cat", "dog"])
        (1, 1)
        >>> parse_choice("B. a dog. Unlike option A, it barks.", ["cat", "dog"]), parse_choice("A or B", ["cat", "dog"])
        (1, None)
    """
    if isinstance(candidates, str):
        raise InvalidTypeError("candidates: must be a sequence of strings, found one string")
    if not 1 <= len(candidates) <= _MOST:
        raise InvalidValueError(f"candidates: must be 1 to {_MOST}, found {len(candidates)}")
    said = final_text(text)
    exact = _exact(said, candidates)
    if exact is not None and len(exact) != 1:
        return None
    if exact:
        return exact.pop()
    texts = text_mentions(said, _names(candidates))
    letters = letter_mentions(said, len(candidates))
    value = decide(said, merged(letters, texts), universe=range(len(candidates)))
    return None if value is None or value < 0 else int(value)


def _exact(said: str, candidates: Sequence[str]) -> set[int] | None:
    """The candidates that the answer spells out in full; with that of its letter, where it is one letter."""
    whole = plain(said)
    exact = {index for index, candidate in enumerate(candidates) if plain(candidate) == whole and whole}
    if exact and len(whole) == 1 and whole.isascii() and whole.isalpha() and ord(whole) - ord("a") < len(candidates):
        exact.add(ord(whole) - ord("a"))
    return exact or None


def _names(candidates: Sequence[str]) -> list[tuple[int, str]]:
    """Candidates without articles and the letters, or "in the" and its like, that stand before all of them."""
    lettered = all(re.match(rf"\W*{ascii_uppercase[i]}[).:]\s", text) for i, text in enumerate(candidates))
    texts = [re.sub(r"^\W*[A-Z][).:]\s+", "", text) if lettered else text for text in candidates]
    if all(_PLACE.match(text) for text in texts):
        texts = [_PLACE.sub("", text) for text in texts]
    return [(index, name) for index, name in enumerate(map(bare, texts)) if name]
