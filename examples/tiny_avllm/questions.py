"""What is asked about a clip, and the tokenizer that knows the words."""

import random
from typing import NamedTuple

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from examples.tiny_avllm.data import COLOURS, SHAPES, TONES, Scene

ABOUT_A_SCENE = (
    "Which colour was on screen during the {tone} tone?",
    "What was the colour of the shape when the {tone} tone sounded?",
    "During the {tone} tone, which colour was shown?",
    "While you heard the {tone} tone, what colour did you see?",
)
PLACEHOLDER = "<av>"


class Question(NamedTuple):
    text: str
    answer: str


def ask_about_every_scene(scenes: tuple[Scene, ...], choose: random.Random) -> list[Question]:
    """The colour of each scene, which its tone points out: it takes eye and ear at the same instant to know."""
    return [Question(choose.choice(ABOUT_A_SCENE).format(tone=scene.tone), scene.colour) for scene in scenes]


def as_prompt(question: str) -> str:
    """The clip first, then the question, which always ends with its mark."""
    return f"{PLACEHOLDER} {question.strip().rstrip('?').strip()} ?"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the questions and answers; any other word is ``<unk>``."""
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    words: set[str] = {*COLOURS, *TONES, *SHAPES}
    for text in ABOUT_A_SCENE:
        words.update(word for word, _ in split.pre_tokenize_str(text.lower().replace("{tone}", "")))
    special = ["<pad>", "<unk>", "</s>", PLACEHOLDER]
    vocabulary = {word: index for index, word in enumerate([*special, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    # Both spellings are one word.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"\bcolor\b"), "colour")]
    )
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        additional_special_tokens=[PLACEHOLDER],
    )
