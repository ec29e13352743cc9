"""Mentions in their sentences: which a list joins, and the words before and after."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from avfusion.aveb.parsers import _cues as cues
from avfusion.aveb.parsers._mentions import Mention, Value

_NEAR = 80  # characters around a mention that are looked at
_SENTENCE_END = re.compile(r"[!?;]+|\.+(?=[\s\"')\]]|$)|[。！？]|\n")
_ONLY_MARKS = re.compile(r"[\W_]*")
_ENUMERATED = re.compile(r"[^\S\n]*(?:[).:\]-]|\n|$)")
_AFFIRMED = re.compile(r"\s*yes\b", re.IGNORECASE)
_ENDS_LINE = re.compile(r"[^\S\n]*(?:\n|$)")
_NAMED = re.compile(r"[\W_]*(?:(?:option|choice|letter|answer|number|选项)\b[\W_]*)?", re.IGNORECASE)


class Run(NamedTuple):
    """Mentions that a list joins, as "A, B and D", or a letter and its text.

    Attributes:
        mentions: at least one.
        before: what its sentence says before it, back to the last run.
        after: what follows, up to the next run.
        contradicted: the value of another option's text right behind its last letter.
    """

    mentions: tuple[Mention, ...]
    before: str
    after: str
    contradicted: Value | None

    @property
    def values(self) -> set[Value]:
        values = {mention.value for mention in self.mentions}
        return values if self.contradicted is None else values | {self.contradicted}

    @property
    def end(self) -> int:
        return self.mentions[-1].end


class Sentences:
    """Where the sentences of a text begin and end; the period behind an option's letter ends none."""

    def __init__(self, text: str, mentions: Sequence[Mention]) -> None:
        self.text = text
        listed = {mention.end for mention in mentions if mention.kind != "text" and _opens_line(text, mention.start)}
        self._ends = [
            found.end()
            for found in _SENTENCE_END.finditer(text)
            if found.start() not in listed or found.group() != "." or _ENDS_LINE.match(text, found.end())
        ]

    def start(self, place: int) -> int:
        """Where the sentence of a character begins."""
        at = bisect_right(self._ends, place)
        return self._ends[at - 1] if at else 0

    def end(self, place: int) -> int:
        """Where it ends, its mark included."""
        at = bisect_left(self._ends, place + 1)
        return self._ends[at] if at < len(self._ends) else len(self.text)

    def asks(self, mention: Mention) -> bool:
        """Whether the mention is part of a question that no "yes" follows."""
        end = self.end(mention.end)
        return self.text[end - 1 : end] == "?" and _AFFIRMED.match(self.text, end) is None

    def alone(self, run: Run) -> bool:
        """Whether a sentence says nothing but the run."""
        start, end = run.mentions[0].start, run.end
        following = self.text[end : self.end(end)]
        return bool(_NAMED.fullmatch(self.text[self.start(start) : start]) and _ONLY_MARKS.fullmatch(following))


def _opens_line(text: str, place: int) -> bool:
    near = max(0, place - _NEAR)
    line = text.rfind("\n", near, place) + 1
    return (line > 0 or near == 0) and _NAMED.fullmatch(text, line, place) is not None


def find_runs(sentences: Sentences, mentions: Sequence[Mention]) -> list[Run]:
    """The runs of mentions that are in order."""
    text = sentences.text
    groups: list[list[Mention]] = []
    for mention in mentions:
        if groups and _joined(text, groups[-1][-1], mention):
            groups[-1].append(mention)
        else:
            groups.append([mention])
    runs = []
    for place, group in enumerate(groups):
        start, end = group[0].start, group[-1].end
        earlier = groups[place - 1][-1].end if place else 0
        following = groups[place + 1][0] if place + 1 < len(groups) else None
        before = text[max(earlier, sentences.start(start), start - _NEAR) : start]
        after = text[end : min(end + _NEAR, len(text) if following is None else following.start)]
        runs.append(Run(tuple(group), before, after, _contradiction(text, group[-1], following)))
    return runs


def _joined(text: str, first: Mention, second: Mention) -> bool:
    gap = text[first.end : second.start]
    if len(gap) > _NEAR or "\n" in gap.strip(" "):
        return False
    if (first.kind == "text") != (second.kind == "text") and first.value == second.value:
        return cues.ENUMERATING.fullmatch(gap) is not None
    if isinstance(first.value, bool) and first.value != second.value and not re.search(r"\w", gap):
        return False  # "no, yes is wrong"
    if first.kind == "number" and ":" in gap:
        return False  # "2 and 3: 5"
    return cues.JOINING.fullmatch(gap) is not None


def _contradiction(text: str, letter: Mention, following: Mention | None) -> Value | None:
    if letter.kind == "text" or following is None or following.kind != "text" or following.value == letter.value:
        return None
    gap = text[letter.end : following.start]
    return following.value if "\n" not in gap and cues.ENUMERATING.fullmatch(gap) else None


def is_listed(text: str, mention: Mention) -> bool:
    """Whether a letter opens a line of its own as in a list of options."""
    return mention.kind == "letter" and _opens_line(text, mention.start) and bool(_ENUMERATED.match(text, mention.end))


def find_echo(text: str, mentions: Sequence[Mention]) -> set[Mention]:
    """Mentions that only repeat the options in their order: "A. a cat B. a dog"."""
    letters = [mention for mention in mentions if mention.kind == "letter"]
    echoed: set[Mention] = set()
    chain: list[Mention] = []
    for mention in letters:
        if chain and mention.value == chain[-1].value + 1 and _repeats(text, chain[-1], mention, mentions):
            chain.append(mention)
        else:
            chain = [mention] if mention.value == 0 else []
        if len(chain) > 1:
            echoed.update(chain)
    announced = cues.WALKING.search(text)
    if announced is not None:
        echoed.update(m for m in mentions if m.start >= announced.end() and _starts_item(text, m))
    if echoed:
        texts = [m for m in mentions if m.kind == "text"]
        for text_mention in texts:
            at = bisect_right(letters, text_mention.start, key=lambda m: m.start)
            letter = letters[at - 1] if at else None
            if letter is None or letter not in echoed or letter.value != text_mention.value:
                continue
            if "\n" not in text[letter.end : text_mention.start]:
                echoed.add(text_mention)
    return echoed


def _starts_item(text: str, mention: Mention) -> bool:
    return is_listed(text, mention) or (
        mention.kind == "text"
        and _opens_line(text, mention.start)
        and text[mention.end : mention.end + 3].strip()[:1] in (":", "-")
    )


def _repeats(text: str, first: Mention, second: Mention, mentions: Sequence[Mention]) -> bool:
    gap_start, gap_end = first.end, second.start
    gap = text[gap_start:gap_end]
    if _opens_line(text, first.start) and _opens_line(text, second.start) and gap.strip().count("\n") == 0:
        return True
    at = bisect_left(mentions, gap_start, key=lambda m: m.start)
    for mention in mentions[at:]:
        if mention.start >= gap_end:
            break
        if mention.kind == "text" and mention.value == first.value:
            gap = text[gap_start : mention.start] + text[mention.end : gap_end]
            break
    return re.fullmatch(r"[\W_]*(?:\b(?:an?|the)\b[\W_]*)?", gap, re.IGNORECASE) is not None
