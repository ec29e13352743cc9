"""Prompts and answers to what the model takes."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError, PlaceholderError

IGNORED = -100  # transformers' loss skips labels of this value


def prepare_inputs(
    tokenizer: Any,
    prompts: Sequence[str | Sequence[str]],
    counts: Tensor | Sequence[int],
    *,
    answers: Sequence[str | Sequence[str]] | None = None,
    placeholder: str = "<av>",
    padding_side: Literal["left", "right"] = "left",
    add_special_tokens: bool = True,
    end: str | None = None,
) -> dict[str, Tensor]:
    """Tokenises prompts, inserts a placeholder for every embedding of their clips, and pads to one batch.

    Prompt and answer are tokenised separately, so that training sees the prompt that generation sees. The end token
    closes every answer and is trained, also if the tokenizer pads with it.

    Args:
        tokenizer: the language model's tokenizer; ``placeholder`` must be one of its tokens.
        prompts: one per row, with ``placeholder`` once at the position of the clip, or not at all in rows without a
            clip. A row may be a dialogue: a list of prompts, with a list of answers.
        counts: number of embeddings of each row's clip, from :meth:`AudioVisualLanguageModel.num_placeholders`; 0 for
            none.
        answers: one per row, for training. A dialogue has one for each prompt, or all but the last: the history before
            a new question.
        placeholder: the token that stands for the clip in a prompt.
        padding_side: ``"left"``, which generation needs, or ``"right"``.
        add_special_tokens: let the tokenizer add its special tokens to the prompts; ``False`` for prompts from a chat
            template, which has added them.
        end: a token that closes every answer, if the chat template's differs from the tokenizer's end token; ``""`` if
            the answers hold their ends.

    Returns:
        ``input_ids`` and ``attention_mask``, both ``(row, length)`` int64, and with answers ``labels`` of the same
        shape: -100 everywhere but at answers and their end tokens.

    Raises:
        PlaceholderError: a prompt with a clip but not exactly one placeholder, or an answer with one.
        InvalidValueError: lists of different lengths, a negative count, or a tokenizer without the token or an end
            token.
        InvalidTypeError: a string instead of a list of strings.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from avfusion.models import prepare_inputs
        >>> words = {word: index for index, word in enumerate(["<unk>", "</s>", "<av>", "which", "colour", "red"])}
        >>> rule = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        >>> rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rule, eos_token="</s>", unk_token="<unk>")
        >>> inputs = prepare_inputs(tokenizer, ["<av> which colour", "colour"], [3, 0], answers=["red", "red"])
        >>> inputs["input_ids"].tolist()
        [[2, 2, 2, 3, 4, 5, 1], [1, 1, 1, 1, 4, 5, 1]]
        >>> inputs["labels"].tolist()
        [[-100, -100, -100, -100, -100, 5, 1], [-100, -100, -100, -100, -100, 5, 1]]
        >>> inputs["attention_mask"].tolist()
        [[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1]]
    """
    token = placeholder_id(tokenizer, placeholder)
    numbers = [int(count) for count in counts]
    _check(prompts, numbers, answers, padding_side)
    pad = next((found for found in (tokenizer.pad_token_id, tokenizer.eos_token_id) if found is not None), 0)
    if pad == token:
        raise InvalidValueError(f"placeholder: must not be the token that pads, found {placeholder!r}")

    ids, learned = [], []
    for row, count in enumerate(numbers):
        asked = _turns(prompts[row])
        said = [] if answers is None else _answer_ids(tokenizer, _turns(answers[row]), token, row, end)
        heard = [prompt_ids(tokenizer, text, add_special_tokens and not turn) for turn, text in enumerate(asked)]
        heard = _expand(heard, token, count, row)
        ids_of_row: list[int] = []
        learned_of_row: list[int] = []
        said += [[]] * (len(heard) - len(said))  # an open end has nothing to learn
        for before, after in zip(heard, said, strict=True):
            ids_of_row += before + after
            learned_of_row += [IGNORED] * len(before) + after
        ids.append(torch.tensor(ids_of_row, dtype=torch.int64))
        learned.append(torch.tensor(learned_of_row, dtype=torch.int64))
    inputs = {
        "input_ids": _pad(ids, pad, padding_side),
        "attention_mask": _pad([torch.ones_like(row) for row in ids], 0, padding_side),
    }
    return inputs if answers is None else {**inputs, "labels": _pad(learned, IGNORED, padding_side)}


def _turns(texts: str | Sequence[str]) -> Sequence[str]:
    return [texts] if isinstance(texts, str) else texts


def placeholder_id(tokenizer: Any, placeholder: str, name: str = "placeholder") -> int:
    """The number of a token, such as the one that stands for the clip, checked."""
    # Both look-ups take no time; the whole vocabulary takes a good part of a second.
    found = tokenizer.convert_tokens_to_ids(placeholder)
    if found is None or tokenizer.convert_ids_to_tokens(found) != placeholder:
        raise InvalidValueError(
            f"{name}: must be one token of the tokenizer, found {placeholder!r}, which is not; "
            f"tokenizer.add_tokens([{placeholder!r}], special_tokens=True) makes it one"
        )
    return int(found)


def _check(
    prompts: Sequence[str | Sequence[str]],
    counts: list[int],
    answers: Sequence[str | Sequence[str]] | None,
    padding_side: str,
) -> None:
    for name, texts in (("prompts", prompts), ("answers", answers)):
        if isinstance(texts, str):
            raise InvalidTypeError(f"{name}: must be a list of strings, one a row, found one string")
    if not prompts:
        raise InvalidValueError("prompts: must hold at least one prompt, found none")
    for name, values in (("counts", counts), ("answers", answers)):
        if values is not None and len(values) != len(prompts):
            raise InvalidValueError(f"{name}: must be one for each of {len(prompts)} prompts, found {len(values)}")
    for row, asked in enumerate(prompts):
        said = [] if answers is None else answers[row]
        turns, replies = len(_turns(asked)), len(_turns(said))
        open_ended = replies == turns - 1 and not isinstance(said, str)
        if turns == 0 or (replies != turns and not open_ended):
            raise InvalidValueError(
                "answers: a dialogue must have one for each prompt, or all but the last, "
                f"found {replies} answers to {turns} prompts in row {row}"
            )
    if min(counts) < 0:
        raise InvalidValueError(f"counts: must be at least 0, found {counts}")
    if padding_side not in ("left", "right"):
        raise InvalidValueError(f'padding_side: must be "left" or "right", found {padding_side!r}')


def prompt_ids(tokenizer: Any, prompt: str, add_special_tokens: bool) -> list[int]:
    """A prompt's tokens, its placeholder once."""
    own: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if not add_special_tokens:
        return own
    ids: list[int] = tokenizer(prompt)["input_ids"]
    # Some tokenizers end every text with the end token; a prompt goes on.
    ended = ids[-1:] == [tokenizer.eos_token_id] and ids[len(ids) - len(own) :] != own
    return ids[:-1] if ended else ids


def _expand(turns: list[list[int]], token: int, count: int, row: int) -> list[list[int]]:
    found = sum(ids.count(token) for ids in turns)
    if found > 1 or (count and not found):
        raise PlaceholderError(
            f"prompts: a prompt must hold the placeholder once if it has a clip, found {found} in row {row}, "
            f"whose clip has {count} embeddings"
        )
    return [[part for one in ids for part in ([token] * count if one == token else [one])] for ids in turns]


def _answer_ids(tokenizer: Any, answers: Sequence[str], token: int, row: int, end: str | None) -> list[list[int]]:
    closing = [] if end == "" else [placeholder_id(tokenizer, end, "end") if end else tokenizer.eos_token_id]
    if closing == [None] and answers:
        raise InvalidValueError("tokenizer: must have an end token (eos_token) to train on answers, found none")
    said = [[*tokenizer(answer, add_special_tokens=False)["input_ids"], *closing] for answer in answers]
    if any(token in ids for ids in said):
        raise PlaceholderError(f"answers: must not hold the placeholder, found it in row {row}")
    return said


def _pad(rows: list[Tensor], value: int, side: str) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)
