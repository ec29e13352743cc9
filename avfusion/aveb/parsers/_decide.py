"""Which of the values that an answer names it decides for."""

import re
from collections.abc import Sequence

from avfusion.aveb.parsers import _cues as cues
from avfusion.aveb.parsers._mentions import Mention, Value
from avfusion.aveb.parsers._runs import Run, Sentences, find_echo, find_runs, is_listed

_OPENING = re.compile(r"[\W_]*(?:(?:sure|okay|ok|certainly|option|choice|letter|number|yes)\b[\W_]*)*", re.IGNORECASE)
_WHOLE = re.compile(r"[^\S\n]*(?:$|\n|[.,:;!?)\]}\"'-]|\(|=>|[^\x00-\x7f])|\s+(?:because|since|as|due)\b")


def decide(text: str, mentions: Sequence[Mention], *, takes_back: bool = True) -> Value | None:
    """The value that is declared last, else the one that opens the answer, else the only one named and not rejected.

    Args:
        text: of :func:`~avfusion.aveb.parsers._markup.final_text`.
        mentions: in order, none overlapping another but those of one place.
        takes_back: whether "no" between two mentions takes the first one back.
    """
    sentences = Sentences(text, mentions)
    standing = _standing(sentences, mentions, takes_back=takes_back)
    if not standing:
        return None
    reading = _Reading(sentences, standing)
    for values in (reading.declared, reading.opening, reading.suggested, reading.named):
        found = values()
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _standing(sentences: Sentences, mentions: Sequence[Mention], *, takes_back: bool) -> list[Mention]:
    """The mentions that the answer does not reject, ask about, take back or name only in a reason."""
    text = sentences.text
    standing = _outside(text, mentions, cues.CONDITIONAL)
    rejected = {m for run in find_runs(sentences, standing) for m in _rejected(run)}
    standing = [mention for mention in standing if mention not in rejected]
    standing = _if_any([mention for mention in standing if not sentences.asks(mention)], standing)
    corrections = [*cues.CORRECTED.finditer(text), *(cues.RETRACTED.finditer(text) if takes_back else ())]
    for correction in sorted(corrections, key=re.Match.end, reverse=True):
        corrected = [mention for mention in standing if mention.start >= correction.end()]
        if any(mention.kind != "quiet" for mention in corrected):
            standing = corrected
            break
    standing = _if_any(_outside(text, standing, cues.ASIDE), standing)
    plain = set(_outside(text, standing, cues.CONTRAST))
    return _if_any([mention for mention in standing if mention.kind == "text" or mention in plain], standing)


def _rejected(run: Run) -> Sequence[Mention]:
    if cues.REJECTED_BEFORE.search(run.before) or cues.REJECTED_AFTER.match(run.after):
        return run.mentions
    if cues.DENIED_AFTER.match(run.after):
        return run.mentions if run.mentions[-1].kind != "text" else run.mentions[-1:]
    return ()


def _if_any(chosen: list[Mention], others: list[Mention]) -> list[Mention]:
    return chosen if any(mention.kind != "quiet" for mention in chosen) else others


def _outside(text: str, mentions: Sequence[Mention], clauses: re.Pattern[str]) -> list[Mention]:
    """The mentions that none of the clauses holds; a text that is such a clause itself stays."""
    spans = [found.span() for found in clauses.finditer(text)] if mentions else []
    kept, at = [], 0
    for mention in mentions:
        while at < len(spans) and spans[at][1] <= mention.start:
            at += 1
        if at == len(spans) or mention.start <= spans[at][0]:
            kept.append(mention)
    return kept


class _Reading:
    """The mentions that stand, and what the words around them say. Each method gives the values it finds."""

    def __init__(self, sentences: Sentences, mentions: Sequence[Mention]) -> None:
        self.sentences = sentences
        self.text = sentences.text
        self.mentions = mentions
        self.runs = find_runs(sentences, mentions)
        self.echo = find_echo(self.text, mentions)

    def declared(self) -> set[Value]:
        """Of the last declaration; "B is right, A is right too" declares both."""
        ends = [cue.end() for cues_ in (cues.DECLARING, cues.CONCLUDING) for cue in cues_.finditer(self.text)]
        found = [(end, self._behind(end) or self._in_sentence(end), False) for end in ends]
        found += [
            (run.end, run.values, cues.ADDED.match(run.after) is not None)
            for run in self.runs
            if cues.DECLARED_AFTER.match(run.after)
        ]
        found.append((len(self.text), self._closing(), False))
        values: set[Value] = set()
        for _, said, added in sorted(found, key=lambda declared: declared[0]):
            values = values | said if added else said or values
        return values

    def opening(self) -> set[Value]:
        """Of what the answer begins with, unless that is a list of the options."""
        first = self.runs[0].mentions[0]
        if first.kind == "quiet" or first in self.echo or not _OPENING.fullmatch(self.text[: first.start]):
            return set()
        if first.kind in ("text", "number"):
            others = [run for run in self.runs[1:] if self.sentences.alone(run)]
            whole = _WHOLE.match(self.text, self.runs[0].end)
            return self.runs[0].values.union(*(run.values for run in others)) if whole else set()
        listed = {mention.value for mention in self.mentions if is_listed(self.text, mention)}
        return set() if len(listed) > 1 else self.runs[0].values

    def suggested(self) -> set[Value]:
        """Of what stands right behind "it is", "probably" and their like, if no other letter stands."""
        values = set().union(*(self._behind(cue.end()) for cue in cues.SUGGESTING.finditer(self.text)))
        letters = {m.value for m in self.mentions if m.kind == "letter" and m not in self.echo}
        return values if len(values) == 1 and letters <= values else set()

    def named(self) -> set[Value]:
        """All that is left."""
        runs = (run for run in self.runs if any(m.kind != "quiet" and m not in self.echo for m in run.mentions))
        return set().union(*(run.values for run in runs))

    def _behind(self, place: int) -> set[Value]:
        """Of the run right behind a cue."""
        run = next((run for run in self.runs if run.mentions[0].start >= place), None)
        if run is None or not cues.FILLED.fullmatch(self.text, place, run.mentions[0].start):
            return set()
        return run.values

    def _in_sentence(self, place: int) -> set[Value]:
        """The one value that the rest of a sentence names."""
        end = self.sentences.end(place)
        rest = [m for m in self.mentions if place <= m.start < end and m.kind != "quiet" and m not in self.echo]
        letters = {mention.value for mention in rest if mention.kind == "letter"}
        values = letters or {mention.value for mention in rest}
        return values if len(values) == 1 else set()

    def _closing(self) -> set[Value]:
        """Of a letter that is the whole last sentence."""
        first, last = self.runs[0], self.runs[-1]
        if last.mentions[0].kind not in ("letter", "number") or set(last.mentions) & self.echo or len(self.runs) == 1:
            return set()
        if re.search(r"\w", self.text[last.end :]) or not self.sentences.alone(last):
            return set()
        opens = self.sentences.alone(first) and first.mentions[0] not in self.echo and self._opens(first)
        return last.values | first.values if opens else last.values

    def _opens(self, run: Run) -> bool:
        return run.mentions[0].kind == "letter" and _OPENING.fullmatch(self.text[: run.mentions[0].start]) is not None
