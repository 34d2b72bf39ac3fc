"""The optimiser of a training run: which rate each parameter has, and when."""

import math

import torch

from lab.config import TrainConfig
from lab.models import PhysicalNetwork
from lab.rules.choose import RATE_FACTORS


def optimiser_for(config: TrainConfig, network: PhysicalNetwork) -> torch.optim.Optimizer:
    """Return Adam with the config's rates for the method; some parameters decay, as they say."""
    decays = {id(p): decay for p, decay in network.decays()}
    digital = [p for p in network.digital_parameters() if id(p) not in decays]
    factor = RATE_FACTORS.get(config.method, 1.0)
    rate = factor * config.rate_digital
    groups = [
        {"params": network.physical_parameters(), "lr": factor * config.rate_theta},
        {"params": digital, "lr": rate},
        *({"params": [p], "lr": rate, "weight_decay": decay} for p, decay in network.decays()),
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=0.0)


def schedule_for(
    optimiser: torch.optim.Optimizer, steps: int, warmup: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Lower the rates to 0 along a cosine, after a linear rise over `warmup` steps."""
    if not warmup:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
