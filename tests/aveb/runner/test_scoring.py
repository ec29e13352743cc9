"""Figures: those of the metrics, those of answers that are always the same, and of published files."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avfusion import InvalidValueError
from avfusion.aveb.commands.score import as_json
from avfusion.aveb.metrics import make_metric
from avfusion.aveb.parsers import PARSER_VERSION
from avfusion.aveb.runner import (
    Answer,
    as_html,
    as_markdown,
    baselines,
    chart,
    load_answers,
    run_task,
    score_answers,
)
from tests.aveb.runner.models import Hashing, choices


def answers(task: str, said: list[tuple[str, str]]) -> list[Answer]:
    return [Answer(id=str(n), task=task, prediction=text, references=(right,)) for n, (text, right) in enumerate(said)]


def test_the_score_is_that_of_the_task_s_metric() -> None:
    said = answers("asr", [("a cat sat", "the cat sat"), ("hello", "hello world"), ("", "yes")])
    metric = make_metric("wer")
    metric.update([one.prediction for one in said], [one.references for one in said], ids=["0", "1", "2"])
    score = score_answers(said)
    assert score.scores == {"wer": metric.compute()}
    assert (score.items, score.failed, score.missing) == (3, 0, {})


def test_a_record_that_failed_counts_as_wrong() -> None:
    said = answers("avm", [("Yes.", "yes"), ("", "yes")])
    said[1] = Answer(id="1", task="avm", prediction="", references=("yes",), error="broken.wav: broken")
    score = score_answers(said)
    assert (score.scores["yes_no"].value, score.scores["yes_no"].unparsed, score.failed) == (0.5, 0.5, 1)


def test_captions_have_all_their_figures_or_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    said = answers("ac", [("a dog barks", "a dog barks loudly"), ("rain falls", "rain is falling")])
    score = score_answers(said)
    assert {*score.scores} | {*score.missing} == {"cider", "meteor", "spice", "spider"}
    assert "cider" in score.scores
    assert "ava" in score.missing["spider"]
    assert "not scored" in as_markdown({"mine": {"ac": score}})


def test_free_text_needs_a_judge() -> None:
    said = answers("avsd", [("he sings", "he is singing"), ("no", "yes")])
    assert score_answers(said).missing == {"judge": "needs a judge of your own"}
    judged = score_answers(said, judge=lambda question, references, prediction: float("sing" in prediction))
    assert judged.scores["judge"].value == 0.5
    spoken = answers("isqa", [("dell", "dell")])
    assert {*score_answers(spoken).scores} == {"exact_match"}
    assert {*score_answers(spoken, judge=lambda *_: 1.0).scores} == {"exact_match", "judge"}


def test_a_set_whose_third_option_is_right_is_found_out(tmp_path: Path) -> None:
    found = baselines(run_task(Hashing(), choices(200), tmp_path))
    assert found["always option C, as published"] == 1.0
    [shown] = (share for name, share in found.items() if name.endswith("as shown"))
    assert 0.2 <= shown < 0.35


def test_repeated_items_count_once() -> None:
    said = answers("avm", [("yes", "yes"), ("no", "yes")])
    assert score_answers(said + said) == score_answers(said)


def test_published_json_scores_as_a_run_does(tmp_path: Path) -> None:
    records = choices(6, place=1, options=3)
    rows = [
        {
            "image_name": ["a.mp4", "a.wav"],
            "question": "Which?",
            "answer_candidates": list(record.candidates or ()),
            "answer": record.references[0],
            "gen_answer": ["option 1", "option 2", "B", "", "nothing", "C"][number],
        }
        for number, record in enumerate(records)
    ]
    (tmp_path / "gen.json").write_text(json.dumps(rows))
    (tmp_path / "gen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    array, lines = (score_answers(load_answers(tmp_path / name, "ego4d_qa")) for name in ("gen.json", "gen.jsonl"))
    assert array == lines
    assert array.scores["multiple_choice"].value == pytest.approx(2 / 6)
    assert array.scores["multiple_choice"].unparsed == pytest.approx(2 / 6)
    assert array.baselines["always option B, as published"] == 1.0


def test_a_run_s_own_file_says_its_task(tmp_path: Path) -> None:
    path = tmp_path / "avm.jsonl"
    said = answers("avm", [("yes", "yes")])
    path.write_text(said[0].line())
    assert load_answers(path) == said
    with pytest.raises(InvalidValueError, match="must hold answers to asr, found avm"):
        load_answers(path, "asr")
    (tmp_path / "gen.json").write_text('[{"answer": "a", "gen_answer": "b"}]')
    with pytest.raises(InvalidValueError, match="does not say its task"):
        load_answers(tmp_path / "gen.json")
    (tmp_path / "gen.json").write_text('[{"answer": "a", "gen_answer": "b"}, {"answer": "a"}]')
    with pytest.raises(InvalidValueError, match=r'gen.json\[1\]: a record must have "gen_answer"'):
        load_answers(tmp_path / "gen.json", "ocr")


def test_reports_escape_what_they_show() -> None:
    score = score_answers(answers("avm", [("yes", "yes"), ("no", "no")]))
    page = as_html({"<b>|": {"avm": score}})
    assert "<b>|" not in page
    assert "&lt;b&gt;|" in page
    assert r"&lt;b&gt;\|" in as_markdown({"<b>|": {"avm": score}})


def test_the_report_has_every_task_and_the_published_figures() -> None:
    runs = {"mine": {task: score_answers(answers(task, [("yes", "yes")])) for task in ("asr", "avm")}}
    lines = as_markdown(runs).splitlines()
    assert len(lines) == 6
    assert lines[5] == f"Answers read by avfusion's parsers, version {PARSER_VERSION}."
    assert lines[5] in as_html(runs)
    assert as_json(runs["mine"]["avm"])["parser_version"] == PARSER_VERSION
    assert "wer ↓" in lines[2]
    chosen = score_answers([*_chosen()])
    assert "| 49.3 | 21 |" in as_markdown({"mine": {"video_qa": chosen}})


def _chosen() -> list[Answer]:
    given = {"task": "video_qa", "prediction": "A", "references": ("x",), "candidates": ("x", "y")}
    return [Answer(id=str(n), **given) for n in range(3)]  # type: ignore[arg-type]


LETTERS = [*"ab_|<>&*`[]()!#$~\\\n\r\u2028\x00\udc80 -", "<img src=x>", "](http://x)"]
NAMES = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=8).map("".join)


@settings(max_examples=200)
@given(name=NAMES)
def test_what_a_run_is_called_is_shown_literally(name: str) -> None:
    said = [Answer(id="1", task="avm", prediction="Yes.", references=("yes",))]
    runs = {name: {"avm": score_answers(said, resamples=2)}}
    *lines, blank, _ = as_markdown(runs).splitlines()
    assert len(lines) == 3
    assert blank == ""
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(re.findall(r"\|", lines[1]))
        assert not re.search(r"<|(?<!\\)(?:\\\\)*[`*\[\]~$!]", line)
    page = as_html(runs)
    page.encode()
    assert "<img" not in page
    assert page.count("<td>") == page.count("<th>")


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", ["_hidden", "$x", "$\\frac$", "a$b$", "<b>&--></svg>", "\n", "ä"])
def test_every_name_is_in_the_chart(name: str) -> None:
    said = [Answer(id="1", task="avm", prediction="Yes.", references=("yes",))]
    scores = {"avm": score_answers(said, resamples=2)}
    assert chart({name: scores}).count("</svg>") == 1
    other = chart({name: scores, "other": scores})
    assert len(other) > len(chart({"other": scores}))
