"""Training aids on the device: checkpointing, scaled losses, and processes of one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist

from avfusion import SlidingWindowProjector
from tests.device.best import BEST, move
from tests.device.parts import RAGGED, connector, frames, media, projector


def gradients(module: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [*module.parameters()]))


def rebuilt(**options: Any) -> SlidingWindowProjector:
    whole = projector()
    changed = SlidingWindowProjector(
        window_encoder=whole.window_encoder, window_frames=10, llm_dim=whole.llm_dim, **options
    )
    changed.load_state_dict(whole.state_dict())
    return changed.double().to(BEST).train()


@pytest.mark.parametrize("how", ["chunks", "layers"])
def test_checkpoints_change_no_gradient(how: str) -> None:
    plain = rebuilt()
    saving = rebuilt(chunk_windows=2, checkpoint_chunks=True) if how == "chunks" else rebuilt()
    saving.window_encoder.gradient_checkpointing = how == "layers"
    given = move(frames(RAGGED))
    one, two = (gradients(whole, whole(given).embeddings.square().sum()) for whole in (plain, saving))
    for found, wanted in zip(two, one, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-6)


def test_scaled_losses_in_half_precision() -> None:
    module = connector().to(BEST).train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler(BEST, init_scale=2.0**10)
    given, losses = move(media()), []
    for _ in range(8):
        with torch.autocast(BEST, dtype=torch.float16):
            loss = (module(**given).embeddings.float() - 1).square().mean()
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.fixture
def _process_of_one(tmp_path: Path) -> Iterator[None]:
    backend = "nccl" if BEST == "cuda" else "gloo"
    device = torch.device("cuda", 0) if BEST == "cuda" else None
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/meet", rank=0, world_size=1, device_id=device)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")  # nothing is done in place to what it gives
@pytest.mark.usefixtures("_process_of_one")
@pytest.mark.parametrize("missing", [None, "visual", "audio"])
@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_processes_of_one(how: str, missing: str | None) -> None:
    plain, module = connector().to(BEST), connector().to(BEST)
    if how == "ddp":
        shared = nn.parallel.DistributedDataParallel(module, device_ids=[0] if BEST == "cuda" else None)
    else:
        mesh = dist.init_device_mesh(BEST, (1,))
        torch.distributed.fsdp.fully_shard(module.projector.window_encoder, mesh=mesh)
        shared = torch.distributed.fsdp.fully_shard(module, mesh=mesh)
    given = {name: value for name, value in move(media()).items() if name != missing}
    for whole in (shared, plain):
        whole(**given).embeddings.square().mean().backward()
    for one, two in zip(module.parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        grad = one.grad.full_tensor() if how == "fsdp2" else one.grad
        torch.testing.assert_close(grad, two.grad, atol=1e-6, rtol=1e-3)
