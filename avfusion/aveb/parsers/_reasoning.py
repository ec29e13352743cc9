"""Reasoning before an answer, and turns that a model invents after it."""

import re
from collections.abc import Iterator

_THOUGHT = r"(?:think|thinking|thought|thoughts|reason|reasoning|analysis|scratchpad|reflection)"
_TAG = re.compile(
    rf"(?P<start>[<◁\[]{_THOUGHT}[>▷\]]|<\|begin_of_(?:thought|thinking)\|>)"
    rf"|[<◁\[]/{_THOUGHT}[>▷\]]|<\|end_of_(?:thought|thinking)\|>",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)\s*<\|message\|>")
_TAGS = r"(?:final_?)?(?:answer|choice|option|conclusion|response|output|result|label|prediction)"
TAGGED = rf"<(?P<tag>{_TAGS})>(?P<tagged>.*?)(?:</(?P=tag)>|$)"
_TAGGED = re.compile(TAGGED, re.DOTALL | re.IGNORECASE)
_WHOLLY_TAGGED = re.compile(
    rf"\s*<({_TAGS})>(?P<tagged>(?:(?!</?{_TAGS}>).)*)</\1>\s*(?:<\|\w{{1,20}}\|>|</s>)?\s*", re.DOTALL | re.IGNORECASE
)

# What only a user's turn, or the end of the answer, begins with; text of a prompt has to open a line or a sentence.
_USER = r"(?:user|human)"
_HEAD = r"(?:next\s+)?(?:question|instruction|user|human|prompt|problem|exercise)"
_TURN = re.compile(
    rf"""<\|im_start\|>\s*{_USER}\b|<\|start\|>\s*{_USER}\b|<\|start_header_id\|>\s*{_USER}\b
    |<start_of_turn>\s*{_USER}\b|<\|{_USER}\|>|\[INST\]
    |<\|(?:im_end|eot_id|endoftext|end_of_text|eot|eos|end_of_turn|end▁of▁sentence|END_OF_TURN_TOKEN|return)\|>
    |<end_of_turn>|<eos>|(?P<eos></s>)
    |(?:^|\n)[^\S\n]{{0,8}}(?:[*_>]{{1,4}}[^\S\n]?)?(?:
        \#{{2,6}}[^\S\n]*(?:{_HEAD}|input)\b[^\S\n]*\d{{0,3}}[^\S\n]*(?:[:.)*]|(?=\n|$))
        |(?:{_HEAD})[^\S\n]*[\#\d]{{0,4}}[*_]{{0,2}}[^\S\n]*[:：]|(?:{_HEAD})[^\S\n]+\d{{1,3}}[*_]{{0,2}}[.)]?[^\S\n]*(?:\n|$)
        |Q[^\S\n]?\d{{0,3}}[*_]{{0,2}}[^\S\n]?[:：]
        |(?:问题|问|用户|题目|質問|질문|Frage|Pregunta|Вопрос|Domanda|Pergunta)[^\S\n]*\d{{0,3}}[^\S\n]*[:：]
        |(?:\#{{3,6}}|-{{3,9}}|={{3,9}})[^\S\n]*\n+[^\n]{{1,300}}\?[^\S\n]*\n
    )
    |(?<=[.!?)])[^\S\n]{{1,3}}(?:question[^\S\n]?\d{{0,3}}|user|Q)[:：]
    |(?<=[\w*_`"'\]])(?<!\bthe)(?<!\bthis)(?<!\bto)(?<!\byour)(?<!\bfollowing)[^\S\n]{{1,3}}(?-i:Question|Q)\d{{0,3}}:""",
    re.VERBOSE | re.IGNORECASE,
)
_REPLY = re.compile(
    r"<\|im_start\|>\s*assistant\b|<\|start\|>\s*assistant\b|<\|start_header_id\|>\s*assistant\b|<start_of_turn>\s*model\b"
    r"|<\|assistant\|>|\[/INST\]|(?:^|\n)[^\S\n]{0,8}(?:#{2,6}[^\S\n]*|[*_]{1,3})?(?:answer|a|assistant|response)\s?[*_]{0,2}[:：]",
    re.IGNORECASE,
)
_WORD = re.compile(r"<[^<>\n]{1,30}>|[^\W_]")
_STRUCK_OUT = re.compile(r"\S\s?<s>")  # no beginning of a sequence
_MOST_LEAD = 300  # characters
# Prose that leads up to the question, which the model then repeats before it answers.
_LEADS_UP = re.compile(
    r"[\W_]*(?:(?:sure|okay|ok|certainly|of course|alright|great|hi|hello)\b[^\n]{0,100}|(?:let me|let's|I'll|I will|"
    r"I need to|to answer|first|here|we (?:need|are|have)|given|looking at|understanding|understand|based on|step \d|"
    r"restat\w+|rephras\w+|the (?:question|user|task)\b(?: is| asks| says)?)\b[^\n]{0,200})[\s*_#>:-]*",
    re.IGNORECASE,
)


def strip_reasoning(text: str) -> str:
    """What a model answers: without its reasoning, and without the answer's tag around all the rest.

    Reasoning stands between tags (``<think>``, ``<reasoning>`` and their like), before a closing tag alone, after an
    opening tag that is never closed (where only an answer's tag ends it), or in a channel other than the
    final one. Every metric scores this text. Stripping twice gives the same as once.

    Returns:
        The last part with any text that is no reasoning, without spaces around it; empty where all of it is reasoning.
        A text without reasoning and answer's tag comes back as it is.

    Example:
        >>> from avfusion.aveb.parsers import strip_reasoning
        >>> strip_reasoning("<think>A bark, so a dog.</think>A dog barks."), strip_reasoning("<answer>cat</answer>")
        ('A dog barks.', 'cat')
        >>> strip_reasoning("<think>A bark, so"), strip_reasoning("A dog barks.")
        ('', 'A dog barks.')
    """
    while True:
        stripped = without_reasoning(text)
        whole = _WHOLLY_TAGGED.fullmatch(stripped)
        stripped = stripped if whole is None else whole["tagged"]
        if stripped == text:
            return text
        text = stripped.strip()


def without_reasoning(text: str) -> str:
    """As :func:`strip_reasoning`, with the answer's tag."""
    channels = list(_CHANNEL.finditer(text))
    if channels:
        text = text[channels[-1].end() :] if channels[-1].group(1) == "final" else ""
    parts: list[str] = []
    inside, at = False, 0
    for tag in _TAG.finditer(text):
        if tag["start"]:
            if not inside:
                parts.append(text[at : tag.start()])
            inside = True
        else:
            if not inside:
                parts.clear()  # what a closing tag alone ends is reasoning from the beginning
            inside = False
        at = tag.end()
    if inside:
        marked = [found.group() for found in _TAGGED.finditer(text, at)]
        parts.extend(marked[-1:])
    else:
        parts.append(text[at:])
    return next((part for part in reversed(parts) if part.strip()), "")


def without_further_turns(text: str) -> str:
    """What stands before a user's next turn that the model invents; a turn that the answer begins with stays.

    Where the answer begins with the prompt itself, the turn after its reply counts.
    """
    word = next((found.start() for found in _WORD.finditer(text) if found.group()[0] != "<"), len(text))
    struck, reply = _STRUCK_OUT.search(text), _REPLY.search(text)
    begins = False
    for turn in _outside_reasoning(text):
        place = turn.start()
        if turn["eos"] and struck is not None and struck.end() <= place:
            continue
        if place <= word or (place <= _MOST_LEAD and _LEADS_UP.fullmatch(text, 0, place)):
            begins = True
        elif not begins or (reply is not None and reply.end() <= place):
            return text[:place]
    return text


def _outside_reasoning(text: str) -> Iterator[re.Match[str]]:
    tags = [(tag.start(), tag["start"] is not None) for tag in _TAG.finditer(text)]
    place = 0
    for turn in _TURN.finditer(text):
        while place < len(tags) and tags[place][0] < turn.start():
            place += 1
        opened = place > 0 and tags[place - 1][1]
        closes = place < len(tags) and not tags[place][1]
        if not opened and not closes:
            yield turn
