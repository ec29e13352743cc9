"""Reads broken files by the thousand: ``python -m benchmarks.fuzz --files 10000``."""

import argparse
import contextlib
import hashlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from benchmarks import machine
from benchmarks.fuzz.mutations import mutated
from benchmarks.fuzz.seeds import seeds, suffix_of

RESULT = Path(__file__).parents[1] / "results" / "fuzz_media.json"
FINE = ("ok", "media_error", "value_error")


class Outcome(NamedTuple):
    """What came of a file.

    Attributes:
        kind: one of ``FINE``, ``"undeclared"``, ``"memory"``, ``"timeout"`` or ``"crash"``.
        words: more about it.
        seconds: that it took.
        mebibytes: the most memory that the process has needed so far, beside its own.
    """

    kind: str
    words: str
    seconds: float
    mebibytes: float


class Worker:
    """A process that reads files, and is started anew when one of them ends it.

    Args:
        memory: mebibytes that it may take beside its own.
        timeout: seconds for a file.
    """

    def __init__(self, memory: float, timeout: float) -> None:
        self._memory, self._timeout = memory, timeout
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> Outcome:
        process = self._process if self._process is not None else self._start()
        writing, reading = _open(process.stdin), _open(process.stdout)
        started = time.perf_counter()
        with contextlib.suppress(BrokenPipeError):
            writing.write(f"{path}\n")
            writing.flush()
        line = _line(reading, self._timeout)
        seconds = time.perf_counter() - started
        if line:
            words, took, most = json.loads(line)
            return Outcome(words.partition(":")[0], words, took, most)
        late = line is None
        self.close()
        return Outcome(
            "timeout" if late else "crash", f"after {seconds:.1f} s, status {process.returncode}", seconds, 0.0
        )

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                _open(process.stdin).close()
            _open(process.stdout).close()

    def _start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "benchmarks.fuzz.worker", str(self._memory)]
        quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)  # type: ignore[call-overload]
        if _line(_open(self._process.stdout), 600.0) != "ready\n":
            raise RuntimeError("a worker did not start")
        return self._process


def _open(file: IO[str] | None) -> IO[str]:
    assert file is not None
    return file


def _line(file: IO[str], timeout: float) -> str | None:
    """The next line, ``""`` at the end, None when it does not come."""
    with selectors.DefaultSelector() as ready:
        ready.register(file, selectors.EVENT_READ)
        return file.readline() if ready.select(timeout) else None


def run(*, files: int, seed: int, memory: float, timeout: float, offenders: Path | None) -> dict[str, object]:
    """Reads so many files and counts what comes of them."""
    whole, worker = seeds(), Worker(memory, timeout)
    counts: Counter[str] = Counter()
    words: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {}
    longest, most, content = 0.0, 0.0, hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(files):
            name, data = mutated(whole, seed, index)
            content.update(data)
            path = Path(folder) / f"file{suffix_of(name)}"
            path.write_bytes(data)
            outcome = worker.read(path)
            counts[outcome.kind] += 1
            by_kind.setdefault(name, Counter())[outcome.kind] += 1
            longest, most = max(longest, outcome.seconds), max(most, outcome.mebibytes)
            if outcome.kind not in FINE:
                words[outcome.words] += 1
                print(f"{index} {name} {outcome.words}", flush=True)
                if offenders is not None:
                    offenders.mkdir(parents=True, exist_ok=True)
                    (offenders / f"{seed}_{index}_{outcome.kind}{suffix_of(name)}").write_bytes(data)
        worker.close()
    return {
        "files": files,
        "seeds": len(whole),
        "outcomes": {kind: counts[kind] for kind in (*FINE, "undeclared", "memory", "timeout", "crash")},
        "longest_seconds": round(longest, 2),
        "most_mebibytes": round(most),
        "offences": dict(words.most_common(20)),
        "by_seed": {name: dict(found) for name, found in sorted(by_kind.items())},
        "content": content.hexdigest(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description="Reads broken media files.")
    parser.add_argument("--files", type=int, default=500, help="how many (500)")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (0): the same seed draws the same files")
    parser.add_argument("--memory", type=float, default=6144.0, help="mebibytes for a process (6144)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for a file (60)")
    parser.add_argument("--offenders", type=Path, help="folder for files that end in anything but a declared error")
    parser.add_argument("--out", type=Path, help=f"file of the result, such as benchmarks/results/{RESULT.name}")
    options = parser.parse_args(arguments)
    settings = {"seed": options.seed, "memory_mebibytes": options.memory, "timeout_seconds": options.timeout}
    ran_on = machine.describe("cpu")
    found = run(
        files=options.files,
        seed=options.seed,
        memory=options.memory,
        timeout=options.timeout,
        offenders=options.offenders,
    )
    print(json.dumps({key: value for key, value in found.items() if key != "by_seed"}, indent=2))
    if options.out is not None:
        result = {"suite": "fuzz_media", **ran_on, "settings": settings, **found}
        options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    outcomes = found["outcomes"]
    assert isinstance(outcomes, dict)
    return int(sum(outcomes[kind] for kind in FINE) < options.files)


if __name__ == "__main__":
    sys.exit(main())
