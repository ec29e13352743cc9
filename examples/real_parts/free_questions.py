"""Questions in free form: about an instant, order, number, first and last, and for a description."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from examples.real_parts.clips import Clip, Scene
from examples.real_parts.questions import BOTH, Question, ask

SEEN, HEARD = frozenset(("visual",)), frozenset(("audio",))
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
TEXTS = {
    "order, words": (
        "What was the next word after {word}?",
        "Which word followed the word {word}?",
    ),
    "order, colours": (
        "Which colour came right before {colour}?",
        "What was the colour just before the {colour} shape?",
    ),
    "order, both": (
        "Which colour was shown right after the word {word} was said?",
        "What colour followed the one that was on screen during the word {word}?",
    ),
    "counting": (
        "How many words were said?",
        "Count the spoken words.",
    ),
    "first and last": (
        "What was the {place} word?",
        "Which word was said {place}?",
    ),
    "description": (
        "Describe the clip.",
        "Tell me what is shown and said, in order.",
    ),
}  # fmt: skip


class Form(NamedTuple):
    """A kind of question: ``draw`` gives a question about a clip, or None if the clip has no place for one."""

    kind: str
    draw: Callable[[Clip, random.Random], Question | None]


def _text(kind: str, choose: random.Random, **values: str) -> str:
    return choose.choice(TEXTS[kind]).format(**values)


def _spoken(clip: Clip) -> list[Scene]:
    return [scene for scene in clip.scenes if scene.word]


def _instant(kind: str) -> Callable[[Clip, random.Random], Question | None]:
    def draw(clip: Clip, choose: random.Random) -> Question | None:
        spoken = _spoken(clip)
        return ask(choose.choice(spoken), kind, choose) if spoken else None

    return draw


def _silence(clip: Clip, choose: random.Random) -> Question | None:
    silent = [scene for scene in clip.scenes if not scene.word]
    return ask(choose.choice(silent), "word", choose) if silent else None


def _next_word(clip: Clip, choose: random.Random) -> Question | None:
    spoken = _spoken(clip)
    if len(spoken) < 2:
        return None
    place = choose.randrange(len(spoken) - 1)
    text = _text("order, words", choose, word=spoken[place].word)
    return Question(text, f"It was {spoken[place + 1].word}.", "order, words", HEARD)


def _colour_before(clip: Clip, choose: random.Random) -> Question | None:
    place = choose.randrange(1, len(clip.scenes))
    text = _text("order, colours", choose, colour=clip.scenes[place].colour)
    return Question(text, f"It was {clip.scenes[place - 1].colour}.", "order, colours", SEEN)


def _colour_after_word(clip: Clip, choose: random.Random) -> Question | None:
    places = [place for place, scene in enumerate(clip.scenes[:-1]) if scene.word]
    if not places:
        return None
    place = choose.choice(places)
    text = _text("order, both", choose, word=clip.scenes[place].word)
    return Question(text, f"It was {clip.scenes[place + 1].colour}.", "order, both")


def _count(clip: Clip, choose: random.Random) -> Question | None:
    count = len(_spoken(clip))
    answer = "There was one." if count == 1 else f"There were {NUMBERS[count]}."
    return Question(_text("counting", choose), answer, "counting", HEARD)


def _first_or_last(clip: Clip, choose: random.Random) -> Question | None:
    spoken = _spoken(clip)
    if not spoken:
        return None
    place = choose.choice(("first", "last"))
    word = spoken[0 if place == "first" else -1].word
    return Question(_text("first and last", choose, place=place), f"It was {word}.", "first and last", HEARD)


def description_of(scenes: Sequence[Scene]) -> list[str]:
    """A phrase for each scene."""
    return [f"{scene.colour} with {'the word ' + scene.word if scene.word else 'silence'}" for scene in scenes]


def _describe(clip: Clip, choose: random.Random) -> Question | None:
    told = ", then ".join(description_of(clip.scenes))
    return Question(_text("description", choose), f"{told.capitalize()}.", "description")


FORMS = (
    Form("colour", _instant("colour")),
    Form("word", _instant("word")),
    Form("silence", _silence),
    Form("order, words", _next_word),
    Form("order, colours", _colour_before),
    Form("order, both", _colour_after_word),
    Form("counting", _count),
    Form("first and last", _first_or_last),
    Form("description", _describe),
)


def dialogue(clip: Clip, choose: random.Random, turns: int, streams: frozenset[str] = BOTH) -> list[Question]:
    """Questions of different kinds that the streams can answer; a description, which answers others, comes last."""
    drawn = [form.draw(clip, choose) for form in choose.sample(FORMS, len(FORMS))]
    asked = [question for question in drawn if question is not None and question.needs <= streams][:turns]
    return sorted(asked, key=lambda question: question.kind == "description")


def examination(clips: Sequence[Clip], *, seed: int = 7) -> list[tuple[int, Question]]:
    """Number of a clip, and a question: one of each kind about each clip that has a place for it."""
    choose = random.Random(seed)
    asked = [(number, form.draw(clip, choose)) for number, clip in enumerate(clips) for form in FORMS]
    return [(number, question) for number, question in asked if question is not None]


def phrases_right(expected: str, given: str) -> tuple[int, int]:
    """How many phrases of a description are right, each at its place, and how many there are to give or were given."""
    wanted, told = (text.strip().rstrip(".").lower().split(", then ") for text in (expected, given))
    return sum(one == other for one, other in zip(wanted, told, strict=False)), max(len(wanted), len(told))
