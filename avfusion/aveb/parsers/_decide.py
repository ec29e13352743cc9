"""Which of the values that an answer names it decides for."""

import re
from bisect import bisect_left
from collections.abc import Collection, Sequence

from avfusion.aveb.parsers import _cues as cues
from avfusion.aveb.parsers._mentions import Mention, Value
from avfusion.aveb.parsers._runs import Run, Sentences, find_echo, find_runs, is_listed
from avfusion.aveb.parsers._verdicts import conclusion, find_verdicts, left_over

_NEAR = 120  # characters between a cue and what it declares
_OPENING = re.compile(r"[\W_]*(?:(?:sure|okay|ok|certainly|option|choice|letter|number|yes)\b[\W_]*)*", re.IGNORECASE)
_KEY = re.compile(r"[\W_]*[^\W\d_][\w ]{0,30}:[\W_]*")
_WHOLE = re.compile(r"[^\S\n]*(?:$|\n|[.,:;!?)\]}\"'-]|\(|=>|[^\x00-\x7f])|\s+(?:because|since|as|due)\b")


def decide(
    text: str, mentions: Sequence[Mention], *, takes_back: bool = True, universe: Collection[Value] = ()
) -> Value | None:
    """The value that is declared last, else the one that opens the answer, else the only one named and not rejected.

    A conclusion under a heading counts alone where it decides.

    Args:
        text: of :func:`~avfusion.aveb.parsers._markup.final_text`.
        mentions: in order, none overlapping another but those of one place.
        takes_back: whether "no" between two mentions takes the first one back.
        universe: all values there are to choose from; the one that is left where the answer rejects the others.
    """
    for part in (conclusion(text, mentions), mentions):
        value = _decide(text, part, takes_back=takes_back, universe=universe) if part else None
        if value is not None:
            return value
    return None


def _decide(text: str, mentions: Sequence[Mention], *, takes_back: bool, universe: Collection[Value]) -> Value | None:
    sentences = Sentences(text, mentions)
    asserted = _outside(text, mentions, cues.CONDITIONAL)
    favoured, judged = find_verdicts(text, asserted)
    rejected = (find_rejected(find_runs(sentences, asserted)) - {*favoured}) | judged
    standing = _standing(sentences, [mention for mention in asserted if mention not in rejected], takes_back=takes_back)
    if standing:
        reading = _Reading(sentences, standing)
        for values in (reading.declared, reading.opening, reading.suggested, reading.named):
            found = values()
            if found:
                return found.pop() if len(found) == 1 else None
    left = left_over({mention.value for mention in rejected}, universe)
    return left.pop() if left and {mention.value for mention in standing} <= left else None


def _standing(sentences: Sentences, standing: list[Mention], *, takes_back: bool) -> list[Mention]:
    """The mentions that the answer does not ask about, take back or name only in a reason."""
    text = sentences.text
    standing = _if_any([mention for mention in standing if not sentences.asks(mention)], standing)
    corrections = [*cues.CORRECTED.finditer(text), *(cues.RETRACTED.finditer(text) if takes_back else ())]
    last = standing[-1].start if standing else 0
    for correction in sorted(corrections, key=re.Match.end, reverse=True):
        if correction.end() > last:
            continue
        corrected = standing[bisect_left(standing, correction.end(), key=lambda mention: mention.start) :]
        if any(mention.kind != "quiet" for mention in corrected):
            standing = corrected
            break
    standing = _if_any(_outside(text, standing, cues.ASIDE), standing)
    plain = set(_outside(text, standing, cues.CONTRAST))
    return _if_any([mention for mention in standing if mention.kind == "text" or mention in plain], standing)


def find_rejected(runs: Sequence[Run]) -> set[Mention]:
    """The mentions that the words around them reject."""
    found: set[Mention] = set()
    before, alike = "", False
    for run in runs:
        against = cues.REJECTED_AFTER.match(run.after) or cues.DENIED_AFTER.match(run.after)
        if cues.ALL_BUT.search(run.before) if against else cues.NONE_BUT.search(run.before):
            pass
        elif cues.REJECTED_BEFORE.search(run.before) or cues.REJECTED_AFTER.match(run.after):
            found.update(run.mentions)
        elif cues.DENIED_AFTER.match(run.after):
            found.update(run.mentions if run.mentions[-1].kind != "text" else run.mentions[-1:])
        elif (
            (alike and cues.ALIKE.search(run.before))
            or cues.LESS.fullmatch(run.before)
            or (cues.LESS_LIKED.fullmatch(run.before) and cues.PREFERRING.search(before))
        ):
            found.update(run.mentions)
        before, alike = run.before, not found.isdisjoint(run.mentions)
    return found


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
        self.plain = set(_outside(self.text, mentions, cues.CONTRAST))
        self.starts = [run.mentions[0].start for run in self.runs]
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
        found += [
            (run.end, run.values, False)
            for run in self.runs
            if cues.ALL_BUT.search(run.before) or cues.NONE_BUT.search(run.before)
        ]
        favoured = find_verdicts(self.text, self.mentions).favoured
        if favoured:
            found.append((favoured[-1].end, {mention.value for mention in favoured}, False))
        found += [(cue.end(), self._behind(cue.end()), False) for cue in cues.TOTALLING.finditer(self.text)]
        found.append((len(self.text), self._closing(), False))
        values: set[Value] = set()
        for _, said, added in sorted(found, key=lambda declared: declared[0]):
            values = values | said if added else said or values
        return values

    def opening(self) -> set[Value]:
        """Of what the answer begins with, unless that is a list of the options."""
        first = self.runs[0].mentions[0]
        if first.kind == "quiet" or first in self.echo or not (self._opens(self.runs[0]) or self._keyed()):
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
        at = bisect_left(self.starts, place)
        if at == len(self.starts) or self.starts[at] - place > _NEAR:
            return set()
        return self.runs[at].values if cues.FILLED.fullmatch(self.text, place, self.starts[at]) else set()

    def _in_sentence(self, place: int) -> set[Value]:
        """The one value that the rest of a sentence names."""
        end = self.sentences.end(place)
        here = (bisect_left(self.mentions, bound, key=lambda mention: mention.start) for bound in (place, end))
        rest = [m for m in self.mentions[slice(*here)] if m.kind != "quiet" and m not in self.echo]
        letters = {mention.value for mention in rest if mention.kind == "letter"}
        values = letters or {mention.value for mention in rest}
        if len(values) > 1 and not letters:
            values = {mention.value for mention in rest if mention in self.plain}
        return values if len(values) == 1 else set()

    def _closing(self) -> set[Value]:
        """Of a letter that is the whole last sentence."""
        first, last = self.runs[0], self.runs[-1]
        if last.mentions[0].kind not in ("letter", "number") or set(last.mentions) & self.echo or len(self.runs) == 1:
            return set()
        if re.search(r"\w", self.text[last.end :]) or not self.sentences.alone(last):
            return set()
        opens = self.sentences.alone(first) and first.mentions[0] not in self.echo and self._opens(first)
        return last.values | first.values if opens and first.mentions[0].kind == "letter" else last.values

    def _opens(self, run: Run) -> bool:
        return _OPENING.fullmatch(self.text, 0, run.mentions[0].start) is not None

    def _keyed(self) -> bool:
        """Whether the answer begins with a key and a text or a number, as "Emotion: happy", and no other follows."""
        first = self.runs[0].mentions[0]
        if first.kind not in ("text", "number") or not _KEY.fullmatch(self.text, 0, first.start):
            return False
        lines = (self.text.rfind("\n", 0, run.mentions[0].start) + 1 for run in self.runs[1:])
        return not any(
            line and run.values != self.runs[0].values and _KEY.fullmatch(self.text, line, run.mentions[0].start)
            for line, run in zip(lines, self.runs[1:], strict=True)
        )
