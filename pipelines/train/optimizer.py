"""The optimiser of a training and how its rate goes: up in a line, then level or down."""

from typing import Any

import torch


def optimizer_of(
    model: Any, n_steps: int, *, learning_rate: float, weight_decay: float, warmup_share: float, schedule: str
) -> tuple[Any, Any]:
    """AdamW over what is trained, and the schedule of its rate, a step a batch."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, learning_rate, weight_decay=weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_share(step, n_steps, warmup_share, schedule)
    )
    return optimizer, scheduler


def rate_share(step: int, n_steps: int, warmup_share: float, schedule: str) -> float:
    """Share of the peak rate in a step counted from 0: up in a line, then level, or down in a line towards 0."""
    n_warmup = round(n_steps * warmup_share)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 1.0 if schedule == "constant" else (n_steps - step) / max(1, n_steps - n_warmup)
