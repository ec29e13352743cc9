"""Follows pages as a reader does: their blocks in order, in a new folder for each. Runs inside an environment.

``python follow.py FOLDER PAGE...``, with the name of the package's own folder in ``EXPECTED``.
"""

import doctest
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tests/docs/blocks.py, copied beside this file

from blocks import blocks_of, commands_of

import avfusion

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_ONLY_FIRST_FAILURE
# Where a page's commands need no more than the page itself.
COMMANDS_RUN = ("train_fsdp2.md", "evaluate.md")


def follow(page: Path, folder: Path) -> int:
    """How many blocks of a page failed."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    failed, names = 0, {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.caption:
            Path(block.caption).write_text(block.text)
        elif block.language == "python":
            failed += run_examples(block.text, names, f"{page.name}:{block.line}")
        elif block.language == "bash" and page.name in COMMANDS_RUN:
            failed += sum(not run_command(command) for command in commands_of(block))
    return failed


def run_examples(text: str, names: dict[str, object], place: str) -> int:
    test = doctest.DocTestParser().get_doctest(text, names, place, place, 0)
    test.globs = names
    return doctest.DocTestRunner(optionflags=FLAGS).run(test, clear_globs=False).failed


def run_command(command: str) -> bool:
    words = shlex.split(command)
    if words[0] == "pip":  # this environment
        return True
    if words[0] == "torchrun":  # its console script is torch's, which is linked and not installed here
        words = ["python", "-m", "torch.distributed.run", *words[1:]]
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{command}\n{done.stdout}\n{done.stderr}")
    return done.returncode == 0


def main(folder: Path, pages: list[Path]) -> int:
    inside = Path(avfusion.__file__).resolve()
    if not inside.is_relative_to(Path(sys.prefix).resolve()):
        print(f"avfusion: must come from {sys.prefix}, found {inside}")
        return 1
    warnings.simplefilter("ignore")  # a reader's warnings are no failure; the tests look at them
    failed = {page.name: follow(page, folder / page.stem) for page in pages}
    for name, count in failed.items():
        print(f"  {name}: {'followed' if not count else f'{count} failed'}")
    return min(1, sum(failed.values()))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), [Path(name).resolve() for name in sys.argv[2:]]))
