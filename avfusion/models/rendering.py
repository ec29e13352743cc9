"""Conversations to the text that a chat template makes of them, cut where the answers are."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from avfusion.errors import InvalidValueError
from avfusion.models.conversations import Message, given_answers, message_text

# Marks in a rendered conversation. No template and no text has the character NUL.
NUL = "\x00"
ANSWER = NUL + "a"  # stands for an answer
BEGIN, END = NUL + "b", NUL + "e"  # stand for {% generation %} and {% endgeneration %}
TAGS = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")

# For tokenizers without a template of their own.
PLAIN_TEMPLATE = """{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ 'ASSISTANT: ' + message.content + eos_token }}
{%- elif message.role == 'user' -%}
{{ 'USER: ' + message.content + '\\n' }}
{%- else -%}
{{ message.content + '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'ASSISTANT: ' }}
{%- endif -%}"""


class Rendered(NamedTuple):
    """A conversation as text.

    Attributes:
        prompts: what stands before each text that is learned; one more where the last answer has yet to be given.
        answers: the texts that are learned.
        end: the special token by which the template ends an answer; empty if the texts hold their ends; ``None`` if the
            template has no such token.
    """

    prompts: list[str]
    answers: list[str]
    end: str | None

    @property
    def text(self) -> str:
        """All of it."""
        closed = [answer + (self.end or "") for answer in self.answers]
        closed += [""] * (len(self.prompts) - len(closed))
        return "".join(before + after for before, after in zip(self.prompts, closed, strict=True))


def render(
    tokenizer: Any, messages: Sequence[Message], template: str, options: Mapping[str, Any], *, generate: bool | None
) -> Rendered:
    """Applies a chat template.

    What lies between the template's ``{% generation %}`` tags is learned. Without tags it is each answer, its end, and
    what the template writes before the answer that is not in the generation prompt, such as an empty reasoning block. A
    system prompt is joined to the first question if the template has no place for it.

    Args:
        tokenizer: gives the template its special tokens.
        messages: with contents that the template takes.
        template: in Jinja.
        options: further variables of the template.
        generate: begin an answer; if the last message is not the assistant's, without it.

    Raises:
        InvalidValueError: text with the character NUL, or a conversation that the template refuses.
    """
    if any(NUL in message_text(message) for message in messages):
        raise InvalidValueError("conversation: text must not hold the character NUL, found it in a message")
    generate = messages[-1]["role"] != "assistant" if generate is None else generate
    marked = TAGS.sub(lambda tag: f"{{{{{tag[1]} '{END if tag[2] else BEGIN}' {tag[3]}}}}}", template)
    answers = given_answers(messages)

    def apply(some: Sequence[Message], generate: bool) -> str:
        hidden = [{**message, "content": ANSWER} if message["role"] == "assistant" else message for message in some]
        found = tokenizer.apply_chat_template(
            hidden, chat_template=marked, tokenize=False, add_generation_prompt=generate, **options
        )
        return str(found)

    try:
        messages = _join_system(messages, apply)
        text = apply(messages, generate)
        found = text.count(ANSWER)
        if found != len(answers):
            raise InvalidValueError(
                f"chat_template: must write each answer once, found {found} of {len(answers)} answers"
            )
        if BEGIN in text:
            return _by_tags(text, answers)
        asked = [apply(messages[:place], True) for place, one in enumerate(messages) if one["role"] == "assistant"]
    except Exception as error:
        if not isinstance(error, TypeError) and type(error).__module__.partition(".")[0] != "jinja2":
            raise
        raise InvalidValueError(f"conversation: must be one that the chat template takes, found: {error}") from error
    return _by_answers(tokenizer, text, answers, asked)


def _by_tags(text: str, answers: list[str]) -> Rendered:
    prompts, learned = [], []
    remaining = iter(answers)
    before, *spans = text.split(BEGIN)
    for span in spans:
        inside, tag, after = span.partition(END)
        pieces = inside.split(ANSWER)
        if not tag or ANSWER in before + after:
            raise InvalidValueError("chat_template: must write answers between its generation tags, found one outside")
        prompts.append(before)
        learned.append(pieces[0] + "".join(next(remaining) + piece for piece in pieces[1:]))
        before = after
    return Rendered([*prompts, before] if before.strip() else prompts, learned, "")


def _by_answers(tokenizer: Any, text: str, answers: list[str], asked: list[str]) -> Rendered:
    pieces = text.split(ANSWER)
    first, *others = pieces
    ends = [_special(tokenizer, piece) for piece in others]
    end = next((found for found in ends if found is not None), None)
    pairs = zip(others, ends, strict=True)
    rest = [piece if found is None else piece.lstrip().removeprefix(found) for piece, found in pairs]
    if rest and not rest[-1].strip():  # space behind the last answer
        rest = rest[:-1]
    prompts, learned, written = [first, *rest], [], ""
    for place, (answer, question) in enumerate(zip(answers, asked, strict=True)):
        written += pieces[place]
        opening = written.removeprefix(question) if written.startswith(question) else ""
        prompts[place] = prompts[place].removesuffix(opening)
        learned.append(opening + answer)
        written += ANSWER
    return Rendered(prompts, learned, end)


def _join_system(messages: Sequence[Message], apply: Callable[[Sequence[Message], bool], str]) -> Sequence[Message]:
    """The messages, with a system prompt in the first question if the template refuses or drops one."""
    system, *others = messages
    if system["role"] != "system" or not others or others[0]["role"] != "user":
        return messages
    try:
        known = NUL + "s" in apply(
            [{**system, "content": NUL + "s"}, others[0], {"role": "assistant", "content": ""}], False
        )
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "jinja2":
            raise
        known = False
    if known:
        return messages
    prompt, content = message_text(system) + "\n\n", others[0]["content"]
    joined = prompt + content if isinstance(content, str) else [{"type": "text", "text": prompt}, *content]
    return [{**others[0], "content": joined}, *others[1:]]


def flat_content(messages: Sequence[Message], placeholder: str) -> list[dict[str, Any]]:
    """Messages whose contents are text, with the placeholder, on a line of its own, before that of the clip's turn.

    The templates of most language models take no lists of parts.
    """
    flat = []
    for message in messages:
        content, text = message["content"], message_text(message)
        if not isinstance(content, str) and any(part["type"] != "text" for part in content):
            text = f"{placeholder}\n{text}"
        flat.append({**message, "content": text})
    return flat


def _special(tokenizer: Any, piece: str) -> str | None:
    """The special token that a piece of text begins with."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = sorted({*added, *map(str, tokenizer.all_special_tokens)}, key=len, reverse=True)
    text = piece.lstrip()
    return next((name for name in names if name and text.startswith(name)), None)
