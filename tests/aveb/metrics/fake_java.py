"""Stands in for Java and the three programs that pycocoevalcap carries, with scores that a test can work out.

Words in common with the best reference are what METEOR counts here, and what SPICE's F1 is made of.
"""

import json
import os
import sys
from pathlib import Path


def share(said: str, right: str) -> tuple[int, int]:
    words, others = set(said.split()), set(right.split())
    return len(words & others), len(words | others)


def best(said: str, references: list[str]) -> tuple[int, int]:
    return max((share(said, right) for right in references), key=lambda counts: counts[0] / max(1, counts[1]))


def counts(said: str, references: list[str]) -> list[float]:
    """A row of METEOR's: words of both sides, 16 numbers of matches, pieces, matched words of both sides."""
    right = max(references, key=lambda text: share(said, text))
    matched, _ = share(said, right)
    lengths = len(set(said.split())), len(set(right.split()))
    return [
        float(number) for number in (*lengths, 0, 0, matched, matched, *[0] * 14, min(matched, 1), matched, matched)
    ]


def score(rows: list[list[float]]) -> float:
    """Of rows together. Like METEOR, one that matches wholly in one piece adds no piece."""
    pieces = [0.0 if row[0] == row[1] == row[4] and row[20] == 1 and len(rows) > 1 else row[20] for row in rows]
    return sum(row[4] for row in rows) / max(1.0, sum(row[1] for row in rows) + sum(pieces))


def meteor(line: str) -> list[str]:
    command, *parts = (part.strip() for part in line.split("|||"))
    if command == "SCORE":
        return [" ".join(map(str, counts(parts[-1], parts[:-1])))]
    rows = [[float(number) for number in part.split()] for part in parts]
    return [str(score(some)) for some in [*([row] for row in rows), rows]]


def spice(arguments: list[str]) -> None:
    asked, told = Path(arguments[0]), Path(arguments[arguments.index("-out") + 1])
    found = []
    for item in json.loads(asked.read_text()):
        common, either = best(item["test"], item["refs"])
        scores = {"All": {"f": common / either if either else None}}
        found.append({"image_id": item["image_id"], "scores": scores})
    told.write_text(json.dumps(found))


def main(arguments: list[str]) -> None:
    if arguments == ["-version"]:
        sys.stderr.write(os.environ.get("FAKE_JAVA_VERSION", 'openjdk version "1.8.0_392"\n'))
        return
    if message := os.environ.get("FAKE_JAVA_FAILS"):
        sys.exit(message)
    lines = sys.stdin.buffer.read().decode().split("\n")[:-1]
    program = next(name for name in ("PTBTokenizer", "meteor", "spice") if any(name in part for part in arguments))
    if program == "spice":
        spice(arguments[arguments.index("-jar") + 2 :])
        return
    answer = [text for line in lines for text in meteor(line)] if program == "meteor" else [t.lower() for t in lines]
    missing = int(os.environ.get("FAKE_JAVA_MISSES", "0"))
    sys.stdout.buffer.write("".join(f"{text}\n" for text in answer[missing:]).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
