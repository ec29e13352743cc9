"""Prompts as the language model reads them, and the tokenizer that knows their words."""

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from avfusion.aveb import Request

PLACEHOLDER = "<av>"
_SPECIAL = ("<pad>", "<unk>", "</s>", PLACEHOLDER)


def as_prompt(request: Request) -> str:
    """Sound and pictures first, then the dialogue so far and the question."""
    turns = [f"{question} : {answer}" for question, answer in request.history]
    media = request.video or request.audio or request.image
    return " ".join([*([PLACEHOLDER] if media else []), *turns, request.prompt, ":"])


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token for each word of ``texts``; any other word is ``<unk>``."""
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text.replace(PLACEHOLDER, "").lower())}
    vocabulary = {word: index for index, word in enumerate([*_SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        additional_special_tokens=[PLACEHOLDER],
    )
