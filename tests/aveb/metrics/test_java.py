"""METEOR, SPICE, SPIDEr and the Penn Treebank tokeniser: what they ask their programs, and how they refuse.

A stand-in plays Java, so that nothing here needs one. Where there is one, the tokeniser is also compared with it.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from avfusion.aveb._text import caption_words
from avfusion.aveb.metrics import _java, make_metric
from avfusion.aveb.metrics.cider import cider_d
from tests.aveb.metrics import fake_java
from tests.aveb.metrics.samples import ADVERSARIAL, CAPTIONS

JARS = [
    "meteor/meteor-1.5.jar",
    "spice/spice-1.0.jar",
    "spice/lib/stanford-corenlp-3.6.0.jar",
    "spice/lib/stanford-corenlp-3.6.0-models.jar",
    "tokenizer/stanford-corenlp-3.4.1.jar",
]
SAID = ["a dog barks", "rain falls on a roof", "", "the man speaks"]
RIGHT = [["a dog barks loudly", "dog"], ["rain on a roof", "it rains"], ["silence"], ["the man speaks", "a man"]]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pycocoevalcap with empty programs, and a Java that plays them."""
    for name in JARS:
        file = tmp_path / "package" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    program = tmp_path / "home" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake_java.__file__}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(_java, "package_folder", lambda: tmp_path / "package")
    return tmp_path / "package"


@pytest.mark.usefixtures("package")
def test_meteor_is_of_counts_over_the_whole_set() -> None:
    metric = make_metric("meteor", resamples=40)
    metric.update(SAID[:1], RIGHT[:1])
    metric.update(SAID[1:], RIGHT[1:])
    expected = fake_java.score([fake_java.counts(said, right) for said, right in zip(SAID, RIGHT, strict=True)])
    score = metric.compute()
    assert score.value == expected
    assert score.interval[0] < score.value < score.interval[1]
    assert score == metric.compute()


@pytest.mark.usefixtures("package")
def test_meteor_is_not_led_astray_by_its_own_separator() -> None:
    metric = make_metric("meteor", resamples=1)
    metric.update(["a ||| dog\nbarks", "rain"], [["a dog ||| barks"], ["snow"]])
    assert metric.compute().value == 3 / 4


@pytest.mark.usefixtures("package")
def test_spice_is_the_mean_of_items_and_spider_of_it_and_cider() -> None:
    found = {}
    for key in ("spice", "spider"):
        metric = make_metric(key)
        metric.update([*SAID, ""], [*RIGHT, [""]])
        found[key] = metric.compute()
    said, right = [*SAID, ""], [*RIGHT, [""]]
    counts = [fake_java.best(*pair) for pair in zip(said, right, strict=True)]
    spice = sum(a / max(1, b) for a, b in counts) / len(counts)
    cider = sum(cider_d(said, right)) / len(said)
    assert found["spice"].value == pytest.approx(spice, rel=1e-12)
    assert found["spider"].value == pytest.approx((spice + cider) / 2, rel=1e-12)


@pytest.mark.usefixtures("package")
def test_penn_tokeniser_is_asked_and_its_punctuation_dropped() -> None:
    assert _java.penn_treebank(["A Dog ; barks .", "", " \u2028 ", "東京\n`` x"]) == ["a dog barks", "", "", "東京 x"]
    metric = make_metric("cider", tokeniser="penn")
    metric.update(["A DOG", "rain"], [["a dog"], ["rain"]])
    assert metric.compute().value == pytest.approx(sum(cider_d(["a dog", "rain"], [["a dog"], ["rain"]])) / 2)


@pytest.mark.parametrize("key", ["meteor", "spice", "spider"])
def test_refuses_without_java(key: str, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(package))
    with pytest.raises(RuntimeError, match="needs Java, which is not in JAVA_HOME"):
        make_metric(key)
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(package))
    with pytest.raises(RuntimeError, match="needs Java, which is not in the path; nothing else gives the same numbers"):
        make_metric(key)


@pytest.mark.parametrize("key", ["meteor", "spice", "spider"])
def test_refuses_without_package(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs pycocoevalcap, .*: pip install pycocoevalcap"):
        make_metric(key)


@pytest.mark.parametrize(
    ("key", "jar", "message"),
    [
        ("meteor", JARS[0], r"METEOR needs .*meteor-1\.5\.jar, which is missing"),
        ("meteor", JARS[4], r"The Penn Treebank tokeniser needs .*, which is missing"),
        ("spice", JARS[1], r"SPICE needs .*spice-1\.0\.jar, which is missing"),
        ("spice", JARS[2], r"3\.6\.0\.jar, which is missing; python -m pycocoevalcap.* fetches it"),
        ("spider", JARS[3], r"3\.6\.0-models\.jar, which is missing; python -m"),
    ],
)
def test_refuses_without_a_program(key: str, jar: str, message: str, package: Path) -> None:
    (package / jar).unlink()
    with pytest.raises(RuntimeError, match=message):
        make_metric(key)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("version", "message"),
    [
        ('openjdk version "17.0.15" 2025-04-15', "SPICE needs Java 8 to 15, found 17; JAVA_HOME can name another"),
        ('java version "1.7.0_80"', "SPICE needs Java 8 to 15, found 7"),
        ("what?", "SPICE needs to know the version of Java, which says 'what\\?'"),
    ],
)
def test_refuses_another_java(version: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_JAVA_VERSION", version)
    for key in ("spice", "spider"):
        with pytest.raises(RuntimeError, match=message):
            make_metric(key)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "version", ['java version "1.8.0_392"', 'openjdk version "11.0.2"', 'openjdk version "15" 2020']
)
def test_accepts_a_fitting_java(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_JAVA_VERSION", version)
    make_metric("spider")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("key", ["meteor", "spice", "spider"])
def test_says_what_java_said_when_it_fails(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = make_metric(key, tokeniser="words")
    metric.update(SAID, RIGHT)
    monkeypatch.setenv("FAKE_JAVA_FAILS", "out of memory")
    with pytest.raises(RuntimeError, match=r"failed in Java: .*out of memory"):
        metric.compute()


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(("tokeniser", "name"), [("words", "METEOR"), ("penn", "The Penn Treebank tokeniser")])
def test_lost_lines_are_noticed(tokeniser: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = make_metric("meteor", tokeniser=tokeniser)
    metric.update(SAID, RIGHT)
    monkeypatch.setenv("FAKE_JAVA_MISSES", "1")
    with pytest.raises(RuntimeError, match=f"{name} gave .* lines"):
        metric.compute()


def test_words_are_those_of_the_real_penn_tokeniser() -> None:
    """On the captions that Java-less runs are compared by; where Java is, that is, otherwise on words alone."""
    captions = [*CAPTIONS, "Two dogs, one black & one U.S. flag; it costs $5.00!", 'They\'ll say "cannot" at 10:30.']
    expected = [" ".join(caption_words(caption)) for caption in captions]
    assert all(expected)
    if shutil.which("java"):
        assert _java.penn_treebank(captions) == expected
        assert len(_java.penn_treebank(ADVERSARIAL)) == len(ADVERSARIAL)


def test_meteor_is_that_of_the_real_program() -> None:
    """The number is pycocoevalcap's own on these captions."""
    if shutil.which("java"):
        metric = make_metric("meteor", resamples=1)
        said = [*CAPTIONS, "a dog", "ab || c"]
        metric.update(said, [[CAPTIONS[(number + 1) % 6], CAPTIONS[0]] for number in range(8)])
        assert metric.compute().value == pytest.approx(0.16812657352089908, rel=1e-12)
