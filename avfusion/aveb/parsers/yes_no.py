"""Yes or no."""

import re

from avfusion.aveb.parsers._decide import decide
from avfusion.aveb.parsers._markup import final_text
from avfusion.aveb.parsers._mentions import Kind, Mention, distinct

# The first of these that matches at a place counts.
_WORDS: tuple[tuple[str, bool | None, Kind], ...] = (
    # neither
    (r"\byes[ -]?(?:or|/|and)[ -]?no\b|\bno[ -]?(?:or|/|and)[ -]?yes\b|\[?\byes/no\b", None, "quiet"),
    (
        r"\bno\s+(?:idea|doubt|matter|problem|question|worries|longer|more\s+than|less\s+than|need|answer|"
        r"information)\b",
        None,
        "quiet",
    ),
    (
        r"\b(?:not|isn't|n't)\s+(?:\w+ly\s+)?(?:sure|certain|clear|enough|possible to|able to|know\b)"
        r"|不确定|不清楚|不知道|无法",
        None,
        "quiet",
    ),
    # no
    (
        r"\b(?:not really|not exactly|not at all|not quite|certainly not|definitely not|absolutely not|"
        r"probably not|of course not)\b",
        False,
        "letter",
    ),
    (r"\b(?:I\s+)?(?:don't|do not)\s+(?:think|believe)(?:\s+(?:so|that|they|it|the)\b|\W*$)", False, "text"),
    (r"\b(?:I\s+)?(?:doubt (?:it|that)|think not|guess not|suppose not|afraid not)\b", False, "letter"),
    (r"\b(?:nope|nah|negative|never|nay)\b", False, "letter"),
    (
        r"^\W*(?:false|incorrect|wrong|not (?:true|correct|right))\b|(?<=answer is )(?:false|incorrect)|"
        r"(?<=answer: )false",
        False,
        "letter",
    ),
    (r"\bnot\s+[\"']?yes\b", False, "letter"),
    (
        r"\b(?:non|nein|nee|нет|não|hayır|nie|いいえ|아니[요오]?|아뇨|لا|नहीं)(?!\w)|いいえ|ない(?=です)|違います",
        False,
        "letter",
    ),
    (r"不是的?|不对|不對|否|没有|沒有|不匹配|不一致|不能|不会|^\W*[不没沒](?=\W|$)", False, "letter"),
    (r"\bno\b(?=\s*(?:$|[^\w\s]|\n))|(?:^|\n)\W*no\b|\b(?:say|is|be|answer|so)\s+[\"']?no\b(?!\s+\w)", False, "letter"),
    (r"\bno\b", False, "text"),
    # yes
    (r"\b(?:yes|yeah|yep|yup|yea|affirmative|of course|absolutely|indeed)\b", True, "letter"),
    (
        r"^\W*(?:true|correct|right|certainly|definitely|sure|exactly|that's (?:right|correct|true))\b(?=\W*$|"
        r"\s*[.,!])|(?<=answer is )(?:true|correct)|(?<=answer: )true",
        True,
        "letter",
    ),
    (r"\b(?:I\s+)(?:think|believe|guess|suppose)\s+so\b", True, "letter"),
    (r"\b(?:oui|ja|да|sim|sí|sì|evet|tak)\b|はい|そうです|네(?!\w)|예(?!\w)|맞습니다|نعم|हाँ", True, "letter"),
    (r"^\W*si(?=\W*$|\s*[,.])", True, "letter"),
    (
        r"(?<!不)是(?!否|不是)的?(?=$|\W|[。，])|^\W*[对對有](?=\W|的|$)|(?<!不)正确|^\W*(?:可以|匹配|一致)",
        True,
        "letter",
    ),
)
_PATTERNS = [(re.compile(pattern, re.IGNORECASE), value, kind) for pattern, value, kind in _WORDS]
_ELLIPSIS = re.compile(
    r"\W*(?:it|they|he|she|there|this|that|these|those|the\s\w+)\s*(?:(?:really|certainly|clearly|indeed)\s+)?(?:"
    r"(?P<no>(?:is|are|does|do|did|was|were|has|have|can|could|will|would)(?:n't|\s+not)|can't|cannot|won't)"
    r"|(?:is|are|does|do|did|was|were|has|have|can|could|will|would))\W*",
    re.IGNORECASE,
)


def parse_yes_no(text: str) -> bool | None:
    """Whether an answer says yes or no, in English or another common language.

    Reasoning and markup are stripped first. The word that is declared last counts ("so the answer is no"), else the one
    that opens the answer, else the only one; one that the answer rejects or takes back does not.

    Returns:
        ``True`` for yes, ``False`` for no, ``None`` without either or with both undecided.

    Example:
        >>> from avfusion.aveb.parsers import parse_yes_no
        >>> parse_yes_no("No, yes is wrong."), parse_yes_no("Not really."), parse_yes_no("I know nothing")
        (False, False, None)
        >>> parse_yes_no("<think>No?</think> **Yes**"), parse_yes_no("Yes... wait, no."), parse_yes_no("yes and no")
        (True, False, None)
    """
    said = final_text(text)
    ellipsis = _ELLIPSIS.fullmatch(said)
    if ellipsis is not None:
        return ellipsis.group("no") is None
    found = [
        (Mention(match.start(), match.end(), bool(value), kind), value)
        for pattern, value, kind in _PATTERNS
        for match in pattern.finditer(said)
    ]
    neither = {mention for mention, value in found if value is None}
    mentions = [mention for mention in distinct([mention for mention, _ in found]) if mention not in neither]
    value = decide(said, mentions, takes_back=False)
    return None if value is None else bool(value)
