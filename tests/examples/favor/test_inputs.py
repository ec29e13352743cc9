"""What the model refuses: media tokens without media, and inputs that do not belong together."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import set_seed

from avfusion import InvalidValueError, PlaceholderError
from examples.favor import FavorForConditionalGeneration
from examples.favor.output import CACHE
from examples.favor.streams import media_inputs
from tests.examples.favor.model_tester import FavorModelTester

Ready = tuple[FavorForConditionalGeneration, dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def ready() -> Ready:
    """A model, three rows of text with media tokens and their media, and the features of these."""
    set_seed(0)
    config, inputs = FavorModelTester().prepare_config_and_inputs_for_common()
    model = FavorForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 2
    with torch.no_grad():
        features = model.encode(**{name: inputs[name] for name in media_inputs() if name in inputs})
    return model, inputs, features


def text_of(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "without a cache": {"use_cache": False},
    "in chunks": {"prefill_chunk_size": 3, "cache_implementation": "dynamic"},
}


@pytest.mark.parametrize("way", WAYS)
def test_media_tokens_without_media_are_refused(ready: Ready, way: str) -> None:
    model, inputs, _ = ready
    message = r"input_ids: must not hold the media token \(\d+\) where no media and no features are given; row 0 has"
    with pytest.raises(PlaceholderError, match=message):
        model.generate(**text_of(inputs), **WAYS[way], max_new_tokens=2)


@pytest.mark.parametrize("training", [False, True])
def test_so_does_forward_with_ids_or_embeddings(ready: Ready, training: bool) -> None:
    model, inputs, _ = ready
    text = text_of(inputs)
    embeds = model.get_input_embeddings()(text["input_ids"])
    model.train(training)
    try:
        for given_text in (text, {"inputs_embeds": embeds, "attention_mask": text["attention_mask"]}):
            with pytest.raises(PlaceholderError, match=r"(media|placeholder) token"):
                model(**given_text)
    finally:
        model.eval()


CHANGES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.booleans()), max_size=4)


@settings(max_examples=200)
@given(
    changes=CHANGES,
    source=st.sampled_from(["media", "features", "nothing"]),
    rows=st.lists(st.integers(-1, 2), min_size=3, max_size=3),
    chunk=st.sampled_from([None, 2, 5, 20]),
    beams=st.sampled_from([1, 2]),
)
@torch.no_grad()
def test_an_answer_is_given_only_where_every_place_has_its_embedding(
    ready: Ready, changes: list[tuple[int, int, bool]], source: str, rows: list[int], chunk: int | None, beams: int
) -> None:
    """Media tokens added and taken away, clips shared, lacking and left out: it fits, or it is refused."""
    model, inputs, features = ready
    token, ids = model.config.media_token_id, inputs["input_ids"].clone()
    for row, place, added in changes:
        ids[row, place] = token if added else 7
    text = {"input_ids": ids, "attention_mask": inputs["attention_mask"]}
    with_media = {name: value for name, value in inputs.items() if name not in text}
    media = {"media": with_media, "features": features, "nothing": {}}[source]
    index = {"media_index": torch.tensor(rows)} if media else {}
    wanted = [FavorModelTester.media_tokens * (source != "nothing" and clip >= 0) for clip in rows]
    fits = (ids == token).sum(1).tolist() == wanted
    options: dict[str, Any] = {"max_new_tokens": 1, "do_sample": False, "num_beams": beams}
    if chunk is None or chunk >= ids.shape[1]:
        if fits:
            model.generate(**text, **media, **index, **options)
            return
        with pytest.raises(PlaceholderError):
            model.generate(**text, **media, **index, **options)
        return
    # Chunks may be refused although the whole fits, but never give another answer.
    whole = model.generate(**text, **media, **index, **options) if fits else None
    try:
        found = model.generate(
            **text, **media, **index, **options, prefill_chunk_size=chunk, cache_implementation="dynamic"
        )
    except (PlaceholderError, ValueError):
        return
    assert whole is not None
    assert torch.equal(found, whole)


@pytest.mark.parametrize("name", ["video_mask", "video_spans", "audio_mask", "audio_times"])
def test_features_without_mask_or_times_are_refused(ready: Ready, name: str) -> None:
    model, inputs, features = ready
    with pytest.raises(InvalidValueError, match=rf"_features: must come with .*, found no {name}"):
        model(**text_of(inputs), **{key: value for key, value in features.items() if key != name})


def test_features_and_media_together_are_refused(ready: Ready) -> None:
    model, inputs, features = ready
    with pytest.raises(InvalidValueError, match="must not come with media, found pixel_values_videos"):
        model(**text_of(inputs), **features, pixel_values_videos=inputs["pixel_values_videos"])


def test_media_tokens_among_labels_are_refused(ready: Ready) -> None:
    model, inputs, _ = ready
    with pytest.raises(PlaceholderError, match=r"labels: must be -100 where .* the media token \(\d+\), found 12"):
        model(**inputs, labels=inputs["input_ids"])


def test_a_dialogue_goes_on_from_a_cache_without_media(ready: Ready) -> None:
    model, inputs, _ = ready
    begun = model(**inputs, use_cache=True)
    new = torch.full((3, 2), 7)
    whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], new], 1), "attention_mask": torch.ones(3, 15)}
    options = {"do_sample": False, "max_new_tokens": 2}
    text = {"input_ids": whole["input_ids"], "attention_mask": whole["attention_mask"]}
    assert torch.equal(model.generate(**text, **{CACHE: begun[CACHE]}, **options), model.generate(**whole, **options))
