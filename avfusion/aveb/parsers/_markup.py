"""The final text of an answer: without reasoning, containers and markup, in one spelling of each character."""

import json
import re
import unicodedata

from avfusion.aveb.parsers._reasoning import TAGGED, without_further_turns, without_reasoning

_CHARACTERS = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "−": "-", "‐": "-", "‑": "-", "🅰": "A", "🅱": "B", "、": ",", "。": ". "}
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\ufe0e\ufe0f\u00ad")
)
_DASHES = str.maketrans("–—", "--")
# Cyrillic and Greek capitals that look like Latin ones, each a word of its own.
_LOOKALIKES = dict(zip("АВЕНСМОКРТХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEHCMOKPTXIJSABEZHIKMNOPTYX", strict=True))
_LOOKALIKE = re.compile(rf"(?<![^\W\d_a-zA-Z])[{''.join(_LOOKALIKES)}](?![^\W\d_])")

_SPECIAL = re.compile(r"<\|[\w/]{1,40}\|>|</?s>")

_CONTAINERS = re.compile(
    rf"{TAGGED}"
    r"|<\|begin_of_box\|>(?P<box>.*?)(?:<\|end_of_box\|>|$)"
    r"|\\f?boxed\s*\{(?P<boxed>(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}",
    re.DOTALL | re.IGNORECASE,
)
_KEYED = re.compile(
    r"""[{,]\s*["']?(?:(?:final|correct|selected|my|your|predicted)[ _]?)?
    (?:answer|choice|option|label|prediction|response|result|count|number|value|letter)["']?\s*:\s*
    (?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|\[(?P<several>[^\[\]{}]*)\]|(?P<bare>[^\s,{}\[\]"']+))""",
    re.VERBOSE | re.IGNORECASE,
)
_TICKED, _UNTICKED = (re.compile(rf"(?m)^[^\S\n]*(?:[-*+]\s)?\[{mark}\]\s(?=\S)") for mark in ("[xX✓✔]", r"\s?"))
_RULE = re.compile(r"[\s|:=+-]*-[\s|:=+-]*")
_FEWEST_BARS = 3
_CELL = ": "
HEAD, TAIL = 4000, 12000  # characters of a longer answer that are read
_MOST_NESTED = 3  # a box in a tag in a key
_JOINED = re.compile(r"\W*(?:\b(?:and|or|und|et|y)\b|[,/&和或])?\W*", re.IGNORECASE)

_STRUCK = re.compile(r"~~[^~\n]*~~|<(?P<tag>s|del|strike)>.*?</(?P=tag)>", re.IGNORECASE)
_WRAPPED = re.compile(r"\\(?:text|math|bold|em|it|under|tt)\w*\s*\{([^{}]*)\}")
_TAG = re.compile(r"</?[a-z][\w-]*(?:\s[^<>]*)?/?>", re.IGNORECASE)
_BREAK = re.compile(r"<br\s*/?>|</(?:p|li|div|h\d)>", re.IGNORECASE)
_LINE_START = re.compile(r"(?m)^[^\S\n]*(?:#{1,6}\s+|>+\s*|[-*+•]\s+)+")
_FENCE = re.compile(r"(?m)^[^\S\n]*```[\w-]*[^\S\n]*$")
_EMPHASIS = re.compile(r"[*`]+|(?<!\w)_+(?=\S)|(?<=\S)_+(?!\w)|\\[()\[\],;! ]|\$(?!\d)|(?<=\S)\$")
_LEFT = re.compile(r"\\(?:quad|qquad|left|right|displaystyle|,)\b")


def final_text(text: str) -> str:
    r"""What an answer says after its reasoning and outside its markup.

    Reasoning ends at its last closing tag; reasoning that is never closed hides all but a marked answer. Of marked
    answers (``<answer>``, ``\boxed``, an answer's key in JSON) the last counts alone, with those that "and" or "or"
    joins to it.
    """
    text = unicodedata.normalize("NFKC", text.translate(_DASHES)).translate(_CHARACTERS).translate(_DASHES)
    text = re.sub(r"\s+", lambda found: "\n" if "\n" in found.group() else " ", text)
    text = _LOOKALIKE.sub(lambda found: _LOOKALIKES[found.group()], text)
    text = _marked(without_reasoning(without_further_turns(text)))
    text = _WRAPPED.sub(r"\1", _WRAPPED.sub(r"\1", _STRUCK.sub(" ", text)))
    text = _TAG.sub("", _BREAK.sub("\n", _LEFT.sub(" ", text)))
    text = _table_rows(_boxes_ticked(text))
    return _ends(_EMPHASIS.sub("", _LINE_START.sub("", _FENCE.sub("", text))).strip())


def _ends(text: str) -> str:
    """The beginning and the end of a long answer: what lies between reasons more than it decides."""
    if len(text) <= HEAD + TAIL:
        return text
    head, tail = text[:HEAD], text[-TAIL:]
    return f"{head[: head.rfind(' ') + 1] or head}\n{tail[tail.find(' ') + 1 :]}"


def _boxes_ticked(text: str) -> str:
    """Lists of tasks, "- [x] A" below "- [ ] B", with a tick and crosses."""
    return _TICKED.sub("✅ ", _UNTICKED.sub("❌ ", text)) if _TICKED.search(text) else text


def _table_rows(text: str) -> str:
    """Rows of a table as lines: "A: a cat: ✓"; a head above a single row, cell by cell."""
    if text.count("|") < _FEWEST_BARS:
        return text
    lines: list[str] = []
    head: list[str] = []
    source = text.split("\n")
    for place, line in enumerate(source):
        cells = [cell.strip(" *_`") for cell in line.strip().strip("|").split("|")] if "|" in line else []
        if _RULE.fullmatch(line) and "|" in line and lines:
            head = _cells(lines.pop())
            last = place + 2 >= len(source) or "|" not in source[place + 2]
            head = head if last else []
        elif len(cells) > 1 and len(head) == len(cells):
            lines += [f"{name}: {cell}" for name, cell in zip(head, cells, strict=True)]
            head = []
        elif len(cells) > 1:
            lines.append(_CELL.join(cells))
        else:
            lines.append(line)
    return "\n".join(lines)


def _cells(line: str) -> list[str]:
    return line.split(_CELL)


def _marked(text: str) -> str:
    """The content of the last marked answer, or the text where none is marked."""
    for pattern in (_CONTAINERS, _KEYED) * _MOST_NESTED:
        found = [match for match in pattern.finditer(text) if _content(match).strip()]
        if found:
            said = [_content(found[-1])]
            for before, after in zip(found[-2::-1], found[:0:-1], strict=False):
                if pattern is _KEYED or not _joined(text[before.end() : after.start()]):
                    break
                said.insert(0, _content(before))
            text = " and ".join(said)
    if _is_table(text):
        return ""
    return _SPECIAL.sub("\n", text)


def _is_table(text: str) -> bool:
    """Whether the text is nothing but a JSON object of several entries, such as a score for each option."""
    bare = _FENCE.sub("", text).strip("*` \n")
    try:
        found = json.loads(bare) if bare.startswith("{") else None
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and len(found) > 1


def _joined(between: str) -> bool:
    return re.search(r"\w|[,/&]", between) is not None and _JOINED.fullmatch(between) is not None


def _content(found: re.Match[str]) -> str:
    groups = found.groupdict()
    if groups.get("several") is not None:
        return " and ".join(part.strip(" \"'\n") for part in groups["several"].split(","))
    names = ("tagged", "box", "boxed", "double", "single", "bare")
    content = next((groups[name] for name in names if groups.get(name) is not None), "")
    return {"true": "yes", "false": "no", "null": ""}.get(content.lower(), content) if groups.get("bare") else content
