"""The prompt of a session: what stands before the clip, and what comes behind it with each question."""

from typing import Any

from avfusion.errors import InvalidTypeError, InvalidValueError, PlaceholderError
from avfusion.models.prompts import placeholder_id, prompt_ids

QUESTION = "{question}"


class LivePrompt:
    """A prompt with a place for the clip and, behind it, one for the question.

    It is tokenised as a whole, as :func:`~avfusion.models.prepare_inputs` does, and then cut at the clip.

    Args:
        tokenizer: of the language model.
        prompt: holds the placeholder once, and behind it ``{question}`` once.
        placeholder: the token that stands for the clip.
        token: its number in the model.
        add_special_tokens: let the tokenizer begin with its special tokens.
    """

    def __init__(self, tokenizer: Any, prompt: str, placeholder: str, token: int, add_special_tokens: bool) -> None:
        found = placeholder_id(tokenizer, placeholder)
        if found != token:
            raise InvalidValueError(
                f"placeholder: must be the model's placeholder token {token}, found {placeholder!r} = {found}"
            )
        places = [prompt.count(part) for part in (placeholder, QUESTION)]
        if places != [1, 1] or prompt.index(placeholder) > prompt.index(QUESTION):
            raise PlaceholderError(
                f"prompt: must hold {placeholder!r} once, and {QUESTION!r} once behind it, found {prompt!r}"
            )
        self.tokenizer, self.prompt, self.token = tokenizer, prompt, token
        self.add_special_tokens = add_special_tokens
        self.prefix = self._cut("")[0]

    def suffix(self, question: str) -> list[int]:
        """The tokens behind the clip."""
        if not isinstance(question, str):
            raise InvalidTypeError(f"question: must be a string, found {type(question).__name__}")
        prefix, suffix = self._cut(question)
        if prefix != self.prefix:
            raise InvalidValueError(
                "question: must not change the tokens before the clip, which have been read: "
                f"must be {self.prefix}, found {prefix}"
            )
        return suffix

    def _cut(self, question: str) -> tuple[list[int], list[int]]:
        ids = prompt_ids(self.tokenizer, self.prompt.replace(QUESTION, question), self.add_special_tokens)
        if ids.count(self.token) != 1:
            raise PlaceholderError(
                f"question: must not hold the placeholder, found {ids.count(self.token)} in the whole prompt"
            )
        place = ids.index(self.token)
        return ids[:place], ids[place + 1 :]
