"""Where an answer spells out a candidate or a label."""

import re
from collections.abc import Iterable

from avfusion.aveb.parsers._mentions import Mention, longest

_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)", re.IGNORECASE)
_OUTER = " \t\n.,;:!?\"'()[]{}*_`"
_NUMBER_WORDS = dict(
    zip(
        ["2", "3", "4", "5", "6", "7", "8", "9", "10"],
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
        strict=True,
    )
)
_OTHERS = _NUMBER_WORDS | {spelt: digit for digit, spelt in _NUMBER_WORDS.items()}
_LETTER = r"[^\W\d_]"
# A hyphen or an underscore between words is a space, and so is a capital after a small letter.
_SEPARATOR = re.compile(rf"(?:[\s.,;:!?\"()\[\]]|(?<={_LETTER})[-_]+(?={_LETTER})|_)+")
_HUMP = re.compile(r"(?<=[a-zà-ÿ])(?=[A-Z])")
_BETWEEN = r"""(?:[\s.,;:!?"()\[\]'_-]+|(?-i:(?<=[a-z])(?=[A-Z])))"""
_NO_PLURALS = frozenset(
    [
        "always",
        "bus",
        "does",
        "gas",
        "has",
        "its",
        "lens",
        "less",
        "news",
        "perhaps",
        "plus",
        "series",
        "species",
        "this",
    ]
)
_SHORTEST_STEM = 3


def text_mentions(text: str, names: Iterable[tuple[int, str]], *, plurals: bool = False) -> list[Mention]:
    """Names of values as words of their own, articles aside; a longer name hides those inside it.

    Args:
        text: of :func:`~avfusion.aveb.parsers._markup.final_text`.
        names: values with their names. Case, hyphens, underscores, spaces and the capitals of "carHorn" are the same.
        plurals: whether a plural names the same as its singular, unless it is another's name.
    """
    names = list(names)
    found = _found(text, names, plurals=False)
    if plurals:
        exact = {(mention.start, mention.end) for mention in found}
        found += [mention for mention in _found(text, names, plurals=True) if mention[:2] not in exact]
    return longest(found)


def bare(name: str) -> str:
    """A name without article and outer punctuation."""
    return _ARTICLE.sub("", " ".join(name.split())).strip(_OUTER)


def _found(text: str, names: Iterable[tuple[int, str]], *, plurals: bool) -> list[Mention]:
    return [
        Mention(match.start(), match.end(), value, "text")
        for value, name in names
        if (pattern := _pattern(name, plurals=plurals)) is not None
        for match in pattern.finditer(text)
    ]


def _pattern(name: str, *, plurals: bool) -> re.Pattern[str] | None:
    name = bare(name)
    exotic = re.search(r"\d[.,:]\d", name) is not None
    parts = [name.lower()] if exotic else [part for part in _SEPARATOR.split(name) if part]
    if not any(re.search(r"\w", part) for part in parts):
        return None
    humps = [[hump.lower() for hump in _HUMP.split(part)] for part in parts]
    body = _BETWEEN.join(rf"{_BETWEEN}?".join(_spelling(hump, plurals=plurals) for hump in part) for part in humps)
    first, last = humps[0][0][0], humps[-1][-1][-1]
    start = r"(?<!\w)(?<!\d[.,])(?<!\d-)" if first.isascii() and first.isalnum() else ""
    if first.isdigit():
        start += r"(?<!-)"
    end = r"(?!\w)(?![.,:]\d)" if last.isascii() and last.isalnum() else ""
    if end and last.isdigit():
        end += r"(?!\s?%)"
    return re.compile(start + body + end, re.IGNORECASE)


def _spelling(word: str, *, plurals: bool) -> str:
    if word in _OTHERS:
        return f"(?:{re.escape(word)}|{_OTHERS[word]})"
    return f"(?:{'|'.join(map(re.escape, _numbers(word)))})" if plurals else re.escape(word)


def _numbers(word: str) -> list[str]:
    """A word with its plural and its singular, longest first."""
    if not re.fullmatch(r"[a-z]{3,}", word):
        return [word]
    forms = {word}
    if word.endswith("ies"):
        forms |= {f"{word[:-3]}y"}
    elif re.search(r"(?:s|x|z|ch|sh)es$", word):
        forms |= {word[:-2], word[:-1]}
    elif word.endswith("s") and not word.endswith("ss") and word not in _NO_PLURALS:
        forms |= {word[:-1]}
    elif re.search(r"[^aeiou]y$", word):
        forms |= {f"{word[:-1]}ies"}
    else:
        forms |= {f"{word}es"} if re.search(r"(?:s|x|z|ch|sh|o)$", word) else set()
        forms |= {f"{word}s"}
    return sorted((form for form in forms if len(form) >= _SHORTEST_STEM), key=lambda form: (-len(form), form))
