"""Steps of AdamW, for every stage of training."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from tqdm import tqdm


def optimise(title: str, rates: Mapping[nn.Module, float], losses: Callable[[], Tensor], *, steps: int) -> float:
    """Steps on ``losses()``, each module at its rate, with a progress bar; the mean of the last losses."""
    groups = [{"params": [*module.parameters()], "lr": rate} for module, rate in rates.items()]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [*rates.values()], total_steps=steps, pct_start=max(0.1, 2 / steps)
    )
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
