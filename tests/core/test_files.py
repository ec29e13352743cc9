"""Whole files and locked folders, whatever happens to the process that writes."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from avfusion import InvalidValueError
from avfusion.files import disk_errors, locked, new_folder, write_whole

ROOT = Path(__file__).parents[2]
TEXTS = [letter * 200_000 for letter in "ab"]
# Without torch, so that a process is there at once.
START = f"""
import os, shutil, sys, time, types
package = sys.modules["avfusion"] = types.ModuleType("avfusion")
package.__path__ = [{str(ROOT / "avfusion")!r}]
from avfusion.errors import InvalidValueError
from avfusion.files import locked, new_folder, write_whole
"""
WRITER = """
print(flush=True)
while True:
    for letter in "ab":
        if sys.argv[2] == "file":
            with locked(sys.argv[1]):
                write_whole(sys.argv[1] + "/a.json", letter * 200_000)
        else:
            with new_folder(sys.argv[1] + "/" + letter) as part:
                for name in "xyz":
                    (part / name).write_text(letter)
            shutil.rmtree(sys.argv[1] + "/" + letter)
"""
HOLDER = """
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def run(script: str, *arguments: str) -> "subprocess.Popen[str]":
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", START + script, *arguments], **pipes)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_a_file_that_is_killed_while_it_is_written_is_whole_and_leaves_nothing(tmp_path: Path) -> None:
    choose = random.Random(0)
    for _ in range(20):
        process = run(WRITER, str(tmp_path), "file")
        time.sleep(choose.uniform(0, 0.1))
        end(process)
        assert not (tmp_path / "a.json").exists() or (tmp_path / "a.json").read_text() in TEXTS
        with locked(tmp_path):
            write_whole(tmp_path / "a.json", TEXTS[0])
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_is_killed_while_it_is_made_is_not_there(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "set"
    if exists:
        folder.mkdir()
    killed = run(HOLDER.replace("locked(", "new_folder("), str(folder))
    end(killed)
    assert not folder.exists() or [path.name for path in folder.iterdir()] == [".part"]
    with new_folder(folder) as part:
        assert [path.name for path in part.iterdir()] == [".lock"]
        (part / "a").write_text("a")
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_folders_that_are_killed_at_drawn_moments(tmp_path: Path) -> None:
    choose = random.Random(1)
    for _ in range(20):
        process = run(WRITER, str(tmp_path), "folder")
        time.sleep(choose.uniform(0, 0.05))
        end(process)
        for letter in "ab":
            if (tmp_path / letter).exists():  # whole, unless it was being taken away again
                # A kill just after the folder got its name leaves the lock in it, which nobody holds.
                assert {path.name for path in (tmp_path / letter).iterdir()} <= {*"xyz", ".lock"}
                for path in (tmp_path / letter).iterdir():
                    path.unlink()
                (tmp_path / letter).rmdir()
            with new_folder(tmp_path / letter) as part:
                (part / "x").write_text("x")
            (tmp_path / letter / "x").unlink()
            (tmp_path / letter).rmdir()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "new folder", "file"])
def test_two_at_once_are_noticed_and_a_killed_one_is_not_in_the_way(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "file":
        path.write_text("")
    elif kind == "folder":
        path.mkdir()
    other = run(HOLDER, str(path))
    in_use = rf"one process at a time, found .*out in use by process {other.pid}$"
    with pytest.raises(InvalidValueError, match=in_use), locked(path):
        pass
    end(other)
    with locked(path), pytest.raises(InvalidValueError, match=f"in use by process {os.getpid()}"), locked(path):
        pass
    with locked(path):
        pass
    assert not [one for one in tmp_path.rglob("*") if "lock" in one.name]


COUNT = """
def count(folder):
    for _ in range(60):
        while True:
            try:
                with locked(folder):
                    with open(folder + "/n") as file:
                        number = int(file.read())
                    write_whole(folder + "/n", str(number + 1))
                break
            except InvalidValueError:
                time.sleep(0.001)
"""


def test_no_two_threads_and_no_two_processes_are_in_at_once(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("0")
    threads = "import threading\nfor thread in [threading.Thread(target=count, args=sys.argv[1:]) for _ in range(2)]:\n"
    others = [run(f"{COUNT}{threads}    thread.start()\nprint(flush=True)", str(tmp_path)) for _ in range(2)]
    for one in others:
        one.communicate()
        assert one.returncode == 0
    assert (tmp_path / "n").read_text() == "240"
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    script = """
with locked(sys.argv[1]):
    child = os.fork()
    if not child:
        time.sleep(60)
    print(child, flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", START + script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


# --- A disk that is full. ---

FAILURES: list[Exception] = [
    *(OSError(code, os.strerror(code)) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0"),
    RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
]


@settings(max_examples=200)
@given(
    failure=st.sampled_from(FAILURES),
    wrapped=st.integers(0, 3),
    written=st.integers(0, 100),
    before=st.none() | st.binary(max_size=5),
    at_once=st.booleans(),
)
def test_what_cannot_be_written_is_one_clear_error_and_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    failure: Exception,
    wrapped: int,
    written: int,
    before: bytes | None,
    at_once: bool,
) -> None:
    folder = tmp_path_factory.mktemp("full")
    path = folder / "a.bin"
    if before is not None:
        path.write_bytes(before)

    def write(part: Path) -> None:
        if not at_once:
            part.write_bytes(bytes(written))
        try:
            raise failure
        except Exception as error:
            for depth in range(wrapped):
                if depth % 2:
                    raise ValueError("could not save") from error
                raise TypeError from None if depth else error
            raise

    with pytest.raises(OSError, match=r"^(?:\[Errno \d+\] .*: .*a\.bin.*)$") as caught:
        write_whole(path, write)
    assert caught.value.errno
    assert (path.read_bytes() if before is not None else None) == before
    assert [one.name for one in folder.iterdir()] == (["a.bin"] if before is not None else [])


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), disk_errors(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError, match="gone"), disk_errors(tmp_path):
        (tmp_path / "gone").read_text()
    with pytest.raises(RuntimeError, match="shape"):
        write_whole(tmp_path / "a", lambda _: (_ for _ in ()).throw(RuntimeError("a shape")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_torch_s_own_words_for_a_full_disk_are_known(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left|disk may be full"), disk_errors(tmp_path / "a.pt"):
        torch.save(torch.zeros(1_000_000), "/dev/full")
