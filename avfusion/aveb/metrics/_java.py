"""Programs in Java that pycocoevalcap carries: found, asked and refused in one place. Nothing is ever downloaded."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# As the COCO caption evaluation has it. Brackets are upper case here and lower case in what comes back: they stay.
_DROPPED = {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"}


def package_folder() -> Path | None:
    """Where pycocoevalcap is installed, if it is."""
    found = importlib.util.find_spec("pycocoevalcap")
    places = [] if found is None else list(found.submodule_search_locations or [])
    return Path(places[0]) if places else None


def require(file: str, *, of: str) -> Path:
    """A file of pycocoevalcap, once it and Java are known to be there.

    Raises:
        ImportError: pycocoevalcap is missing.
        RuntimeError: the file or Java is missing.
    """
    folder = package_folder()
    if folder is None:
        raise ImportError(f"{of} needs pycocoevalcap, which carries its Java program: pip install pycocoevalcap")
    if not (folder / file).is_file():
        raise RuntimeError(f"{of} needs {folder / file}, which is missing")
    java(of=of)
    return folder / file


def java(*, of: str) -> str:
    """The Java to run: that of ``JAVA_HOME``, else the one on the path.

    Raises:
        RuntimeError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        where = f"JAVA_HOME = {home}" if home else "the path"
        raise RuntimeError(f"{of} needs Java, which is not in {where}; nothing else gives the same numbers")
    return found


def java_release(*, of: str) -> int:
    """The release of that Java: 8 for 1.8, else the first number of its version.

    Raises:
        RuntimeError: it does not run or says no version.
    """
    try:
        told = subprocess.run([java(of=of), "-version"], capture_output=True, text=True, check=False).stderr
    except OSError as error:
        raise RuntimeError(f"{of} needs a Java that runs: {error}") from error
    version = re.search(r'version "(?:1\.)?(\d+)', told)
    if version is None:
        raise RuntimeError(f"{of} needs to know the version of Java, which says {told.strip()[:200]!r}")
    return int(version.group(1))


def run(arguments: Sequence[str], lines: Sequence[str], *, of: str, folder: Path) -> list[str]:
    """What a Java program answers to lines of text.

    Raises:
        RuntimeError: it fails; the message ends with what it said.
    """
    command = [java(of=of), "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", *arguments]
    text = "".join(f"{line}\n" for line in lines)
    try:
        done = subprocess.run(
            command, input=text.encode("utf-8", "replace"), capture_output=True, check=True, cwd=folder
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        raise RuntimeError(f"{of} failed in Java: {error}; {said.decode('utf-8', 'replace').strip()[-500:]}") from error
    return done.stdout.decode("utf-8", "replace").split("\n")[:-1]


def penn_treebank(texts: Sequence[str]) -> list[str]:
    """Captions as the COCO caption evaluation tokenises them, a space between words.

    Raises:
        RuntimeError: Java or the tokeniser fails.
        ImportError: pycocoevalcap is missing.
    """
    of = "The Penn Treebank tokeniser"
    jar = require("tokenizer/stanford-corenlp-3.4.1.jar", of=of)
    program = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    found = run([*program, *options], [" ".join(text.split()) for text in texts], of=of, folder=jar.parent)
    if len(found) != len(texts):
        raise RuntimeError(f"{of} gave {len(found)} lines for {len(texts)} captions")
    return [" ".join(word for word in line.split() if word not in _DROPPED) for line in found]
