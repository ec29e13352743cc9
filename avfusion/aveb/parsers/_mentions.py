"""Where an answer names what it may choose from."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

Kind = Literal["letter", "number", "text", "quiet"]
Value = int | float | bool


class Mention(NamedTuple):
    """A place in a text that names a value.

    A ``"quiet"`` one, such as a small letter in running text, counts only where the answer declares it.
    """

    start: int
    end: int
    value: Value
    kind: Kind


_SIDE = r"[A-Za-zÀ-ɏ0-9_]"
_BEFORE, _AFTER = rf"(?<!{_SIDE})(?<!['’.&+/-])", rf"(?!{_SIDE})(?!['’&+-]|[./][A-Za-z0-9])"
_KEYWORD = (
    r"(?:(?:options?|choices?|candidates?|letters?|alternatives?|opción|opcion|opção|lettre|buchstabe|вариант)"
    r"(?-i:(?![a-zа-я]))|选项|選項)"
)
_END = r"(?=\W*$|\s*(?:[).,:;!?\]\n\"}>=✓✔✅]|-\s|[^\x00-\x7f])|\s+(?:or|and|because|since|as|is|but|for|not|it)\b)"
# A word after which a lone "A" is a letter, not the article: verbs and joining words.
_NO_NOUN = (
    r"(?:is|was|are|were|because|since|as|and|or|but|nor|not|seems?|looks?|sounds?|would|could|might|must|should|can|"
    r"cannot|\w+n't|does|did|do|has|had|match(?:es)?|fits?|best|it|for|with|by|over|appears?|makes?|remains|stands|"
    r"also|instead|here|if|unlike|rather|than|though|although|while|describes?|mentions?|only|y|o|und|oder|et|"
    r"ou|ist|es)"
)
_BRACKETED = re.compile(r"(?<!\w)[(\[{【「『<]\s*([A-Za-z])\s*[)\]}】」』>]")
_QUOTED = re.compile(r"(?<!\w)['\"]([A-Za-z])['\"](?!\w)")
_KEYED = re.compile(rf"(?<!\w){_KEYWORD}\s*[#:]?\s*[\"'(\[]?([A-Za-z]){_AFTER}(?:(?<=[A-Zb-z])|{_END})", re.IGNORECASE)
_KEYED_NUMBER = re.compile(
    rf"(?<!\w)(?:{_KEYWORD}|numbers?|no\.)\s*[#:]?\s*[\"'(\[#]*(?:number\s*|no\.\s*)?(\d{{1,2}}|one|two|three|"
    rf"four|five|six)"
    r"(?!\w|[.,]\d|\s+(?:by|at\s+a|after)\b)",
    re.IGNORECASE,
)
_UPPER = re.compile(
    rf"{_BEFORE}([A-Z]){_AFTER}|(?<=[A-Za-z0-9]/)([A-Z]){_AFTER}|{_BEFORE}([A-Z])(?=/[A-Z](?![A-Za-z]))"
)
_LOWER = re.compile(rf"{_BEFORE}([a-z]){_AFTER}{_END}")
_LOWER_LISTED = re.compile(r"(?m)(?:^|(?<=[\n.;,]))\W*?(?<![\w'])([a-z])(?:[).:\]](?!\w)|\s*-\s|\W*$)")
_NOT_ANSWERS = re.compile(
    r"\b(?:vitamin|plan|grade|hepatitis|figure|fig\.|type|class|section|point|appendix|team|gate|side|part|"
    r"person|speaker|"
    r"scene|image|picture|video|clip|note|key of|level|series|channel|camera|track|group|exhibit)\s+$",
    re.IGNORECASE,
)
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_ORDINAL = re.compile(
    rf"(?<!\w)(?:({'|'.join(_ORDINALS)}|last)|(\d{{1,2}})(?:st|nd|rd|th))\s+"
    r"(?:listed\s+)?(?:option|choice|answer|candidate|alternative|statement|one\b(?=\W*(?:$|[.,!])))",
    re.IGNORECASE,
)
_HAN = "一二三四五六七八九十"
_HAN_ORDINAL = re.compile(rf"第([{_HAN}]|\d{{1,2}})[个個项項]|(\d{{1,2}})번")
_ONES = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}


def letter_mentions(text: str, count: int) -> list[Mention]:
    """Letters and numbered options; a letter past ``count`` is one too, of the value -1."""
    found = [*_numbered(text, count)]
    for pattern in (_BRACKETED, _QUOTED, _KEYED, _UPPER, _LOWER_LISTED, _LOWER):
        for match in pattern.finditer(text):
            group = match.lastindex or 1
            letter, start, end = match.group(group), match.start(group), match.end(group)
            if pattern is _UPPER and not _is_letter(text, letter, start, end, count):
                continue
            place = ord(letter.upper()) - ord("A")
            kind: Kind = "quiet" if pattern is _LOWER or place >= count else "letter"
            found.append(Mention(start, end, place if place < count else -1, kind))
    return distinct(found)


def _numbered(text: str, count: int) -> Iterator[Mention]:
    for pattern in (_KEYED_NUMBER, _ORDINAL, _HAN_ORDINAL):
        for match in pattern.finditer(text):
            said = next(group for group in match.groups() if group).lower()
            if said.isdigit():
                place = int(said)
            elif said == "last":
                place = count
            else:
                place = _ONES.get(said) or (_ORDINALS.index(said) if said in _ORDINALS else _HAN.index(said)) + 1
            if 1 <= place <= count:
                yield Mention(match.start(), match.end(), place - 1, "letter")


def _is_letter(text: str, letter: str, start: int, end: int, count: int) -> bool:
    """Whether a lone capital is an option: not an article, a pronoun, a vitamin or a key of music."""
    after = text[end : end + 40]
    if (
        letter == "A"
        and re.match(rf"[^\S\n]+(?!{_NO_NOUN}\b)[\w\"']", after, re.IGNORECASE)
        and not re.match(r"\s+(?:\w+s\s+(?:than\s+)?|[>=]\s*)?[A-Z](?![\w'])", after)
    ):
        return False
    if letter == "I" and (
        count < 9
        or re.match(r"[^\S\n]+(?!(?:or|and|is|are|isn't|because|since|but|not|rather|seems|fits|matches)\b)\w", after)
    ):
        return False
    return _NOT_ANSWERS.search(text[max(0, start - 12) : start]) is None and not re.match(
        r"[^\S\n]*(?:major|minor|sharp|flat|natural|chord)\b", after
    )


def longest(mentions: Sequence[Mention]) -> list[Mention]:
    """Of mentions that overlap the longest; all of the longest, where they name the same place differently."""
    kept: list[Mention] = []
    for mention in sorted(set(mentions), key=lambda found: (found.start, -found.end)):
        last = kept[-1] if kept else None
        if last is None or mention.start >= last.end or (mention.start, mention.end) == (last.start, last.end):
            kept.append(mention)
        elif mention.end - mention.start > last.end - last.start:
            kept[-1] = mention
    return kept


def distinct(mentions: Sequence[Mention]) -> list[Mention]:
    """In order, one a place: the one that came first of those that overlap."""
    taken: set[int] = set()
    kept: list[Mention] = []
    for mention in mentions:
        places = range(mention.start, mention.end)
        if taken.isdisjoint(places):
            taken.update(places)
            kept.append(mention)
    return sorted(kept)


def merged(letters: Sequence[Mention], texts: Sequence[Mention]) -> list[Mention]:
    """Both in order; a text hides the letters inside it, as that of "A. Lincoln" does."""
    hidden = {place for mention in texts for place in range(mention.start, mention.end)}
    return sorted([*(letter for letter in letters if letter.start not in hidden), *texts])


__all__ = ["Mention", "Value", "distinct", "letter_mentions", "longest", "merged"]
