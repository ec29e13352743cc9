"""The data card of a generated set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import avfusion
from avfusion.aveb.mini.oracle import judge
from avfusion.aveb.mini.vocabulary import COLOURS, DIGITS, DIRECTIONS, SHAPES, SOUNDS, VOICES
from avfusion.aveb.readers import read_records
from avfusion.aveb.records import Record
from avfusion.aveb.runner.answers import Answer
from avfusion.aveb.runner.scoring import score_answers
from avfusion.aveb.tasks import get_task

_WITHOUT_JAVA = {"spider": "cider"}

_TEXT = """# Mini-AVEB

The eleven tasks of the audio-visual evaluation benchmark on media that a program made. Nothing in it was recorded or
downloaded; it is free for any use (CC0 1.0).

Made by avfusion {version} (`python -m avfusion.aveb mini`), difficulty {difficulty}, seed {seed}; {packages}.

{counts}

Pictures are 64 pixels a side, videos have 8 a second, sound is at 22.05 kHz. Colours: {colours}. Shapes: {shapes}.
Sounds: {sounds}. Words: the colours, {words}. Voices: {voices}.

| task | metric | the right answer | the best answer that is always the same |
| --- | --- | ---: | ---: |
{table}

Both columns are on the split `{split}`, times 100 (CIDEr-D: its own scale, 0 to 10, times 100). `truth.jsonl` says what
is in each file. Captions are scored with CIDEr-D here, which needs no Java; the task's own SPIDEr does.
"""


def card(folder: Path, counts: Mapping[str, int], tasks: Sequence[str], *, seed: int, difficulty: str) -> str:
    """The text of the card, from the records that are there."""
    split = [*counts][-1]
    rows = []
    for task in tasks:
        records = read_records(task, folder / split / f"{task}.jsonl")
        right = _score(records, [record.references[0] for record in records])
        rows.append(f"| {get_task(task).title} | {_metric(task)} | {right:.1f} | {blind_chance(records):.1f} |")
    return _TEXT.format(
        version=avfusion.__version__,
        difficulty=difficulty,
        seed=seed,
        packages=", ".join(f"{name} {version(name)}" for name in ("av", "espeakng-loader", "numpy", "pillow")),
        counts="; ".join(f"{split}: {count} items a task" for split, count in counts.items()),
        colours=", ".join(COLOURS),
        shapes=", ".join(SHAPES),
        sounds=", ".join(SOUNDS),
        words=", ".join((*DIGITS, *DIRECTIONS)),
        voices=", ".join(f"{name} at {speed} words a minute" for name, speed, _ in VOICES),
        table="\n".join(rows),
        split=split,
    )


def blind_chance(records: Sequence[Record]) -> float:
    """What the best answer that is always the same scores, times 100: the most frequent ones are tried.

    For multiple choice it is the best position.
    """
    if records[0].candidates is not None:
        places = Counter(record.answer_index for record in records)
        return 100 * places.most_common(1)[0][1] / len(records)
    frequent = [text for text, _ in Counter(record.references[0] for record in records).most_common(8)]
    scores = [_score(records, [text] * len(records)) for text in frequent]
    return min(scores) if get_task(records[0].task).metric == "wer" else max(scores)


def _metric(task: str) -> str:
    own = get_task(task).metric
    return _WITHOUT_JAVA.get(own, own)


def _score(records: Sequence[Record], said: Sequence[str]) -> float:
    answers = [Answer.of(record, record, text) for record, text in zip(records, said, strict=True)]
    found = score_answers(answers, judge=judge, resamples=1, metric=_metric(records[0].task))
    return 100 * found.scores[_metric(records[0].task)].value
