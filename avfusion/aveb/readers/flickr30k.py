"""Flickr30k in Karpathy's JSON: all splits in one file, five sentences to a picture."""

from collections.abc import Iterable, Iterator
from typing import Any

from avfusion.aveb.readers.fields import as_list, as_object, as_text, find
from avfusion.aveb.readers.layout import Context, Layout, listed, stem
from avfusion.aveb.readers.source import Source, Unit
from avfusion.aveb.records import Record


def _matches(source: Source) -> bool:
    return source.form == "object" and isinstance(source.value, dict) and "images" in source.value


def _units(source: Source, _: Context) -> Iterator[Unit]:
    return listed(source.value["images"], "images")


def _build(raw: Any, context: Context) -> Iterable[Record]:
    record = as_object(raw)
    if as_text(find(record, "split"), "split") != context.split:
        return []
    name = as_text(find(record, "filename"), "filename")
    sentences = as_list(find(record, "sentences"), "sentences")
    captions = tuple(as_text(find(as_object(sentence), "raw"), "sentences") for sentence in sentences)
    image = context.media.find(name)
    return [Record(id=stem(name), task=context.task.name, image=image, references=captions)]


FLICKR30K = Layout(
    name="Karpathy's splits",
    looks_for='a JSON object with "images", each with "filename", "split" and "sentences"',
    tasks=frozenset({"ic"}),
    matches=_matches,
    units=_units,
    build=_build,
)
