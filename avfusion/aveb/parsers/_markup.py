"""The final text of an answer: without reasoning, containers and markup, in one spelling of each character."""

import json
import re
import unicodedata

_CHARACTERS = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "−": "-", "‐": "-", "‑": "-", "🅰": "A", "🅱": "B", "、": ",", "。": ". "}
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\ufe0e\ufe0f\u00ad")
)
_DASHES = str.maketrans("–—", "--")
# Cyrillic and Greek capitals that look like Latin ones, each a word of its own.
_LOOKALIKES = dict(zip("АВЕНСМОКРТХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEHCMOKPTXIJSABEZHIKMNOPTYX", strict=True))
_LOOKALIKE = re.compile(rf"(?<![^\W\d_a-zA-Z])[{''.join(_LOOKALIKES)}](?![^\W\d_])")

_THOUGHT = r"(?:think|thinking|thought|thoughts|reason|reasoning|analysis|scratchpad|reflection)"
_REASONING_END = re.compile(rf"[<◁\[]/{_THOUGHT}[>▷\]]|<\|end_of_(?:thought|thinking)\|>", re.IGNORECASE)
_REASONING_START = re.compile(rf"[<◁\[]{_THOUGHT}[>▷\]]|<\|begin_of_(?:thought|thinking)\|>", re.IGNORECASE)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)\s*<\|message\|>")
_SPECIAL = re.compile(r"<\|[\w/]{1,40}\|>|</?s>")

_TAGS = r"(?:final_?)?(?:answer|choice|option|conclusion|response|output|result|label|prediction)"
_CONTAINERS = re.compile(
    rf"<(?P<tag>{_TAGS})>(?P<tagged>.*?)(?:</(?P=tag)>|$)"
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
_MOST_NESTED = 3  # a box in a tag in a key
_JOINED = re.compile(r"\W*(?:\b(?:and|or|und|et|y)\b|[,/&和或])?\W*", re.IGNORECASE)

_STRUCK = re.compile(r"~~[^~\n]*~~|<(?P<tag>s|del|strike)>.*?</(?P=tag)>", re.IGNORECASE)
_WRAPPED = re.compile(r"\\(?:text|math|bold|em|it|under|tt)\w*\s*\{([^{}]*)\}")
_TAG = re.compile(r"</?[a-z][\w-]*(?:\s[^<>]*)?/?>", re.IGNORECASE)
_BREAK = re.compile(r"<br\s*/?>|</(?:p|li|div|h\d)>", re.IGNORECASE)
_LINE_START = re.compile(r"(?m)^[^\S\n]*(?:#{1,6}\s+|>+\s*|[-*+•]\s+)+")
_FENCE = re.compile(r"(?m)^\s*```[\w-]*\s*$")
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
    text = _marked(_without_reasoning(text))
    text = _WRAPPED.sub(r"\1", _WRAPPED.sub(r"\1", _STRUCK.sub(" ", text)))
    text = _TAG.sub("", _BREAK.sub("\n", _LEFT.sub(" ", text)))
    return _EMPHASIS.sub("", _LINE_START.sub("", _FENCE.sub("", text))).strip()


def _without_reasoning(text: str) -> str:
    channels = list(_CHANNEL.finditer(text))
    if channels:
        text = text[channels[-1].end() :] if channels[-1].group(1) == "final" else ""
    start, ends = _REASONING_START.search(text), list(_REASONING_END.finditer(text))
    if ends:
        after = text[ends[-1].end() :]
        before = "" if start is None else text[: start.start()]
        text = after if after.strip() else before
        start = _REASONING_START.search(text)
    if start is not None:
        marked = [found for found in _CONTAINERS.finditer(text, start.end()) if found.group("tag")]
        text = marked[-1].group() if marked else text[: start.start()]
    return text


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
