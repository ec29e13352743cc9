"""Batches of kept tokens are what the model would get from the files."""

import random
from pathlib import Path

import pytest
import torch

from avfusion.aveb.mini import generate
from avfusion.media import collate_media
from examples.mini_aveb.data import Item, batches, collate, read, read_split
from examples.mini_aveb.fitting import fit
from examples.mini_aveb.keeping import Pairs, encode, items_of, read_items, read_towers, write
from examples.mini_aveb.model import Variant, build_model
from examples.mini_aveb.settings import SMOKE
from examples.mini_aveb.text import as_prompt, build_tokenizer
from examples.mini_aveb.towers import Towers
from examples.mini_aveb.train import answer

TASKS = ("asr", "ic", "video_qa", "avsd", "isqa", "avm")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    folder = generate(tmp_path_factory.mktemp("mini") / "data", items={"test": 2}, tasks=TASKS)
    return read_split(folder / "test", TASKS)


@pytest.fixture(scope="module")
def towers() -> Towers:
    torch.manual_seed(0)
    return Towers().eval()


@pytest.fixture(scope="module")
def items(pairs: Pairs, towers: Towers) -> list[Item]:
    return items_of(encode(towers, pairs), pairs)


@pytest.mark.parametrize("frame_rate", [8.0, 4.0, 2.0])
def test_thinned_tokens_are_those_of_files_read_at_that_rate(
    pairs: Pairs, towers: Towers, items: list[Item], frame_rate: float
) -> None:
    audio, vision = towers.encoders(frozen=True)
    for (record, _), item in zip(pairs, items, strict=True):
        media = read(record, frame_rate)
        assert media is not None
        video, waveform = collate_media([media])
        features = collate([item], frame_rate)
        assert features.keys() == {name for name, of in (("visual", video), ("audio", waveform)) if of is not None}
        if video is not None:
            frames = vision(video)
            assert torch.equal(frames.mask, features["visual"].mask)
            torch.testing.assert_close(frames.spans, features["visual"].spans, atol=1e-3, rtol=0)
            torch.testing.assert_close(frames.tokens, features["visual"].tokens, atol=0.02, rtol=0.01)
        if waveform is not None:
            stream = audio(waveform)
            real = stream.mask[0]
            assert torch.equal(features["audio"].mask[0], torch.ones(int(real.sum()), dtype=torch.bool))
            torch.testing.assert_close(stream.tokens[0, real], features["audio"].tokens[0], atol=0.02, rtol=0.01)
            torch.testing.assert_close(stream.timestamps[0, real], features["audio"].timestamps[0], atol=1e-3, rtol=0)


def test_a_batch_holds_what_each_item_gives_alone(items: list[Item]) -> None:
    together = collate(items, 4.0)
    for row, item in enumerate(items):
        for name, alone in collate([item], 4.0).items():
            real = alone.mask[0]
            assert torch.equal(together[name].mask[row].nonzero(), real.nonzero())
            assert torch.equal(together[name].tokens[row][together[name].mask[row]], alone.tokens[0][real])


def test_kept_tokens_come_back(pairs: Pairs, towers: Towers, items: list[Item], tmp_path: Path) -> None:
    write(encode(towers, pairs), tmp_path / "tokens.safetensors")
    write(towers.state_dict(), tmp_path / "towers.safetensors")
    for item, back in zip(items, read_items(tmp_path / "tokens.safetensors", pairs), strict=True):
        assert item[:2] == back[:2]
        for one, other in zip(item[2:], back[2:], strict=True):
            assert (one is None and other is None) or torch.equal(one, other)
    other = read_towers(tmp_path / "towers.safetensors").state_dict()
    assert all(torch.equal(value, other[name]) for name, value in towers.state_dict().items())
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 2


def test_an_epoch_has_every_item_once(items: list[Item]) -> None:
    drawn = batches(items, 5, random.Random(0))
    for _ in range(2):
        assert sorted(place for _ in range(3) for place in next(drawn)) == [*range(len(items))]


def test_the_tokenizer_knows_prompts_and_answers(pairs: Pairs) -> None:
    from examples.mini_aveb.data import request_of

    asked = [request_of(record, 0) for record, _ in pairs]
    tokenizer = build_tokenizer([text for request, right in asked for text in (as_prompt(request), right)])
    for record, _ in pairs:
        for seed in range(3):
            request, right = request_of(record, seed)
            ids = tokenizer(f"{as_prompt(request)} {right}")["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert ids.count(tokenizer.convert_tokens_to_ids("<av>")) == 1
        assert right.lower() in tokenizer.decode(tokenizer(right)["input_ids"])


def test_training_is_the_same_for_a_seed(pairs: Pairs, towers: Towers, items: list[Item]) -> None:
    tokenizer = build_tokenizer(["yes no"])
    first, again, other = (fit(towers, tokenizer, items, Variant("full"), SMOKE, seed=seed) for seed in (0, 0, 1))
    states = [model.connector.state_dict() for model in (first, again, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_answers_do_not_depend_on_the_batch(pairs: Pairs, towers: Towers, items: list[Item]) -> None:
    from examples.mini_aveb.data import request_of

    requests = [request_of(record, 0)[0] for record, _ in pairs]
    tokenizer = build_tokenizer(map(as_prompt, requests))
    torch.manual_seed(0)
    model = build_model(Variant("full"), towers, tokenizer).eval()
    together = answer(model, tokenizer, collate(items, 4.0), requests)
    alone = [
        answer(model, tokenizer, collate([item], 4.0), [request]) for item, request in zip(items, requests, strict=True)
    ]
    assert [[text] for text in together] == alone
