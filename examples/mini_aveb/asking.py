"""More questions about a clip than its record asks, from what the generator says is in it: training only."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from avfusion.aveb import Record
from avfusion.aveb.mini import DIGITS
from examples.mini_aveb.labels import THINGS

MOST = {"video": 6, "image": 2}
"""Questions about one clip in a step: what happens when is harder to learn than what there is."""


def ask(record: Record, truth: Mapping[str, Any], choose: random.Random) -> list[Record]:
    """The record, and a few others about the same files, asked in the ways of the benchmark's tasks."""
    found = []
    if "scenes" in truth:
        found += [_follows(record, truth["scenes"], choose) for _ in range(3)]
    if "scenes" in truth and "sounds" in truth:
        found += _while_heard(record, truth)
    if record.image is not None and len(truth.get("things", ())):
        found += _about_things(record, truth["things"])
    most = MOST["image" if record.video is None else "video"]
    return [record, *choose.sample(found, min(len(found), most - 1))]


def _follows(record: Record, scenes: Sequence[str], choose: random.Random) -> Record:
    """As video QA asks: what comes right after or right before."""
    place = choose.randrange(1, len(scenes))
    after = choose.random() < 0.5
    shown, right = (scenes[place - 1], scenes[place]) if after else (scenes[place], scenes[place - 1])
    others = [name for name in scenes if name not in (shown, right)]
    more = choose.sample([name for name in THINGS if name not in scenes], 4)
    candidates = choose.sample([right, *[*others, *more][:4]], 5)
    return replace(
        record,
        task="video_qa",
        question=f"What is shown right {'after' if after else 'before'} the {shown}?",
        history=(),
        references=(right,),
        candidates=tuple(candidates),
        answer_index=candidates.index(right),
    )


def _while_heard(record: Record, truth: Mapping[str, Any]) -> list[Record]:
    """As the dialogues ask: what is shown while a sound is heard."""
    return [
        replace(record, question=f"What is shown while the {sound} is heard?", references=(shown,))
        for shown, sound in zip(truth["scenes"], truth["sounds"], strict=True)
        if truth["sounds"].count(sound) == 1
    ]


def _about_things(record: Record, things: Sequence[Sequence[Any]]) -> list[Record]:
    """As VQA asks: how many, which colour, which shape."""
    shapes = Counter(shape for _, shape, *_ in things)
    asked = [("How many shapes are there?", DIGITS[len(things) - 1])]
    asked += [(f"Which colour is the {shape}?", colour) for colour, shape, *_ in things if shapes[shape] == 1]
    asked += [(f"Which shape is {colour}?", shape) for colour, shape, *_ in things]
    return [replace(record, task="vqa", question=text, references=(right,)) for text, right in asked]
