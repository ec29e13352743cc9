"""transformers' Trainer, for a loss with two averages."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import unwrap_peft_model

from avfusion import InvalidValueError
from avfusion.files import write_whole
from examples.favor.loading import OPTIONS_FILE


class FavorTrainer(Trainer):
    """Averages the language model's loss over tokens, and diversity over windows, of all that a step sees.

    Both averages go over every micro-batch and every process, so gradients do not depend on how a batch is divided.

    Args:
        *args: :class:`transformers.Trainer`'s.
        model_options: what the model has otherwise than its base; saved with every checkpoint, for :func:`load`.
        **kwargs: Trainer's.

    Raises:
        InvalidValueError: several GPUs without one process each.
    """

    def __init__(self, *args: Any, model_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_options = dict(model_options or {})
        if self.args.n_gpu > 1:  # nn.DataParallel would part rows from their clips
            raise InvalidValueError(
                f"train: needs one process a GPU, found one for {self.args.n_gpu}; start it with accelerate launch or "
                "torchrun, or choose a GPU with CUDA_VISIBLE_DEVICES"
            )
        if isinstance(self.model, PeftModel):
            # peft would ask the Hub for the base model, to see whether its vocabulary has grown: it never does here.
            self.model.save_pretrained = functools.partial(self.model.save_pretrained, save_embedding_layers=False)
        self.add_callback(_EpochOfData())
        self._diversity = torch.zeros((), dtype=torch.float64)
        self._steps = 0

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """As Trainer's, with the number of windows beside the number of tokens."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        windows = self.count_windows(batches)
        self._steps += 1
        return [{**batch, "num_windows_in_batch": windows} for batch in batches], items

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As Trainer's; remembers the diversity loss for the log."""
        if "num_windows_in_batch" not in inputs:  # evaluation
            inputs = {**inputs, "num_windows_in_batch": self.count_windows([inputs])}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        diversity = getattr(outputs, "diversity_loss", None)
        if model.training and diversity is not None:
            scale = self._processes if self.args.average_tokens_across_devices else 1
            self._diversity += diversity.detach().double().cpu() * scale
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer's, with the two parts of the loss beside it."""
        if "loss" in logs and self._steps:
            mean = self.accelerator.gather((self._diversity / self._steps).float().to(self.args.device)).mean().item()
            logs = {**logs, "language_model_loss": logs["loss"] - mean, "diversity_loss": mean}
            self._diversity.zero_()
            self._steps = 0
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.model_options and self.args.should_save:
            path = Path(output_dir or self.args.output_dir) / OPTIONS_FILE
            write_whole(path, json.dumps(self.model_options, indent=1) + "\n")

    def count_windows(self, batches: Sequence[Mapping[str, Any]]) -> Tensor:
        """Windows of all batches, over all processes where tokens are counted so too."""
        config = unwrap_peft_model(self.accelerator.unwrap_model(self.model)).config
        count = torch.zeros((), dtype=torch.int64, device=self.args.device)
        for batch in batches:
            places = _placeholders(batch["input_ids"], batch.get("media_index"), config.media_token_id)
            count += places.to(count.device) // config.num_queries
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            count = self.accelerator.gather(count).sum()
        return count / (self.get_tp_size() * self.get_cp_size() * self.get_sp_size())

    @property
    def _processes(self) -> int:
        return int(self.accelerator.num_processes // self.get_tp_size())


class _EpochOfData(TrainerCallback):
    """Tells the data which epoch it is; accelerate does so in a single process only."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        dataset: Any = getattr(kwargs.get("train_dataloader"), "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))


def last_checkpoint(directory: str | Path) -> Path | None:
    """The newest checkpoint of a run that is whole: the state is what Trainer writes last."""
    found = [path for path in Path(directory).glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return max(filter(_is_whole, found), key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True


def _placeholders(input_ids: Tensor, media_index: Tensor | None, token: int) -> Tensor:
    """Placeholders of a batch; rows that share a clip count once."""
    rows = (input_ids == token).sum(1)
    if media_index is None:
        return rows.sum()
    clips = rows.new_zeros(len(rows))  # there are no more clips than rows
    return clips.scatter_reduce(0, media_index.clamp(min=0), rows * (media_index >= 0), "amax").sum()
