"""Labels of sound sources, from a closed list or free."""

import re
from collections.abc import Sequence

from avfusion.aveb._text import plain
from avfusion.aveb.parsers import _cues as cues
from avfusion.aveb.parsers._decide import decide
from avfusion.aveb.parsers._markup import final_text
from avfusion.aveb.parsers._names import text_mentions
from avfusion.errors import InvalidTypeError, InvalidValueError

SOUND_SOURCE_TEMPLATES = (
    "The source of this sound in this scene is {}.",
    "The source of the audio in this picture can be identified as {}.",
    "From this picture, it can be found that the given sound is produced by {}.",
    "In this image, the given audio might originates from {}.",
)
"""The sentences of AVSSD's answers, spelt as published."""

_LEAD = re.compile(
    r"""(?:(?:so|therefore|thus|hence|well|sure|okay|yes|answer|final\ answer|label|source)\b\s*[,:]?\s+)*(?:
    (?:I\s+(?:think|believe|guess|would\ say)\s+(?:that\s+)?)?
    (?:(?:it|this|that|there)(?:'s|\s+(?:is|are|was|must\ be|could\ be|might\ be|sounds\ like|seems\ to\ be|
    appears\ to\ be))
    |(?:it|this|that)\s+sounds?\s+like
    |(?:the\s+)?(?:final\s+|correct\s+|best\s+)?(?:answer|label|source|sound|audio|noise|sounding\s+object|
    object\s+making\s+the\s+sound)
     (?:\s+(?:of|in|source|label)\s+(?:the|this)?\s*(?:sound|audio|scene|image|picture|video|clip|is\b)?){0,3}\s*
     (?:is|was|:|must\ be|seems\ to\ be|appears\ to\ be|comes\ from|is\ coming\ from|can\ be\ identified\ as|
    is\ produced\ by|is\ made\ by)
    |I\s+(?:can\s+)?(?:hear|see))\s*
    (?:(?:most\ likely|probably|likely|clearly|definitely|perhaps|maybe|the\ sound\ of|coming\ from|produced\ by|
    made\ by|from|of)\s+)*
    )?(?:(?:an?|the)\s+)?""",
    re.IGNORECASE | re.VERBOSE,
)
_REFUSED = re.compile(
    r"""\W*(?:sorry|unknown|unclear|not\ sure|none|nothing|n/?a|no\ (?:idea|answer|sound|source)|(?:I|we)\s*(?:'m|
    am|are)?\s*(?:not\ sure|unsure|
    unable|sorry|(?:can|could|do)(?:not|n't|\ not|'t)\s+(?:\w+\s+)?(?:tell|say|determine|identify|know|hear|see|be|
    answer|find|process|recogni[sz]e)|afraid)
    |it\s+(?:is|was)\s+(?:not|unclear|hard|difficult|impossible|unknown)\b|it's\ (?:not|unclear|hard|difficult|
    impossible)|there\ is\ (?:no|not)|
    as\ an\ ai|not)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_AFTERTHOUGHT = re.compile(
    r"\s*(?:[,.;-]?\s*\b(?:not|rather\ than|instead\ of|but\ not|and\ not|because|since)\b|\.\s+[A-Z]|\n).*", re.DOTALL
)


def parse_label(
    text: str, templates: Sequence[str] = SOUND_SOURCE_TEMPLATES, *, labels: Sequence[str] | None = None
) -> tuple[str, ...] | None:
    """The names in "The source of this sound in this scene is playing violin, fiddle." and its like.

    Reasoning and markup are stripped first, then the sentence around the label and what it is said not to be.

    Args:
        text: the answer: a sentence after one of the templates, one that says "it is" or "answer:", or the bare label.
        templates: sentences with ``{}`` where the label stands.
        labels: the closed list that the label is of; commas separate the synonyms in each. Then the answer may be any
            text that decides for one of them, as candidates of :func:`parse_choice` are found. ``car_horn``,
            "car-horn", "Car horn", "carHorn" and "car horns" are the same.

    Returns:
        The label and its comma-separated synonyms, in lower case, without article, outer punctuation or repeats; with a
        closed list, the synonyms of its entry. ``None`` if nothing is left, or more than one label of the closed list.

    Raises:
        InvalidValueError: a template without exactly one ``{}``; a closed list without names.
        InvalidTypeError: one string instead of a closed list.

    Example:
        >>> from avfusion.aveb.parsers import parse_label
        >>> parse_label("The source of this sound in this scene is Playing violin, fiddle.")
        ('playing violin', 'fiddle')
        >>> parse_label("dog barking"), parse_label("It is a **dog**, not a cat."), parse_label("...")
        (('dog barking',), ('dog',), None)
        >>> parse_label("Not a cat, I hear a dog in the yard.", labels=["cat", "dog"])
        ('dog',)
    """
    if isinstance(labels, str):
        raise InvalidTypeError("labels: must be a sequence of strings, found one string")
    said = final_text(text)
    inside = _inside(said, templates)
    if labels is not None:
        return _of_list(said if inside is None else inside, labels)
    if inside is None:
        inside = _unwrapped(said)
    return _split(inside) or None


def _split(text: str) -> tuple[str, ...]:
    names = (_without_article(plain(name)) for name in text.split(","))
    return tuple(dict.fromkeys(filter(None, names)))


def _without_article(name: str) -> str:
    return re.sub(r"^(?:an?|the)\s+", "", name)


def _inside(text: str, templates: Sequence[str]) -> str | None:
    """What stands in the place of a template's ``{}``."""
    found = None
    for template in templates:
        if template.count("{}") != 1:
            raise InvalidValueError(f"templates: must hold {{}} once, found {template!r}")
        before, after = (plain(part) for part in template.split("{}"))
        pattern = r"\W+".join([*map(re.escape, before.split()), "(.*)", *map(re.escape, after.split())])
        match = re.fullmatch(rf"\W*{pattern}\W*", text, re.IGNORECASE | re.DOTALL)
        if found is None and match is not None:
            found = match.group(1)
        elif found is None and not after and plain(text) == before:
            found = ""
    return found


def _unwrapped(text: str) -> str:
    """A label without the sentence around it and without what it is not; nothing where the answer refuses."""
    declared = list(cues.DECLARING.finditer(text))
    corrected = list(cues.CORRECTED.finditer(text))
    for cue in (*declared[-1:], *corrected[-1:]):
        if re.search(r"\w", text[cue.end() :]) and re.search(r"\w", text[: cue.start()]):
            text = text[cue.end() :].strip()
            break
    if _REFUSED.match(text):
        return ""
    text = text[_LEAD.match(text).end() :].strip()  # type: ignore[union-attr]  # matches nothing at least
    return "" if _REFUSED.match(text) else _AFTERTHOUGHT.sub("", text, count=1)


def _of_list(text: str, labels: Sequence[str]) -> tuple[str, ...] | None:
    entries = [_split(label) for label in labels]
    empty = next((label for label, names in zip(labels, entries, strict=True) if not names), None)
    if not entries or empty is not None:
        raise InvalidValueError(f"labels: must be names, at least one, found {labels if empty is None else empty!r}")
    names = [(place, name) for place, label in enumerate(labels) for name in label.split(",")]
    mentions = text_mentions(text, names, plurals=True)
    value = decide(text, mentions, universe=range(len(entries)))
    return None if value is None else entries[int(value)]
