"""How many answers of the table each way of reading them reads right: ``python -m benchmarks.parsers``.

lmms-eval's own code is run, from ``pip install --no-deps lmms-eval``; VLMEvalKit's rules are restated here, as it is
on no index. VLMEvalKit hands what its rules leave unread to a language model, which is not measured.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from avfusion.aveb.parsers import PARSER_VERSION, parse_choice, parse_yes_no

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "aveb" / "answers.jsonl"
RESULT = ROOT / "benchmarks" / "results" / "parsers.json"

Row = dict[str, Any]
Reader = Callable[[Row], int | bool | None]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parsers", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT, help="file of the results (%(default)s)")
    options = parser.parse_args(arguments)
    rows = read_table()
    readers: dict[str, dict[str, Reader]] = {
        "choice": {"avfusion": _ours, **_lmms_eval(), "VLMEvalKit (rules)": vlmevalkit_choice},
        "yes_no": {
            "avfusion": lambda row: parse_yes_no(row["answer"]),
            "first word, as in lmms-eval's NaturalBench": first_word,
            "VLMEvalKit (rules)": vlmevalkit_yes_no,
        },
    }
    figures = [
        {"kind": kind, "reader": name, **count([row for row in rows if row["kind"] == kind], reader)}
        for kind, named in readers.items()
        for name, reader in named.items()
    ]
    versions = {"parser_version": PARSER_VERSION, "lmms_eval": importlib.metadata.version("lmms-eval")}
    content = {**versions, "figures": figures}
    options.out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    for figure in figures:
        print(
            "{kind:<7} {reader:<43} {right:>4} right {unread:>4} unread {wrong:>4} wrong of {answers}".format(**figure)
        )


def read_table() -> list[Row]:
    """The answers with their right readings."""
    return [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]


def count(rows: Sequence[Row], reader: Reader) -> dict[str, int]:
    """Answers read right, left unread though they decide, and read wrong: as another, or as one where none is."""
    read = [(row["right"], reader(row)) for row in rows]
    right = sum(said == meant for meant, said in read)
    unread = sum(said is None and meant is not None for meant, said in read)
    return {"answers": len(rows), "right": right, "unread": unread, "wrong": len(rows) - right - unread}


def _ours(row: Row) -> int | None:
    return parse_choice(row["answer"], row["options"])


def _letters(row: Row) -> list[str]:
    return [chr(ord("A") + place) for place in range(len(row["options"]))]


def _lmms_eval() -> dict[str, Reader]:
    extract = _load("tasks/_task_utils/mcq_extract.py").extract_mcq_answer
    mmmu = _load("tasks/_task_utils/mmmu_mcq_utils.py").parse_mmmu_multi_choice_response

    def by_priority(row: Row) -> int | None:
        letter = extract(row["answer"], _letters(row))
        return ord(letter) - ord("A") if letter else None

    def as_mmmu(row: Row) -> int | None:
        random.seed(0)  # it guesses where it can read nothing
        letters = _letters(row)
        return ord(mmmu(row["answer"], letters, dict(zip(letters, row["options"], strict=True)))) - ord("A")

    return {"lmms-eval, extract_mcq_answer": by_priority, "lmms-eval, MMMU's": as_mmmu}


def _load(path: str) -> ModuleType:
    """One file of lmms-eval, without the package around it and what that needs."""
    files = importlib.util.find_spec("lmms_eval")
    if files is None or files.submodule_search_locations is None:
        raise SystemExit("needs lmms-eval: pip install --no-deps lmms-eval")
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(files.submodule_search_locations[0]) / path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"lmms-eval has no {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def vlmevalkit_choice(row: Row) -> int | None:
    """A capital that is the only option's among the words, within the last five; else the only option's text contained.

    Texts count only in answers at most twice as long as all options together.
    """
    answer: str = row["answer"]
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", answer).split()
    named = [letter for letter in _letters(row) if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return ord(named[0]) - ord("A")
    if len(answer) > 2 * sum(map(len, row["options"])):
        return None
    inside = [place for place, text in enumerate(row["options"]) if text.lower() in answer.lower()]
    return inside[0] if len(inside) == 1 else None


def vlmevalkit_yes_no(row: Row) -> bool | None:
    """One of the words "yes" and "no" without the other."""
    words = set(re.sub(r"[^\w\s]", " ", row["answer"].lower()).split())
    return "yes" in words if ("yes" in words) != ("no" in words) else None


def first_word(row: Row) -> bool | None:
    """The first "yes" or "no" that is a word of its own."""
    found = re.search(r"\b(yes|no)\b", row["answer"], re.IGNORECASE)
    return None if found is None else found.group(1).lower() == "yes"


if __name__ == "__main__":
    main()
