"""Numbers, as answers to "how many"."""

import itertools
import math
import re
from collections.abc import Iterator

from avfusion.aveb.parsers._decide import decide
from avfusion.aveb.parsers._markup import final_text
from avfusion.aveb.parsers._mentions import Mention, distinct

_SMALL = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
_TENS = {
    word: 10 * (2 + n)
    for n, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"])
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12}
_WORD = rf"(?:{'|'.join([*_SMALL, *_TENS, *_SCALES])})\b"
_SPELT = re.compile(
    r"\b(?:(?P<minus>minus|negative)\s+)?(?:an?\s+(?=hundred|thousand|million|dozen))?"
    rf"(?P<words>{_WORD}(?:(?:-|\s+(?:and\s+)?){_WORD})*)",
    re.IGNORECASE,
)
_DIGITS = re.compile(
    r"""(?<![A-Za-z0-9_.,:/^])(?P<sign>(?:(?<![A-Za-z0-9_)])[-+]|\b(?:minus|negative)\s+))?
    (?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?:[ ']\d{3})+(?!\d)|
    \d+)(?P<rest>\.\d+)?(?P<power>e[+-]?\d{1,2})?(?:\s+(?P<scale>hundred|thousand|million|billion)\b)?
    (?=(?:\s?(?:%|°[CF]?|x|k?m|cm|mm|k?g|mg|m?s|secs?|mins?|min|h|hrs?|fps|k?Hz|dB|px|件|个|個|人|只|隻|匹|本|回|次|秒|条|名|位|张|辆|台|
    개|명|마리|번|대))?(?![A-Za-z0-9_^]|[.,:/]\d|\s?[/:]\s?\d))""",
    re.IGNORECASE | re.VERBOSE,
)
_SPECIAL = (
    (
        re.compile(
            r"\b(?:none|no one|nobody|zero|nil)\b|\b(?:there\s+(?:is|are|was|were)|I\s+(?:can\s+)?(?:see|hear|"
            r"count))\s+no\b"
            r"(?!\s+(?:way|doubt|idea))|^\W*no\s+(?=\w)(?!idea|answer|one can|way|doubt)",
            re.IGNORECASE,
        ),
        0,
    ),
    (re.compile(r"\b(?:once|a\s+single|only\s+a)\b", re.IGNORECASE), 1),
    (re.compile(r"\b(?:twice|a\s+couple|a\s+pair)\b", re.IGNORECASE), 2),
    (re.compile(r"\bthrice\b", re.IGNORECASE), 3),
)
_HAN = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2, "兩": 2, "〇": 0}
_HAN_NUMBER = re.compile(
    r"(?<!第)(?<![零〇一二两兩三四五六七八九十百])(?P<han>[零〇一二两兩三四五六七八九十百]+)(?=[个個只隻条名人位次张辆台匹本回秒頭头]|\W|$)"
)
# What makes of a number a bound, a range, a place in an order or a date: it is no count then.
_NOT_DECIDED = re.compile(
    r"(?:\b(?:at least|at most|more than|less than|fewer than|over|under|"
    r"(?<!adds )(?<!add )(?<!adding )(?<!sums )(?<!sum )up to|no more than|no fewer than|between|from|"
    r"step|option|figure|frame|scene|number of|version|no\.|part|room|speaker|person)|[<>≥≤~]=?)\s*$",
    re.IGNORECASE,
)
_RANGE = re.compile(r"\s*(?:-|to|~|through)\s*", re.IGNORECASE)
# What "12 people: 7 men and 5 women" says of the parts.
_DETAILS = (
    re.compile(
        r"(?::|,?\s+(?:including|consisting of|with|namely|made up of)\b|,?\s+(?:\w+\s+)?of (?:whom|which|"
        r"them|these)\b)[^.;\n]*"
    ),
    re.compile(r"\([^()\n]*\)"),
)
_TOTAL = re.compile(r"\b(?:altogether|total|in all|all told|overall|combined)\b", re.IGNORECASE)
_UNIT = re.compile(r"(?:[^\S\n]+[^\W\d]+){1,4}(?=[^\S\n]*(?:$|[.;:!?(\n]))")
_NO_UNIT = re.compile(r"\b(?:in|is|are|was|not|and|or|of)\b")
_PRONOUN = re.compile(r"\b(?:the|this|that|which|another|each|every|other|last|first|no|any|some)\s+$", re.IGNORECASE)
_MOST_DIGITS = 15  # what a double holds


def parse_number(text: str) -> int | float | None:
    """The number that an answer gives: digits, words, with sign, decimals, thousands' commas or a unit.

    Reasoning and markup are stripped first. The number that is declared last counts ("the answer is 4", "5 in total"),
    else the one that opens the answer, else the only one. A bound ("at least 3"), a range and "3 or 4" decide nothing.

    Returns:
        A whole number as ``int``, another as ``float``; ``None`` where the answer gives none, several, or one of more
        than 15 digits.

    Example:
        >>> from avfusion.aveb.parsers import parse_number
        >>> parse_number("There are three dogs."), parse_number("**1,024**"), parse_number("-4.5 °C")
        (3, 1024, -4.5)
        >>> parse_number("3 or 4"), parse_number("First 2, then 3 more, so 5 in total"), parse_number("none")
        (None, 5, 0)
    """
    said = final_text(text)
    mentions = [_with_unit(said, mention) for mention in _decided(said, distinct([*_mentions(said)]))]
    value = decide(said, mentions)
    if value is None or math.isnan(value):
        return None
    return int(value) if value == int(value) else value


def _mentions(text: str) -> Iterator[Mention]:
    for found in _DIGITS.finditer(text):
        whole = re.sub(r"[ ,']", "", found["whole"])
        if len(whole) + len(found["rest"] or "") > _MOST_DIGITS:
            yield Mention(found.start(), found.end(), float("nan"), "number")
            continue
        value = float(f"{whole}{found['rest'] or ''}{found['power'] or ''}")
        sign = -1 if (found["sign"] or "").strip().lower() in ("-", "minus", "negative") else 1
        scale = _SCALES[found["scale"].lower()] if found["scale"] else 1
        yield Mention(found.start(), found.end(), sign * value * scale, "number")
    for found in _SPELT.finditer(text):
        lone = found["words"].lower() == "one" and not found["minus"]
        if lone and (
            _PRONOUN.search(text[max(0, found.start() - 12) : found.start()])
            or re.match(r"\s+(?:of|can|could|might|who|that|which)\b", text[found.end() :][:10])
        ):
            continue
        count = min(_spelt(found["words"]), 10**_MOST_DIGITS)
        value = float("nan") if count == 10**_MOST_DIGITS else float(-count if found["minus"] else count)
        yield Mention(found.start(), found.end(), value, "number")
    for pattern, value in _SPECIAL:
        for found in pattern.finditer(text):
            yield Mention(found.start(), found.end(), float(value), "number")
    for found in _HAN_NUMBER.finditer(text):
        yield Mention(found.start("han"), found.end("han"), float(min(_han(found["han"]), 10**_MOST_DIGITS)), "number")


def _spelt(words: str) -> int:
    total = group = 0
    for word in re.findall(r"[a-z]+", words.lower()):
        if word in _SMALL or word in _TENS:
            group += _SMALL.get(word, _TENS.get(word, 0))
        elif word in ("hundred", "dozen"):
            group = max(group, 1) * _SCALES[word]
        elif word in _SCALES:
            total, group = total + max(group, 1) * _SCALES[word], 0
    return total + group


def _han(digits: str) -> int:
    total = digit = 0
    for sign in digits:
        if sign in "十百":
            total, digit = total + max(digit, 1) * (10 if sign == "十" else 100), 0
        else:
            digit = _HAN[sign]
    return total + digit


def _decided(text: str, mentions: list[Mention]) -> list[Mention]:
    """Without bounds and both ends of ranges, unless another number is left."""
    dropped: set[Mention] = set()
    for detail in (found for pattern in _DETAILS for found in pattern.finditer(text)):
        sentence = max(text.rfind(mark, 0, detail.start()) for mark in ".\n;")
        if _TOTAL.search(detail.group()) is None and any(
            sentence < mention.start < detail.start() for mention in mentions
        ):
            dropped.update(mention for mention in mentions if detail.start() <= mention.start < detail.end())
    for place, mention in enumerate(mentions):
        if _NOT_DECIDED.search(text[max(0, mention.start - 20) : mention.start]):
            dropped.add(mention)
        following = mentions[place + 1] if place + 1 < len(mentions) else None
        if following is not None and _RANGE.fullmatch(text[mention.end : following.start]):
            dropped |= {mention, following}
    if "between" in text.lower() and len(mentions) > 1:
        dropped |= {m for a, m in itertools.pairwise(mentions) if a in dropped}
    return [mention for mention in mentions if mention not in dropped]


def _with_unit(text: str, mention: Mention) -> Mention:
    """The mention with the words between it and the end of its clause: "3 dogs." says no more than "3."."""
    unit = _UNIT.match(text, mention.end)
    if unit is None or _TOTAL.search(unit.group()) or _NO_UNIT.search(unit.group()):
        return mention
    return mention._replace(end=unit.end())
