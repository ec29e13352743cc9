"""Training through the real Trainer: averages, checkpoints, a kill, and that it learns."""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import set_seed
from transformers.models.llama.modeling_llama import LlamaMLP

from avfusion import InvalidValueError
from avfusion.models import conversation
from examples.favor import train
from examples.favor.__main__ import main
from examples.favor.data import Conversations
from examples.favor.loading import load
from examples.favor.presets import lora_config
from examples.favor.records import Example
from examples.favor.streams import media_inputs
from examples.favor.tiny import tiny
from examples.favor.train import parse_settings
from examples.favor.trainer import FavorTrainer, last_checkpoint
from examples.favor.workers import WORKERS
from tests.examples.favor.media import clip
from tests.examples.favor.training import arguments, asking, command_line, curve, save_base, write_data

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run(data: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learns its four clips by heart."""
    out = tmp_path_factory.mktemp("run")
    options = ["--epochs", "150", "--learning-rate", "1e-2", "--lora-rank", "8", "--lora-dropout", "0", "--seed", "0"]
    features = out / "features"
    assert main(["cache", "--model", str(base), "--data", str(data), "--out", str(features), "--workers", "0"]) == 0
    sets = [
        "--batch-size",
        "2",
        "--features",
        str(features),
        "--set",
        "save_strategy=no",
        "--set",
        "report_to=tensorboard",
    ]
    assert main([*command_line(data, out / "out", "--model", str(base), *options), *sets]) == 0
    return out / "out"


def _answers(model: Any, processor: Any, data: Path) -> dict[str, str]:
    """What the model says about each clip, by what it should say."""
    said = {}
    for path in sorted(data.parent.glob("*.mp4")):
        inputs = processor.apply_chat_template(conversation("what?", video=path))
        out = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        text = processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        said[path.stem.replace("_", " ")] = text
    return said


def test_a_run_learns_exact_answers_that_need_both_eyes_and_ears(run: Path, data: Path) -> None:
    model, processor = load(run)
    said = _answers(model, processor, data)
    assert len(said) == 4
    assert said == {name: name for name in said}
    merged = model.merge_and_unload()
    assert type(merged).__name__ == "FavorForConditionalGeneration"
    assert _answers(merged, processor, data) == said


def test_the_parts_of_the_loss_are_logged_beside_it(run: Path) -> None:
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in history if "loss" in entry]
    assert len(steps) == 150
    for entry in steps:
        assert entry["language_model_loss"] + entry["diversity_loss"] == pytest.approx(entry["loss"], abs=1e-6)
    assert abs(steps[0]["diversity_loss"]) > 1e-6
    assert steps[-1]["language_model_loss"] < 0.2 * steps[0]["language_model_loss"]
    assert list(run.glob("runs/*/events.out.tfevents.*"))


def test_a_checkpoint_holds_what_is_trained_and_nothing_else(run: Path) -> None:
    with safe_open(run / "adapter_model.safetensors", "pt") as file:
        names = set(file.keys())
    lora = {name for name in names if ".language_model." in name and ".lora_" in name}
    connector = {name for name in names if ".connector." in name}
    assert lora | connector == names
    model, _ = load(run)
    assert len(lora) == 2 * 4 * model.config.text_config.num_hidden_layers
    trained = {name for name, _ in model.get_base_model().connector.modules_to_save["default"].named_parameters()}
    assert {name.partition(".connector.")[2] for name in connector} == trained
    assert not list(run.glob("*.bin.index.json"))
    assert not (run / "model.safetensors").exists()


def _mixed(folder: Path) -> list[Example]:
    """Rows of unlike length, media and number of windows; one has neither."""
    short = clip(folder / "short.mp4", seconds=1.0, seed=1)
    long = clip(folder / "long.mp4", seconds=7.0, sound=False, seed=2)
    heard = clip(folder / "heard.mp4", seconds=3.0, seed=3)
    text = [{"role": "user", "content": "no media?"}, {"role": "assistant", "content": "none at all"}]
    rows = [asking(Path(long), "a long answer"), text, asking(Path(short), "x"), asking(Path(heard), "two words")]
    return [Example(row, str(index)) for index, row in enumerate(rows)]


def _step(examples: list[Example], folder: Path, micro: int) -> dict[str, torch.Tensor]:
    """What one step of plain descent changes, of a model in float64."""
    set_seed(0)
    model, processor = tiny()
    model.config.diversity_weight = 1.0
    config = lora_config("favor-vicuna-7b", lora_dropout=0.0, init_lora_weights=False)
    model = get_peft_model(model.double(), config).double()
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    trainer = FavorTrainer(
        model=model,
        args=arguments(
            folder,
            max_steps=1,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=len(examples) // micro,
            optim="sgd",
            learning_rate=1.0,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
        ),
        data_collator=processor.collate,
        train_dataset=Conversations(examples, processor=processor),
    )
    trainer.train()
    return {name: value.detach() - before[name] for name, value in model.named_parameters() if value.requires_grad}


def test_accumulated_gradients_are_those_of_the_joined_batch(tmp_path: Path) -> None:
    examples = _mixed(tmp_path)
    joined = _step(examples, tmp_path, 4)
    assert sum(bool(change.any()) for change in joined.values()) > 0.9 * len(joined)
    for micro in (1, 2):
        divided = _step(examples, tmp_path, micro)
        for name, change in joined.items():
            torch.testing.assert_close(divided[name], change, atol=1e-10, rtol=1e-8)


def test_windows_of_a_clip_that_rows_share_count_once(tmp_path: Path) -> None:
    model, processor = tiny("modern")
    film, other = clip(tmp_path / "a.mp4", seconds=5.0), clip(tmp_path / "b.mp4", seconds=1.0, seed=1)
    rows = [asking(Path(film), "a"), asking(Path(other), "b"), asking(Path(film), "c", question="and?")]
    rows.append([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}])
    inputs = processor.collate(rows)
    assert inputs["media_index"].tolist() == [0, 1, 0, -1]
    trainer = FavorTrainer(model=model, args=arguments(tmp_path))
    count = trainer.count_windows([inputs, inputs])
    embeddings = model.get_media_embeddings(**model.encode(**{k: v for k, v in inputs.items() if k in media_inputs()}))
    assert count == 2 * embeddings.window_mask.sum()
    plain = model(**inputs).diversity_loss
    torch.testing.assert_close(model(**inputs, num_windows_in_batch=count).diversity_loss, plain / 2)


def test_two_processes_have_the_losses_of_one(data: Path, tmp_path: Path) -> None:
    """Sums over processes, and the epoch of modality dropout in each of them."""

    def command(out: str, accumulate: str) -> list[str]:
        drops = ["--lora-dropout", "0", "--drop-audio", "0.4", "--drop-video", "0.4"]
        steps = [
            "--learning-rate",
            "1e-2",
            "--diversity-weight",
            "1",
            "--set",
            f"gradient_accumulation_steps={accumulate}",
        ]
        return command_line(data, tmp_path / out, "--model", "tiny", *drops, *steps)

    assert main(command("one", "2")) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "examples.favor", *command("two", "1")],
            cwd=ROOT,
            env={**os.environ, **meeting, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    one, two = (torch.tensor(curve(tmp_path / name), dtype=torch.float64) for name in ("one", "two"))
    assert len(one) == 6
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_runs_the_layers_twice_to_the_same_losses(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"plain": 0, "checkpointed": 0}
    forward = LlamaMLP.forward
    for name, options in (("plain", []), ("checkpointed", ["--gradient-checkpointing"])):

        def counting(self: Any, *given: Any, name: str = name) -> Any:
            calls[name] += 1
            return forward(self, *given)

        monkeypatch.setattr(LlamaMLP, "forward", counting)
        assert main(command_line(data, tmp_path / name, "--model", "tiny", "--epochs", "1", *options)) == 0
    assert calls["checkpointed"] == 2 * calls["plain"] > 0
    plain, checkpointed = (torch.tensor(curve(tmp_path / name)) for name in calls)
    torch.testing.assert_close(checkpointed, plain)


def test_options_are_kept_with_what_was_trained(data: Path, tmp_path: Path) -> None:
    options = ["--epochs", "0.5", "--option", "window_frames=3", "--eval-data", str(data)]
    command = command_line(data, tmp_path / "a", "--model", "tiny", *options, "--set", "eval_strategy=steps")
    assert main([*command, "--set", "eval_steps=1", "--save-steps", "1"]) == 0
    further = [*command_line(data, tmp_path / "b", "--model", str(tmp_path / "a")), "--epochs", "0.5"]
    assert main(further) == 0
    for folder in (tmp_path / "a" / "checkpoint-1", tmp_path / "b"):
        model, processor = load(folder)
        assert model.config.window_frames == processor.window_frames == 3
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("a", "b"))
    assert before.keys() == after.keys()
    history = json.loads((tmp_path / "a" / "trainer_state.json").read_text())["log_history"]
    assert any("eval_loss" in entry for entry in history)


KILLED = """
import os, signal, sys
from examples.favor import train
from examples.favor.__main__ import main

class Killed(train.FavorTrainer):
    def training_step(self, *args, **kwargs):
        if self.state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(*args, **kwargs)

train.FavorTrainer = Killed
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_killed_run_continues_with_the_same_losses(data: Path, tmp_path: Path, workers: str) -> None:
    def command(out: Path) -> list[str]:
        dropouts = ["--lora-dropout", "0.3", "--drop-audio", "0.3", "--drop-video", "0.3", "--learning-rate", "1e-2"]
        saving = ["--epochs", "4", "--save-steps", "3"]  # two steps an epoch: from the middle of the second
        return command_line(data, out, "--model", "tiny", *dropouts, *saving, "--workers", workers)

    assert main(command(tmp_path / "whole")) == 0
    whole = curve(tmp_path / "whole")
    assert [step for step, *_ in whole] == list(range(1, 9))

    out = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED, *command(out)], cwd=ROOT, env=environment, check=False)
    assert killed.returncode == -9
    shutil.copytree(out / "checkpoint-3", out / "checkpoint-4")  # a kill may strike while a checkpoint is written
    (out / "checkpoint-4" / "trainer_state.json").write_text('{"global')
    assert last_checkpoint(out) == out / "checkpoint-3"
    assert not (out / "trainer_state.json").exists()
    assert main([*command(out), "--resume"]) == 0
    assert curve(out) == whole


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data", "no.jsonl"], "no.jsonl"),
        (["--model", "nothing"], "model: must be a preset"),
        (["--drop-audio", "2"], "drop_audio, drop_video: must be probabilities"),
        (["--diversity-weight", "-1"], "diversity-weight: must be at least 0, found -1.0"),
        (
            ["--set", "learning_rte=1"],
            "set: must be NAME=VALUE with a name of TrainingArguments, found 'learning_rte=1'",
        ),
        (["--set", "max_steps=many"], "set: max_steps takes no 'many'"),
        (["--resume", "elsewhere"], "resume: must be a checkpoint, found 'elsewhere'"),
        (["--features", "nowhere"], "features: nowhere holds no features"),
    ],
)
def test_errors_are_one_line(
    options: list[str], expected: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command_line(data, tmp_path / "out", "--model", "tiny"), *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert expected in lines[0]


def test_a_file_that_a_worker_cannot_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path)
    for path in tmp_path.glob("*.mp4"):
        path.write_text("no film")
    assert main([*command_line(data, tmp_path / "out", "--model", "tiny"), "--workers", "1"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "train.jsonl:" in line
    assert ".mp4" in line


def test_runs_are_not_mixed_by_accident(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}")
    assert main(command_line(data, tmp_path, "--model", "tiny")) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_settings_have_the_types_that_trainer_declares() -> None:
    given = ["max_steps=7", "weight_decay=1e-2", "bf16=false", "optim=sgd", "report_to=none", "eval_strategy=steps"]
    parsed = parse_settings(given)
    assert parsed["max_steps"] == 7
    assert parsed["weight_decay"] == 0.01
    assert parsed["bf16"] is False
    assert arguments(Path("unused"), **parsed).eval_strategy == "steps"


@pytest.mark.parametrize("cuda", [False, True])
def test_batches_are_pinned_and_copied_without_waiting_where_there_is_a_gpu(
    cuda: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    options = parser.parse_args(["--model", "tiny", "--data", "x", "--out", str(tmp_path), "--workers", "3"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(train, "TrainingArguments", dict)
    monkeypatch.setattr(train, "parse_settings", lambda _: {})
    given: Any = train.training_arguments(options)
    assert given["dataloader_num_workers"] == 3
    assert given["dataloader_pin_memory"] is cuda
    assert given["accelerator_config"] == {"non_blocking": cuda}


@pytest.mark.parametrize(
    ("features", "cuda", "workers"), [(None, False, WORKERS), ("kept", False, 0), ("kept", True, WORKERS)]
)
def test_kept_features_are_read_without_workers_beside_a_cpu_that_computes(
    features: str | None, cuda: bool, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    given = ["--model", "tiny", "--data", "x", "--out", str(tmp_path)]
    options = parser.parse_args(given if features is None else [*given, "--features", features])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(train, "TrainingArguments", dict)
    monkeypatch.setattr(train, "parse_settings", lambda _: {})
    chosen: Any = train.training_arguments(options)
    assert chosen["dataloader_num_workers"] == workers


def test_data_parallelism_of_threads_is_refused(tmp_path: Path) -> None:
    given = arguments(tmp_path)
    given._n_gpu = 2
    with pytest.raises(InvalidValueError, match="train: needs one process a GPU, found one for 2"):
        FavorTrainer(model=tiny("modern")[0], args=given)
