"""Conversations to the text that a chat template makes of them, cut where the answers are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from avfusion.errors import InvalidValueError
from avfusion.models.conversations import Message, given_answers, message_text

ANSWER = "\x00"  # stands for an answer while a conversation is rendered: no template and no text has it

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
        prompts: what stands before each answer; one more where the last answer has yet to be given.
        answers: the answers, as they were given.
        end: the special token by which the template ends an answer, if it does.
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

    Args:
        tokenizer: gives the template its special tokens.
        messages: with contents that the template takes.
        template: in Jinja.
        options: further variables of the template.
        generate: begin an answer; if the last message is not the assistant's, without it.

    Raises:
        InvalidValueError: text with the character NUL, or a conversation that the template refuses.
    """
    if any(ANSWER in message_text(message) for message in messages if message["role"] != "assistant"):
        raise InvalidValueError("conversation: text must not hold the character NUL, found it in a message")
    hidden = [{**message, "content": ANSWER} if message["role"] == "assistant" else message for message in messages]
    generate = messages[-1]["role"] != "assistant" if generate is None else generate
    try:
        text = tokenizer.apply_chat_template(
            hidden, chat_template=template, tokenize=False, add_generation_prompt=generate, **options
        )
    except Exception as error:
        if not isinstance(error, TypeError) and type(error).__module__.partition(".")[0] != "jinja2":
            raise
        raise InvalidValueError(f"conversation: must be one that the chat template takes, found: {error}") from error
    first, *others = str(text).split(ANSWER)
    answers = given_answers(messages)
    if len(others) != len(answers):
        raise InvalidValueError(
            f"chat_template: must write each answer once, found {len(others)} of {len(answers)} answers"
        )
    ends = [_special(tokenizer, piece) for piece in others]
    end = next((found for found in ends if found is not None), None)
    pairs = zip(others, ends, strict=True)
    rest = [piece if found is None else piece.lstrip().removeprefix(found) for piece, found in pairs]
    if rest and not rest[-1].strip():  # space behind the last answer
        rest = rest[:-1]
    return Rendered([first, *rest], answers, end)


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
