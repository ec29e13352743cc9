"""Steps of AdamW, for every stage of training."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from tqdm import tqdm


def optimise(title: str, rates: Mapping[nn.Module, float], losses: Callable[[], Tensor], *, steps: int) -> float:
    """Steps on ``losses()``, each module at its rate, with a progress bar; the mean of the last losses."""
    groups = [{"params": [*module.parameters()], "lr": rate} for module, rate in rates.items()]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share(step, steps))
    recent = 0.0
    for step in (progress := tqdm(range(steps), title, unit="step", disable=None)):
        loss = losses()
        loss.backward()
        nn.utils.clip_grad_norm_([parameter for module in rates for parameter in module.parameters()], 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        recent = loss.item() if not step else 0.95 * recent + 0.05 * loss.item()
        if step % 10 == 0:
            progress.set_postfix(loss=f"{recent:.3f}")
    return recent


def _share(step: int, steps: int) -> float:
    """Of the rate: up in a tenth of the steps, then down along a cosine."""
    return min((step + 1) / max(1, steps // 10), 0.5 + 0.5 * math.cos(math.pi * step / steps))
