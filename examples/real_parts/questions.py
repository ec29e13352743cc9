"""Questions that need audio and video of the same instant."""

import random
from collections.abc import Sequence
from typing import NamedTuple, Protocol

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
NOTHING = "Nothing was said."
BOTH = frozenset(("visual", "audio"))


class Question(NamedTuple):
    """A question about a scene or a clip.

    Attributes:
        text: the question.
        answer: the whole answer.
        kind: what is asked for, such as ``"colour"`` or ``"word"``.
        needs: the streams without which it cannot be answered.
    """

    text: str
    answer: str
    kind: str
    needs: frozenset[str] = BOTH


class Dialogue(Protocol):
    """Draws questions about a clip of which some streams are given."""

    def __call__(self, clip: Clip, choose: random.Random, turns: int, streams: frozenset[str]) -> list[Question]: ...


def ask(scene: Scene, kind: str, choose: random.Random) -> Question:
    """A question about a scene. One in which nothing is said can only be asked for its word."""
    if kind == "colour" and scene.word:
        return Question(choose.choice(ABOUT_COLOUR).format(word=scene.word), f"It was {scene.colour}.", kind)
    answer = f"It was {scene.word}." if scene.word else NOTHING
    return Question(choose.choice(ABOUT_WORD).format(colour=scene.colour), answer, kind if scene.word else "silence")


def dialogue(clip: Clip, choose: random.Random, turns: int, streams: frozenset[str] = BOTH) -> list[Question]:
    """Questions about different scenes; all need both streams."""
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
