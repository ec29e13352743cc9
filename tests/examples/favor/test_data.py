"""Instruction data: every format says the same, what is wrong is named, and modalities are dropped repeatably."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from avfusion import InvalidValueError, MediaError
from avfusion.media import write_video
from examples.favor.data import Conversations
from examples.favor.records import Example, read_examples
from examples.favor.tiny import tiny
from tests.examples.favor.training import asking, write_clips, write_lines


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny()[1]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": asking(Path("a.mp4"), "yes")},
        {"video": "a.mp4", "conversation": [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "yes"}]},
        {"image_name": "a.mp4", "conversation": [["what?", "yes"]]},
        {"image": ["a.mp4"], "question": "what?", "answer": "yes", "answer_candidates": ["yes", "no"]},
    ],
)
@pytest.mark.parametrize("as_lines", [True, False])
def test_every_format_gives_the_same_conversation(record: Any, as_lines: bool, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    file = tmp_path / "data.json"
    file.write_text(json.dumps(record) + "\n\n" if as_lines else json.dumps([record], indent=1))
    (example,) = read_examples([file])
    assert example.messages == asking(tmp_path / "a.mp4", "yes")


def test_pictures_and_sound_may_come_from_two_files_and_another_folder(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for name in ("a.mp4", "a.wav", "b.jpg"):
        (media / name).touch()
    dialogue = [["q1", "a1"], ["q2", "a2"]]
    records = [
        {"image_name": ["a.mp4", "a.wav"], "conversation": dialogue},
        {"image": "b.jpg", "question": "q", "answer": ["x", "y", "x"]},
    ]
    file = write_lines(tmp_path / "data.jsonl", records)
    both, first, second = read_examples([file], media_root=media)
    assert [(part["type"], part.get("path")) for part in both.messages[0]["content"]] == [
        ("video", str(media / "a.mp4")),
        ("audio", str(media / "a.wav")),
        ("text", None),
    ]
    assert [message["role"] for message in both.messages] == ["user", "assistant"] * 2
    assert both.messages[2]["content"] == "q2"
    assert [one.messages[1]["content"] for one in (first, second)] == ["x", "y"]
    assert first.messages[0]["content"][0]["type"] == "image"


GOOD = json.dumps({"question": "q", "answer": "a"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "\n{oops\n", r"data\.jsonl:2: not JSON"),
        ("[\n" + GOOD + ",\n3]", r"data\.jsonl\[1\]: a record must be an object, found int"),
        ("[1,\n", r"data\.jsonl:2: not JSON"),
        ('{"question": "q"}', r"data\.jsonl:1: a record must have .* found \['question'\]"),
        ('{"question": "q", "answer": 3}', r"data\.jsonl:1: .* must be strings, found 3"),
        ('{"conversation": [["q"]]}', r"data\.jsonl:1: conversation: a turn must"),
        ('{"conversation": [{"from": "cat", "value": "q"}]}', r"data\.jsonl:1: from: .* found 'cat'"),
        ('{"conversation": [{"from": "human", "value": "q"}]}', r"data\.jsonl:1: messages: must be questions and answ"),
        ('{"video": "no.mp4", "conversation": [["q", "a"]]}', r"data\.jsonl:1: video: no such file, .*no\.mp4"),
        ('{"video": ["a", "b"], "conversation": [["q", "a"]]}', r"data\.jsonl:1: video: must have one video track"),
        ('{"messages": []}', r"data\.jsonl:1: messages: must be a list that is not empty"),
        ('{"messages": [{"role": "cat", "content": "q"}]}', r"data\.jsonl:1: messages: each must have the role"),
        ('{"messages": [{"role": "user", "content": [{"type": "smell"}]}]}', r"data\.jsonl:1: content: a part must"),
        ("\n", r"data: must hold at least one record"),
    ],
)
def test_a_bad_record_is_named(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidValueError, match=expected):
        read_examples([file])


def test_media_that_cannot_be_read_are_named_with_their_record(tmp_path: Path, processor: Any) -> None:
    (tmp_path / "a.mp4").write_text("no film")
    file = write_lines(tmp_path / "data.jsonl", [{"messages": asking(tmp_path / "a.mp4", "yes")}])
    with pytest.raises(MediaError, match=r"data\.jsonl:1: .*a\.mp4"):
        Conversations(read_examples([file]), processor=processor)[0]


def test_only_answers_are_learned(clips: dict[str, Path], processor: Any) -> None:
    dialogue = [
        *asking(clips["red hum"], "red"),
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": "hum"},
    ]
    plain = [{"role": "user", "content": "hello?"}, {"role": "assistant", "content": "hi"}]
    data = Conversations([Example(dialogue, "1"), Example(plain, "2")], processor=processor)
    batch = processor.collate([data[0], data[1]])
    learned = [row[row != -100] for row in batch["labels"]]
    assert [processor.tokenizer.decode(row) for row in learned] == ["red</s>hum</s>", "hi</s>"]
    assert batch["attention_mask"][:, 0].all()  # padding stands on the right
    assert batch["media_index"].tolist() == [0, -1]


def _shown(clip: Any) -> str:
    return " and ".join(name for name, track in (("video", clip.video), ("audio", clip.waveform)) if track is not None)


def test_a_clip_is_never_left_without_both(clips: dict[str, Path], processor: Any, tmp_path: Path) -> None:
    mute = tmp_path / "mute.mp4"
    write_video(mute, torch.zeros(4, 3, 32, 32), frame_rate=4.0)
    files = [Example(asking(clips["red hum"], "a"), "1"), Example(asking(mute, "a"), "2")]
    for drop, shown in (({"drop_audio": 1.0}, "video"), ({"drop_video": 1.0}, "audio")):
        data = Conversations(files, processor=processor, **drop)
        assert [_shown(data[index][0]["content"][0]["video"]) for index in range(2)] == [shown, "video"]


def test_dropout_depends_on_seed_epoch_and_index_alone(processor: Any) -> None:
    examples = [Example(asking(Path("a.mp4"), "a"), str(index)) for index in range(600)]
    first, again, other = (
        Conversations(examples, processor=processor, drop_audio=0.3, drop_video=0.2, seed=seed) for seed in (1, 1, 2)
    )
    drawn = {}
    for epoch in (0, 1):
        for data in (first, again, other):
            data.set_epoch(epoch)
        drawn[epoch] = [first.dropped(index) for index in range(600)]
        assert drawn[epoch] == [again.dropped(index) for index in reversed(range(600))][::-1]
        assert drawn[epoch] != [other.dropped(index) for index in range(600)]
    assert drawn[0] != drawn[1]
    assert 130 < drawn[0].count("audio") < 230
    assert 80 < drawn[0].count("video") < 160


def test_workers_that_outlive_an_epoch_see_the_next(clips: dict[str, Path], processor: Any) -> None:
    examples = [Example(asking(clips["red hum"], "a"), str(index)) for index in range(12)]
    data = Conversations(examples, processor=processor, drop_audio=0.5, drop_video=0.5)
    loader: Any = DataLoader(
        data, batch_size=None, num_workers=1, persistent_workers=True, collate_fn=lambda row: row[0]["content"][0]
    )
    for epoch in (0, 1):
        data.set_epoch(epoch)
        expected = ["video" if data.dropped(index) == "audio" else "audio" for index in range(12)]
        assert [_shown(part["video"]) for part in loader] == expected


@pytest.mark.parametrize("drop", [{"drop_audio": -0.1}, {"drop_audio": 0.6, "drop_video": 0.6}])
def test_probabilities_that_are_none_are_refused(drop: Any, processor: Any) -> None:
    with pytest.raises(InvalidValueError, match="drop_audio, drop_video: must be probabilities"):
        Conversations([], processor=processor, **drop)
