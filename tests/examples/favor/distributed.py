"""What each of two processes does: a training step on its share of a batch, under DDP or FSDP2.

Run by ``test_distributed.py``: ``python -m tests.examples.favor.distributed KIND RANK PORT OUT``.
"""

import gc
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from peft import get_peft_model
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from avfusion import Video, Waveform
from avfusion.models import conversation
from examples.favor.presets import lora_config
from examples.favor.tiny import tiny

ANSWER = {"role": "assistant", "content": "yes it is"}


def shares() -> list[list[Any]]:
    """Rows of each process: one watches and listens, the other gets text, or sound, alone."""
    noise = torch.Generator().manual_seed(0)
    film = Video.from_rate(torch.randint(0, 255, (1, 6, 3, 28, 28), generator=noise).byte(), 2.0)
    sound = Waveform.from_samples([0.1 * torch.randn(32_000, generator=noise)], 16_000)
    return [
        [conversation("what?", video=film, audio=sound), conversation("and how long is it?", video=film)],
        [conversation("no media?"), conversation("heard?", audio=sound)],
    ]


def adapted() -> tuple[Any, Any]:
    model, processor = tiny()
    torch.manual_seed(1)
    model = get_peft_model(model.double(), lora_config("favor-vicuna-7b", lora_dropout=0.0, init_lora_weights=False))
    return model.double().train(), processor


def inputs_of(processor: Any, rows: list[Any]) -> tuple[Any, int, int]:
    """The batch, its labels that count, and its windows."""
    inputs = processor.apply_chat_template([[*messages, ANSWER] for messages in rows], return_labels=True)
    labels = int((inputs["labels"][:, 1:] != -100).sum())
    windows = int((inputs["input_ids"] == processor.placeholder_id).sum()) // processor.num_queries
    return inputs, labels, windows


def step(model: Any, inputs: Any, labels: int, windows: int, scale: float) -> None:
    out = model(**inputs, num_items_in_batch=labels, num_windows_in_batch=windows)
    (out.loss * scale).backward()


def main(kind: str, rank: int, port: str, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model, processor = adapted()
    if kind == "ddp":
        model = DistributedDataParallel(model)
    else:
        base = model.get_base_model()
        eyes, ears = base.visual_encoder, base.audio_encoder.model
        for part in (*base.language_model.model.layers, *eyes.vision_model.encoder.layers, *ears.layers):
            fully_shard(part)
        connector = base.connector.modules_to_save["default"]
        for part in (eyes.vision_model, eyes.qformer, eyes, ears, connector, model):
            fully_shard(part)
    for rows in (shares(), shares()[::-1]):  # each process has each kind of batch once
        inputs, labels, windows = inputs_of(processor, rows[rank])
        total = torch.tensor([labels, windows])
        dist.all_reduce(total)
        step(model, inputs, *total.tolist(), scale=2.0)  # both ways average over processes
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad
            gradient = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
            gradients[name.removeprefix("module.")] = gradient.contiguous()
    if rank == 0:
        save_file(gradients, out)
    dist.destroy_process_group()
    gc.collect()  # gloo lets go of its last tensors before Python ends; later it would abort


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
