"""Lists and tables that give every option a verdict, conclusions under a heading, and what elimination leaves."""

import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import NamedTuple

from avfusion.aveb.parsers._mentions import Mention, Value

_FOR = r"""✅|✓|✔|☑|(?:yes|correct|true|right|(?:a\ )?(?:good\ |best\ |perfect\ |clear\ |strong\ )?match(?:es)?|fits|
    supported|plausible|selected|kept|keep|chosen|pass(?:es)?|confirmed|possible|remains|best|winner|present)\b"""
_AGAINST = r"""❌|✗|✘|✖|☒|(?:no|nope|incorrect|wrong|false|unlikely|implausible|impossible|mismatch|out|
    fail(?:s|ed)?|absent|eliminated?|rejected?|excluded?|ruled\ out|dismissed|discarded|unsupported|contradicted|
    irrelevant|not\ (?:\w+ly\ )?(?:an?\ |the\ )?(?:good\ )?(?:match|matched|fit|fitting|supported|plausible|likely|
    correct|right|heard|present|this|it|the\ answer|selected|true|possible|valid|visible|seen|shown)
    |(?:does|do|did|is|can)(?:n't|\ not)\ (?:\w+ly\ )?(?:fit|match|apply|hold|work|correspond|make\ sense|agree))\b"""
_CLOSES = re.compile(
    rf"(?:^|[\s:,;.(=>-])(?:so\s+)?(?:(?:it\ |that\ )?(?:is\ |'s\ ))?"
    rf"(?:(?P<against>{_AGAINST})|(?P<favours>{_FOR}))[\s.!)*]*$",
    re.IGNORECASE | re.VERBOSE,
)
_OPENS = re.compile(
    r"[\s>*#-]*(?:(?P<against>❌|✗|✘|✖|☒)|(?P<favours>✅|✓|✔|☑))?[\W_]*(?:(?:option|choice|answer)\b[\W_]*)?",
    re.IGNORECASE,
)
_MOST_VERDICT = 60  # characters at the end of a line that hold it

_TITLE = r"""(?:(?:final|overall|my|the|correct|best)\s+){0,2}(?:answer|conclusion|verdict|decision|summary|result|
    choice|selection|judge?ment|determination|takeaway|bottom\ line|结论|結論|答案|总结|
    conclusión|fazit|conclusione|conclusão|вывод)"""
_HEADING = re.compile(rf"(?:^|\n)[\s\d.):#-]{{0,8}}{_TITLE}[^\S\n]*:?[^\S\n]*\n(?=\s*\S)", re.IGNORECASE | re.VERBOSE)
_REASONS = re.compile(
    r"\n[\s\d.):#-]{0,8}(?:explanation|reasoning|rationale|justification|reasons?|why|analysis|evidence)\b[^\n]{0,40}(?::|\n)",
    re.IGNORECASE,
)


class Verdicts(NamedTuple):
    """What lines that each begin with an option say of it.

    Attributes:
        favoured: first mentions of the lines that accept theirs.
        rejected: mentions of the lines that reject theirs.
    """

    favoured: tuple[Mention, ...]
    rejected: frozenset[Mention]


def find_verdicts(text: str, mentions: Sequence[Mention]) -> Verdicts:
    """The verdicts, where at least two lines have one, of different options."""
    favoured: list[Mention] = []
    rejected: set[Mention] = set()
    judged: set[Value] = set()
    at = line = 0
    while at < len(mentions):
        first = mentions[at]
        line = text.rfind("\n", line, first.start) + 1 or line
        end = text.find("\n", first.end)
        end = len(text) if end < 0 else end
        following = bisect_left(mentions, end, lo=at, key=lambda mention: mention.start)
        own = mentions[at:following]
        at = max(following, at + 1)
        opens = _OPENS.fullmatch(text, line, first.start)
        if first.kind not in ("letter", "text") or isinstance(first.value, bool) or opens is None:
            continue
        last = max(mention.end for mention in own)
        closes = _CLOSES.search(text, max(last, end - _MOST_VERDICT), end)
        judges = closes or opens
        if len({mention.value for mention in own}) > 1 or not (judges["favours"] or judges["against"]):
            continue
        if judges["favours"]:
            favoured.append(first)
        else:
            rejected.update(own)
        judged.add(first.value)
    return Verdicts(tuple(favoured), frozenset(rejected)) if len(judged) > 1 else Verdicts((), frozenset())


def conclusion(text: str, mentions: Sequence[Mention]) -> Sequence[Mention]:
    """The mentions under the last heading that announces the answer, up to a heading of reasons; none without it."""
    headings = list(_HEADING.finditer(text))
    if not headings:
        return ()
    start = headings[-1].end()
    reasons = _REASONS.search(text, start - 1)
    end = len(text) if reasons is None else reasons.start()
    return [mention for mention in mentions if start <= mention.start < end]


def left_over(rejected: Collection[Value], universe: Collection[Value]) -> set[Value]:
    """The one value that is left where all others are rejected."""
    left = set(universe) - set(rejected)
    return left if len(left) == 1 and len(universe) > 1 else set()
