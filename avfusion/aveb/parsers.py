"""From what a model said to what it decided. Pure functions; what cannot be read is ``None``, never a guess."""

import re
from collections.abc import Sequence

from avfusion.aveb._text import plain
from avfusion.errors import InvalidTypeError, InvalidValueError

SOUND_SOURCE_TEMPLATES = (
    "The source of this sound in this scene is {}.",
    "The source of the audio in this picture can be identified as {}.",
    "From this picture, it can be found that the given sound is produced by {}.",
    "In this image, the given audio might originates from {}.",
)
"""The sentences of AVSSD's answers, spelt as published."""

# What may stand after a letter that is an answer: "a." and "a" alone are, "a dress" is not.
_END = r"(?=\s*(?:$|[).,:;!?\]\n*\"]|\b(?:or|and|because|since|as)\b))"
_ALONE = re.compile(r"^\W*([a-z]|\d+)\W*$", re.IGNORECASE)
_KEYWORD = re.compile(
    r"\b(?:(?:answer|choice|option|candidate)s?\b\s*(?:(?:is|are|would be|must be)\b|[:=])?\s*)"
    r"(?:the\s+)?(?:\b(?:option|choice|candidate|number|letter)\b\s*)?",
    re.IGNORECASE,
)
_APART = r"""[\s,/&()\[\]*"']*"""
_LISTED = re.compile(rf"{_APART}\b(?:or|and)?\b{_APART}\b([A-Z]|\d+)\b" + _END)
_LETTER = re.compile(rf"[(\[*\"']*([A-Za-z]){_END}|[(\[*\"']*([B-HJ-Z])\b(?!')")
_NUMBER = re.compile(r"[#(\[*\"']*(\d+)\b(?![.,]\d)")
_ANY_LETTER = re.compile(r"([A-Za-z])\b(?!')")
_NUMBERED = re.compile(r"(?:option|choice|candidate|number|letter)\W*$", re.IGNORECASE)
_OPENING = re.compile(r"^\W*([A-Za-z])[*\"']*[^\S\n]*(?:[).,:\]–—-](?=\s|$)|\n)")
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def parse_choice(text: str, candidates: Sequence[str]) -> int | None:
    """Which candidate an answer picks.

    First a letter (``B``, ``(b)``, ``Answer: C.``, ``D) a dress``, ``option 3``), then the exact text, then the longest
    candidate that the answer contains. Case and outer punctuation do not matter. Two readings that disagree, two
    letters, or two equally long candidates are ambiguous.

    Args:
        text: what the model said.
        candidates: the texts to choose from, lettered A, B, … and numbered from 1 in this order; at most 26.

    Returns:
        The candidate's index, or ``None`` where the answer picks none or is ambiguous.

    Raises:
        InvalidValueError: no candidate, or more than there are letters.
        InvalidTypeError: one string instead of a sequence.

    Example:
        >>> from avfusion.aveb.parsers import parse_choice
        >>> parse_choice("The answer is (B).", ["cat", "dog"]), parse_choice("I see a dog", ["cat", "dog"])
        (1, 1)
        >>> parse_choice("A jacket", ["hat", "a jacket"]), parse_choice("A or B", ["cat", "dog"])
        (1, None)
    """
    if isinstance(candidates, str):
        raise InvalidTypeError("candidates: must be a sequence of strings, found one string")
    if not 1 <= len(candidates) <= 26:
        raise InvalidValueError(f"candidates: must be 1 to 26, found {len(candidates)}")
    said, texts = plain(text), [plain(candidate) for candidate in candidates]
    exact = {index for index, candidate in enumerate(texts) if candidate == said and said}
    letters = _letters(text, len(candidates), spelt_out=bool(exact))
    if letters:
        picked = letters | exact if len(said) == 1 else letters
    elif exact:
        picked = exact
    else:
        inside = [index for index, candidate in enumerate(texts) if candidate and _contains(said, candidate)]
        longest = max((len(texts[index]) for index in inside), default=0)
        picked = {index for index in inside if len(texts[index]) == longest}
    return picked.pop() if len(picked) == 1 else None


def parse_yes_no(text: str) -> bool | None:
    """The first "yes" or "no" that is a word of its own, in any case.

    Returns:
        ``True`` for yes, ``False`` for no, ``None`` without either.

    Example:
        >>> from avfusion.aveb.parsers import parse_yes_no
        >>> parse_yes_no("No, yes is wrong."), parse_yes_no("I know nothing")
        (False, None)
    """
    found = _YES_NO.search(text)
    return None if found is None else found.group(1).lower() == "yes"


def parse_label(text: str, templates: Sequence[str] = SOUND_SOURCE_TEMPLATES) -> tuple[str, ...] | None:
    """The names in "The source of this sound in this scene is playing violin, fiddle." and its like.

    Args:
        text: the answer: a sentence after one of the templates, or the bare label.
        templates: sentences with ``{}`` where the label stands.

    Returns:
        The label and its synonyms, which commas separate, in lower case, without outer punctuation or repeats. ``None``
        where nothing is left.

    Raises:
        InvalidValueError: a template without exactly one ``{}``.

    Example:
        >>> from avfusion.aveb.parsers import parse_label
        >>> parse_label("The source of this sound in this scene is Playing violin, fiddle.")
        ('playing violin', 'fiddle')
        >>> parse_label("dog barking"), parse_label("...")
        (('dog barking',), None)
    """
    for template in templates:
        if template.count("{}") != 1:
            raise InvalidValueError(f"templates: must hold {{}} once, found {template!r}")
        before, after = (plain(part) for part in template.split("{}"))
        pattern = r"\W+".join([*map(re.escape, before.split()), "(.*)", *map(re.escape, after.split())])
        found = re.fullmatch(rf"\W*{pattern}\W*", text, re.IGNORECASE | re.DOTALL)
        if found is None and not after and plain(text) == before:
            return None
        if found is not None:
            text = found.group(1)
            break
    names = dict.fromkeys(filter(None, (plain(name) for name in text.split(","))))
    return tuple(names) or None


def _letters(text: str, count: int, *, spelt_out: bool) -> set[int]:
    """Indices of the letters or numbers that an answer names in the most explicit way it uses."""
    alone = _ALONE.match(text)
    if alone is not None and alone.group(1).isalpha():
        return _indices([alone.group(1)], count)
    if spelt_out:  # "A. Lincoln" may be a candidate's whole text
        return set()
    named: list[str] = []
    for keyword in _KEYWORD.finditer(text):
        found = _LETTER.match(text, keyword.end())
        if found is None and _NUMBERED.search(keyword.group()):
            found = _NUMBER.match(text, keyword.end()) or _ANY_LETTER.match(text, keyword.end())
        named += _listing(text, found)
    for reading in (named, _listing(text, _OPENING.match(text)), _BRACKETED.findall(text)):
        picked = _indices(reading, count)
        if picked:
            return picked
    return set()


def _listing(text: str, found: re.Match[str] | None) -> list[str]:
    """The letter or number that was found and those that follow it in a list: "B or C"."""
    names: list[str] = []
    while found is not None:
        names += [group for group in found.groups() if group]
        found = _LISTED.match(text, found.end())
    return names


def _indices(names: list[str], count: int) -> set[int]:
    values = {int(name) - 1 if name.isdigit() else ord(name.lower()) - ord("a") for name in names}
    return {value for value in values if 0 <= value < count}


def _contains(text: str, part: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


__all__ = ["SOUND_SOURCE_TEMPLATES", "parse_choice", "parse_label", "parse_yes_no"]
