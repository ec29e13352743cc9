"""A folder in which stages leave what they made: files, towers, and the towers' tokens."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter, process_time

import torch
from transformers import PreTrainedTokenizerFast

from avfusion.aveb import read_records
from avfusion.aveb.mini import MAKERS, generate
from avfusion.errors import InvalidValueError
from avfusion.files import write_whole
from examples.mini_aveb.data import Item, media_of, read_split, request_of
from examples.mini_aveb.keeping import Pairs, encode, read_items, read_towers, write
from examples.mini_aveb.pretrain import pretrain_towers
from examples.mini_aveb.scoring import constants
from examples.mini_aveb.settings import Settings
from examples.mini_aveb.text import as_prompt, build_tokenizer
from examples.mini_aveb.towers import Towers

SPLITS = ("train", "test")
_TOWER_ITEMS = 300  # of each task; their media are in memory together


class Workplace:
    """A folder in which stages leave what they made; one that is cut begins that stage again.

    Args:
        out: the folder. It must have been begun with the same settings, or not at all.
        settings: kept in it.

    Raises:
        InvalidValueError: a folder of other settings.
    """

    def __init__(self, out: Path, settings: Settings) -> None:
        self.out, self.settings = out, settings
        self.data = out / "data"
        path = out / "settings.json"
        if path.exists():
            known = json.loads(path.read_text())
            if known != asdict(settings):
                raise InvalidValueError(
                    f"out: {out} was begun with {known}, found {asdict(settings)}; name another folder"
                )
        else:
            out.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(asdict(settings)) + "\n")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the stage's seconds to ``seconds.json``."""
        wall, processor = perf_counter(), process_time()
        yield
        seconds = self.seconds()
        seconds[name] = {"wall": round(perf_counter() - wall, 1), "processor": round(process_time() - processor, 1)}
        write_whole(self.out / "seconds.json", json.dumps(seconds, indent=1) + "\n")

    def seconds(self) -> dict[str, dict[str, float]]:
        """Wall and processor seconds of each stage when it was done."""
        path = self.out / "seconds.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def pairs(self, split: str) -> Pairs:
        """Records of a split with the generator's truth."""
        return read_split(self.data / split)

    def items(self, split: str) -> list[Item]:
        """Records of a split with the towers' tokens."""
        return read_items(self._tokens(split), self.pairs(split))

    def _tokens(self, split: str) -> Path:
        return self.out / f"{split}.safetensors"

    def always_the_same(self) -> dict[str, float]:
        """What the best answer that is always the same scores in each task of the test split."""
        return constants({task: read_records(task, self.data / "test" / f"{task}.jsonl") for task in MAKERS})

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Knows the words of the training split, its candidates and answers included."""
        asked = [request_of(record, 0) for record, _ in self.pairs("train")]
        return build_tokenizer([text for request, answer in asked for text in (as_prompt(request), answer)])

    def prepare(self) -> Towers:
        """Files, towers and tokens; what is there is taken as it is."""
        settings, towers_file = self.settings, self.out / "towers.safetensors"
        if not (self.data / "README.md").exists():  # the card is written last
            shutil.rmtree(self.data, ignore_errors=True)
            with self.stage("files"):
                items = {"train": settings.train_items, "test": settings.test_items}
                generate(self.data, seed=settings.seed, items=items, workers=1 + (sum(items.values()) > 50))
        if not towers_file.exists():
            with self.stage("towers"):
                torch.manual_seed(settings.seed)
                towers, pairs = Towers(), _first(self.pairs("train"), _TOWER_ITEMS)
                pretrain_towers(towers, pairs, media_of(pairs), steps=settings.tower_steps, seed=settings.seed)
                write(towers.state_dict(), towers_file)
        towers = read_towers(towers_file)
        for split in SPLITS:
            if not self._tokens(split).exists():
                with self.stage(f"tokens of {split}"):
                    write(encode(towers, self.pairs(split)), self._tokens(split))
        return towers


def _first(pairs: Pairs, most: int) -> Pairs:
    """The first items of each task."""
    tasks = dict.fromkeys(record.task for record, _ in pairs)
    return [pair for task in tasks for pair in [pair for pair in pairs if pair[0].task == task][:most]]
