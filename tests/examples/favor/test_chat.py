"""The command line: answers, files of answers, and one line for every mistake."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from examples.favor.__main__ import main
from examples.favor.tiny import tiny
from tests.examples.favor.media import clip

SHORT = ["--max-new-tokens", "6"]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("media")
    clip(folder / "whole.mp4")
    clip(folder / "silent.mp4", sound=False, seed=1)
    (folder / "broken.mp4").write_bytes((folder / "whole.mp4").read_bytes()[:600])
    (folder / "bad.jsonl").write_text('{"prompt": "hi"}\n{"prompt": \n')
    (folder / "gone.jsonl").write_text('{"prompt": "hi", "video": "gone.mp4"}\n')
    (folder / "ends.jsonl").write_text('{"messages": [{"role": "assistant", "content": "hi"}]}\n')
    (folder / "empty").mkdir()
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text('{"model_type": "llama"}')
    return folder


def test_an_answer(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["chat", "--model", "tiny", "--video", str(media / "whole.mp4"), "--prompt", "what?", *SHORT]
    assert main(ask) == 0
    first = capsys.readouterr()
    assert first.out.strip()
    assert first.err == ""
    assert main(ask) == 0
    assert capsys.readouterr().out == first.out


def test_a_dialogue_keeps_what_was_said(
    media: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, processor = tiny()
    asked = []
    real = type(processor).apply_chat_template

    def listen(self: Any, conversation: Any, *args: Any, **options: Any) -> Any:
        asked.append([message["role"] for message in conversation[0]])
        return real(self, conversation, *args, **options)

    monkeypatch.setattr(type(processor), "apply_chat_template", listen)
    monkeypatch.setattr("sys.stdin", io.StringIO("what?\n\nand where?\n"))
    assert main(["chat", "--model", "tiny", "--video", str(media / "whole.mp4"), *SHORT]) == 0
    assert asked == [["user"], ["user", "assistant", "user"]]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--video", "{}/gone.mp4"], "video: no such file"),
        (["--audio", "{}/silent.mp4"], "holds no audio"),
        (["--video", "{}/broken.mp4"], "broken.mp4:"),
        (["--video", "{}/whole.mp4", "--image", "{}/whole.mp4"], "conversation: must have at most one video track"),
        (["--model", "nothing"], "model: must be a preset"),
        (["--model", "{}/empty"], "holds neither config.json nor"),
        (["--model", "{}/other"], "must hold a favor model, found 'llama'"),
        (["--device", "cuda:99"], "device: must be one of cpu"),
        (["--device", "nonsense"], "device: must be one of cpu"),
        (["--quantize", "4bit"], "quantize: "),
        (["--attn-implementation", "nonsense"], "model: tiny cannot be loaded"),
        (["--max-new-tokens", "0"], "max_new_tokens: must be at least 1"),
        (["--top-p", "2"], "top_p: must be above 0"),
        (["--out", "x"], "data, out: must be given together"),
        (["--data", "x", "--out", "y"], "data: must be given without prompt"),
        (["--data", "{}/bad.jsonl", "--out", "{}/out", "no prompt"], "bad.jsonl:2: not JSON"),
        (["--data", "{}/gone.jsonl", "--out", "{}/out", "no prompt"], "gone.jsonl:1: video: no such file"),
        (["--data", "{}/ends.jsonl", "--out", "{}/out", "no prompt"], "ends.jsonl:1: messages: must be questions"),
        (["--data", "{}/none.jsonl", "--out", "{}/out", "no prompt"], "No such file"),
    ],
)
def test_a_mistake_is_one_line(
    media: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    given = [option.format(media) for option in options]
    prompt = [] if "no prompt" in given else ["--prompt", "what?"]
    given = [option for option in given if option != "no prompt"]
    assert main(["chat", "--model", "tiny", *SHORT, *prompt, *given]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert message in printed.err


def test_quantisation_needs_its_library(
    media: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["chat", "--model", "tiny", "--prompt", "hi", "--quantize", "4bit"]) == 2
    assert capsys.readouterr().err == "quantize: 4bit must have bitsandbytes installed, found it missing\n"


def batch(media: Path, out: Path, name: str = "all.jsonl") -> list[str]:
    return ["chat", "--model", "tiny", "--data", str(media / name), "--out", str(out), "--batch-size", "2", *SHORT]


@pytest.mark.parametrize("cut", [0, 1, 60])
def test_a_run_that_was_cut_goes_on(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int) -> None:
    turns = [{"role": "user", "content": [{"type": "audio", "audio": "whole.mp4"}, {"type": "text", "text": "hm?"}]}]
    records = [
        {"prompt": "a", "video": "whole.mp4"},
        {"prompt": "b", "video": "silent.mp4", "id": 5},
        {"messages": turns},
        {"prompt": "d", "answer": "of the data"},
        {"prompt": "e", "audio": "whole.mp4"},
    ]
    (media / "all.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert main(batch(media, whole)) == 0
    found = [json.loads(line) for line in whole.read_text(encoding="utf-8").splitlines()]
    assert [{**line, "answer": None} for line in found] == [{**record, "answer": None} for record in records]
    lines = whole.read_bytes().split(b"\n")
    out.write_bytes(b"\n".join(lines[:3]) + b"\n" + lines[3][:cut])
    assert main(batch(media, out)) == 0
    again = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert again == found
    before = out.read_bytes()
    assert main(batch(media, out)) == 0
    assert out.read_bytes() == before
    capsys.readouterr()


def test_answers_to_other_questions_are_left_alone(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (media / "one.jsonl").write_text('{"prompt": "a"}\n')
    out = tmp_path / "out.jsonl"
    out.write_text('{"prompt": "b", "answer": "x"}\nrest')
    assert main(batch(media, out, "one.jsonl")) == 2
    assert "out.jsonl:1: must answer the record in the same place" in capsys.readouterr().err
    assert out.read_text() == '{"prompt": "b", "answer": "x"}\nrest'


def test_a_broken_clip_does_not_keep_others_from_their_answers(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (media / "mixed.jsonl").write_text('{"prompt": "a", "video": "broken.mp4"}\n{"prompt": "b"}\n')
    out = tmp_path / "out.jsonl"
    assert main(batch(media, out, "mixed.jsonl")) == 2
    first, second = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert "broken.mp4" in first["error"]
    assert second["answer"]
    assert "mixed.jsonl:1: " in capsys.readouterr().err.splitlines()[-1]
