"""Questions that need audio and video of the same instant, and questions without a clip."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from examples.real_parts.clips import Clip, Scene

ABOUT_COLOUR = (
    "What colour was on screen when the word {word} was spoken?",
    "Which colour did you see while you heard the word {word}?",
    "While the word {word} was said, what was the colour of the shape?",
)
ABOUT_WORD = (
    "Which word was spoken while the shape was {colour}?",
    "What word did you hear when something {colour} was on screen?",
    "While a {colour} shape was shown, which word was said?",
)


class Question(NamedTuple):
    """A question about a scene.

    Attributes:
        text: the question.
        answer: the whole answer.
        kind: ``"colour"`` or ``"word"``: what is asked for.
    """

    text: str
    answer: str
    kind: str


def ask(scene: Scene, kind: str, choose: random.Random) -> Question:
    if kind == "colour":
        return Question(choose.choice(ABOUT_COLOUR).format(word=scene.word), f"It was {scene.colour}.", kind)
    return Question(choose.choice(ABOUT_WORD).format(colour=scene.colour), f"It was {scene.word}.", kind)


def dialogue(clip: Clip, choose: random.Random, turns: int) -> list[Question]:
    """Questions about different scenes."""
    scenes = choose.sample(clip.scenes, min(turns, len(clip.scenes)))
    return [ask(scene, choose.choice(("colour", "word")), choose) for scene in scenes]


def examination(clips: Sequence[Clip], *, scenes: int = 2, seed: int = 7) -> list[tuple[int, Question]]:
    """Number of a clip, and a question: of both kinds, about a few scenes of each clip."""
    choose = random.Random(seed)
    return [
        (number, ask(scene, kind, choose))
        for number, clip in enumerate(clips)
        for kind in ("colour", "word")
        for scene in choose.sample(clip.scenes, scenes)
    ]


# Answered by the language model itself before training: rows of training that keep it able to answer text.
TEXT_TRAINING = (
    "What is the capital of Spain?", "Name two fruits.", "What is three times four?", "Who painted the Mona Lisa?",
    "Write one sentence about mountains.", "What do cows eat?", "How do you say 'thank you' in Spanish?",
    "Which planet is the largest?", "What is the opposite of big?", "Give a synonym of quick.",
    "What is water made of?", "Tell me a fact about cats.", "What is a verb?",
    "Name a European river.", "How many days has a week?",
    "Who was Albert Einstein?", "What is the boiling point of water?", "Write a greeting.", "What is the moon?",
    "Name three animals.", "What is a triangle?", "Explain rain in one sentence.", "What colour is grass?",
    "What is the past tense of go?", "Name a musical instrument.", "Why is the sky blue?", "What is bread made of?",
    "Which month comes after May?", "What is ten minus six?", "Name a country in Africa.", "What does a doctor do?",
    "Write a short poem about the sun.", "What is the currency of Japan?", "Name a famous scientist.",
    "How many legs has a spider?", "What is a house?", "What is ice?", "Who wrote Romeo and Juliet?",
    "What is the plural of mouse?", "Name a yellow fruit.",
)  # fmt: skip
TEXT_HELD_OUT = (
    "What is the capital of France?", "Name three colours.", "Two plus three is what?", "Who wrote Hamlet?",
    "Write one sentence about the sea.", "What do bees make?", "Translate 'good morning' into French.",
    "Which planet is known as the red planet?", "What is the opposite of hot?", "Give a synonym of happy.",
    "What is the largest ocean?", "Name two vegetables.", "What is seven plus eight?", "Who discovered gravity?",
    "Write one sentence about winter.", "What do birds eat?", "What is a noun?", "How many months has a year?",
    "What is the sun?", "What is paper made of?",
)  # fmt: skip
