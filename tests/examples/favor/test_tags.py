"""``<video>`` and its like in a question are the place of the media, wherever they stand."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfusion import InvalidValueError
from examples.favor.questions import read_questions
from examples.favor.records import read_examples
from examples.favor.tags import TAGS, place_media
from examples.favor.tiny import tiny
from tests.examples.favor.media import clip
from tests.examples.favor.training import write_lines

FILES = {"video": "a.mp4", "audio": "a.wav", "image": "a.jpg"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("media")
    for name in FILES.values():
        (place / name).touch()
    return place


def read(folder: Path, **record: Any) -> list[dict[str, Any]]:
    (example,) = read_examples([write_lines(folder / "data.jsonl", [record])])
    return example.messages


def dialogue(*questions: str) -> list[dict[str, str]]:
    return [turn for text in questions for turn in ({"from": "human", "value": text}, {"from": "gpt", "value": "yes"})]


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<video>\nWhat happens?", "What happens?"),
        ("What happens?\n<video>", "What happens?"),
        ("<video>", ""),
        ("<video></video>What happens?", "What happens?"),
        ("<image>\nWhat happens?", "What happens?"),  # LLaVA-Video's data
        ("<video> <audio>\nWhat happens?", "What happens?"),
        ("Look at <video> and tell.", "Look at and tell."),
        ("First.\n<video>\nThen?", "First.\nThen?"),
        ("  Indented, without a tag.", "  Indented, without a tag."),
        ("Is `<video>` HTML?", "Is `<video>` HTML?"),
        ("<video>\nIs `<video>` HTML?\n```\n<audio>\n```", "Is `<video>` HTML?\n```\n<audio>\n```"),
        ("```\n<video> that does not end", "```\n<video> that does not end"),
        ("<Video> <videos> <video src=x> </video>", "<Video> <videos> <video src=x> </video>"),
    ],
)
def test_a_tag_is_the_place_of_the_video(folder: Path, text: str, rest: str) -> None:
    messages = read(folder, video="a.mp4", conversations=dialogue(text))
    assert messages[0]["content"] == [
        {"type": "video", "path": str(folder / "a.mp4")},
        {"type": "text", "text": rest},
    ]


def test_the_prompt_holds_the_media_alone(tmp_path: Path) -> None:
    file = clip(tmp_path / "a.mp4")
    messages = read(tmp_path, video=file, conversations=dialogue("<video>\nWhat happens?"))
    text = tiny()[1].apply_chat_template(messages, tokenize=False)
    assert text == "USER: <Img><unk></Img> What happens?\nASSISTANT:yes</s>"


def test_media_stand_in_the_turn_that_has_the_tag(folder: Path) -> None:
    messages = read(folder, video="a.mp4", conversations=dialogue("Hello.", "<video>\nWhat is it?", "And?"))
    assert [message["content"] for message in messages[::2]] == [
        "Hello.",
        [{"type": "video", "path": str(folder / "a.mp4")}, {"type": "text", "text": "What is it?"}],
        "And?",
    ]


def test_answers_and_system_messages_are_text(folder: Path) -> None:
    turns = [{"from": "system", "value": "<audio>"}, *dialogue("q")]
    turns[-1]["value"] = "Write <video> there."
    messages = read(folder, conversations=turns)
    assert [message["content"] for message in messages] == ["<audio>", "q", "Write <video> there."]


@pytest.mark.parametrize("beside", [{"videos": ["a.mp4"]}, {"video": "a.mp4"}])
def test_messages_may_have_their_media_beside_them(folder: Path, beside: dict[str, Any]) -> None:
    said = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "x"}]
    (content, _) = (message["content"] for message in read(folder, messages=said, **beside))
    assert content == [{"type": "video", "path": str(folder / "a.mp4")}, {"type": "text", "text": "What?"}]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"conversations": dialogue("<video>\nq")}, r"<video> must stand for video, found no media; as text, write"),
        ({"image": "a.jpg", "conversations": dialogue("<video>\nq")}, r"<video> must stand for video, found image"),
        ({"image": "a.jpg", "conversations": dialogue("<sound>\nq")}, r"<sound> must stand for audio or video, fou"),
        ({"audio": "a.wav", "conversations": dialogue("<image>q")}, r"<image> must stand for image or video, found au"),
        ({"video": "a.mp4", "conversations": dialogue("<video>q<video>")}, r"one tag for the pictures .*<video>, <v"),
        ({"video": "a.mp4", "conversations": dialogue("<image>q<video>")}, r"one tag for the pictures .*<image>, <v"),
        ({"video": "a.mp4", "conversations": dialogue("<video>q", "<audio>")}, r"must be in one turn, found them in 2"),
        ({"video": "a.mp4", "question": "<audio><speech>", "answer": "a"}, r"one for the sound, .*<audio>, <speech>"),
        ({"image": ["a.jpg", "a.jpg"], "conversations": dialogue("<image><image>q")}, r"must have one video track"),
        ({"video": "a.mp4", "conversations": [{"from": "gpt", "value": "a"}]}, r"must have a question for the media"),
    ],
)  # fmt: skip
def test_tags_that_do_not_fit_the_media_are_refused(folder: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"data\.jsonl:1: .*{message}"):
        read(folder, **record)


WORDS = st.sampled_from(["What", "is", "this?", "\n", " ", "`<video>`", "<b>", "```\n<audio>\n```", "ünï", "<unk"])
PIECES = st.lists(st.one_of(WORDS, st.sampled_from([f"<{tag}>" for tag in TAGS])), max_size=6)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(PIECES, min_size=1, max_size=4),
    kinds=st.sampled_from([(), ("video",), ("audio",), ("image",), ("video", "audio"), ("image", "audio")]),
    form=st.sampled_from(["conversations", "messages", "beside"]),
)
def test_every_dialogue_is_read_whole_or_refused(
    folder: Path, turns: list[list[str]], kinds: tuple[str, ...], form: str
) -> None:
    """No tag is left in a question, no word of one is lost, and the media stand in the turn that names them."""
    texts = ["".join(pieces) for pieces in turns]
    tags = [(number, piece[1:-1]) for number, pieces in enumerate(turns) for piece in pieces if piece[1:-1] in TAGS]
    pictures = [tag for _, tag in tags if tag in ("video", "image")]
    named = {number for number, _ in tags}
    media = {kind: FILES[kind] for kind in kinds}
    said = [{"role": role, "content": text} for text in texts for role in ("user", "assistant")]
    said = [{**turn, "content": "yes"} if turn["role"] == "assistant" else turn for turn in said]
    if form == "conversations":
        record: dict[str, Any] = {"conversations": dialogue(*texts), **media}
    elif form == "beside" or not kinds:
        record = {"messages": said, **media}
    else:  # parts in the first question
        parts = [{"type": kind, "path": path} for kind, path in media.items()]
        said[0]["content"] = [*parts, {"type": "text", "text": texts[0]}]
        record = {"messages": said}
        named |= {0}
    fits = (
        len(named) <= 1
        and len(pictures) <= 1
        and len(tags) - len(pictures) <= 1
        and all(set(TAGS[tag]) & set(kinds) for _, tag in tags)
    )
    if not fits:
        with pytest.raises(InvalidValueError, match="messages: "):
            read(folder, **record)
        return
    found = read(folder, **record)[::2]
    place = next(iter(named), 0)
    for number, (message, pieces) in enumerate(zip(found, turns, strict=True)):
        content = message["content"]
        at = [part["type"] for part in content if part["type"] != "text"] if isinstance(content, list) else []
        assert sorted(at) == (sorted(kinds) if number == place else [])
        text = content if isinstance(content, str) else content[-1]["text"]
        words = "".join(piece for piece in pieces if piece[1:-1] not in TAGS)
        assert "".join(text.split()) == "".join(words.split())
        if not any(piece[1:-1] in TAGS for piece in pieces):
            assert text == "".join(pieces)


def test_questions_are_read_alike(folder: Path) -> None:
    lines = [{"prompt": "<video>\nWhat?", "video": "a.mp4"}, {"prompt": "<audio> q"}]
    file = write_lines(folder / "questions.jsonl", lines[:1])
    assert read_questions(file)[0].messages[0]["content"][-1] == {"type": "text", "text": "What?"}
    write_lines(file, lines)
    with pytest.raises(InvalidValueError, match=r"questions\.jsonl:2: messages: <audio> must stand for audio or video"):
        read_questions(file)


def test_what_is_given_stays_as_it_is() -> None:
    given_messages = [{"role": "user", "content": [{"type": "text", "text": "<image> q"}]}]
    before = json.dumps(given_messages)
    place_media(given_messages, [{"type": "image", "path": "a.jpg"}])
    assert json.dumps(given_messages) == before
