"""One training loop for every stage: seeded step by step, saved as it goes, resumed where it was killed."""

import functools
import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...motion_modules import schedule

logger = logging.getLogger(__name__)

SAVE_EVERY, LOG_EVERY = 50, 10


@dataclass(frozen=True)
class Dice:
    """The random numbers of one step; the same seed, stage and step give the same, whatever ran before."""

    python: random.Random
    torch: torch.Generator

    @classmethod
    def of(cls, *key: int | str) -> "Dice":
        """From a key such as (seed, stage, step)."""
        python = random.Random("/".join(map(str, key)))
        return cls(python, torch.Generator().manual_seed(python.getrandbits(63)))

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise of like's shape, on its device; drawn on the CPU, so that every device gets the same."""
        return torch.randn(like.shape, generator=self.torch).to(like.device)

    def timesteps(self, count: int, device: torch.device, draws: int = 1) -> Tensor:
        """(count,) random timesteps of the noise schedule, likewise; each the largest of some draws, so that more draws mean more noise."""
        return torch.randint(schedule.TRAIN_TIMESTEPS, (draws, count), generator=self.torch).amax(0).to(device)


@dataclass(frozen=True)
class Budget:
    """How long a stage trains: steps, and the AdamW rate at its top after the warm-up; it falls as a cosine to a twentieth."""

    steps: int
    rate: float
    ema: float = 0.998
    warm_up: int = 100

    def rate_at(self, step: int) -> float:
        """The rate of one step, counted from 0."""
        rising = min(1.0, (step + 1) / self.warm_up)
        return self.rate * rising * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))


def train(name: str, module: nn.Module, loss: Callable[[Dice], Tensor], budget: Budget, folder: Path, seed: int) -> nn.Module:
    """Trains module and returns it with the exponential moving average of its weights.

    Killed and called again with the same arguments it goes on from the last save and ends with the same weights, bit for bit on one machine.

    Args:
        name: of the stage; its state is folder/name.pt, its losses folder/name.csv.
        module: what is trained: every parameter that requires a gradient.
        loss: of one step, from that step's dice.
    """
    parameters = {key: parameter for key, parameter in module.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=budget.rate, weight_decay=0.01)
    average = {key: parameter.detach().clone() for key, parameter in parameters.items()}
    state, log, step = folder / f"{name}.pt", folder / f"{name}.csv", 0
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=next(iter(parameters.values())).device)
        step, average = saved["step"], saved["average"]
        optimizer.load_state_dict(saved["optimizer"])
        _copy(saved["parameters"], parameters)
        _cut(log, step)
        logger.info("%s: going on at step %d of %d.", name, step, budget.steps)
    started, losses = time.monotonic(), []
    while step < budget.steps:
        for group in optimizer.param_groups:
            group["lr"] = budget.rate_at(step)
        value = loss(Dice.of(seed, name, step))
        value.backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        decay = min(budget.ema, step / (step + 10))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in parameters.values()], 1 - decay)
        losses.append(value.item())
        if step % LOG_EVERY == 0 or step == budget.steps:
            _append(log, step, losses, time.monotonic() - started)
            losses = []
        if step % SAVE_EVERY == 0 or step == budget.steps:
            saved = {"step": step, "average": average, "optimizer": optimizer.state_dict(), "parameters": _detached(parameters)}
            whole(state, functools.partial(torch.save, saved))
    _copy(average, parameters)
    return module


def _detached(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {key: parameter.detach() for key, parameter in parameters.items()}


@torch.no_grad()
def _copy(source: dict[str, Tensor], parameters: dict[str, nn.Parameter]) -> None:
    for key, parameter in parameters.items():
        parameter.copy_(source[key])


def whole(path: Path, write: Callable[[Path], object]) -> None:
    """write(another path), which then becomes path: a kill while writing leaves the file that was there before."""
    partial = path.with_suffix(".partial")
    write(partial)
    os.replace(partial, path)


def _append(log: Path, step: int, losses: Iterable[float], seconds: float) -> None:
    losses = list(losses)
    mean = sum(losses) / len(losses)
    with log.open("a", encoding="ascii") as file:
        file.write(f"{step},{mean:.6g}\n")
    logger.info("%s: step %d, loss %.5g, %.0f s.", log.stem, step, mean, seconds)


def _cut(log: Path, step: int) -> None:
    """Drops the lines after the saved step, which will be written again, and one that was cut while it was written."""
    text = log.read_text(encoding="ascii") if log.exists() else ""
    kept = "".join(line for line in text.splitlines(keepends=True) if line.endswith("\n") and int(line.split(",")[0]) <= step)
    if kept != text:
        whole(log, lambda path: path.write_text(kept, encoding="ascii"))
