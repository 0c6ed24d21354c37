"""What the checklist's items share: a clock, a table, and a function's median time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from probe import Probe


@dataclass
class Table:
    """Columns and rows of text."""

    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """One row; floats with two digits."""
        self.rows.append([f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells])

    def markdown(self) -> list[str]:
        """Lines."""
        return [f"| {' | '.join(self.columns)} |", "|---" * len(self.columns) + "|", *(f"| {' | '.join(row)} |" for row in self.rows)]


@dataclass(frozen=True)
class Bench:
    """Where and until when (time.monotonic) it is measured."""

    cuda: bool
    ends: float
    out: Path
    weights: Path | None = None
    comfyui: Path | None = None

    @property
    def device(self) -> str:
        """torch's name of it."""
        return "cuda" if self.cuda else "cpu"

    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def small(self, number: int, least: int = 1) -> int:
        """number on a GPU; so little of it on a CPU that it is quick."""
        return number if self.cuda else max(least, number // 256)

    def random(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Unit noise; in half precision on a GPU."""
        return torch.randn(*shape, device=self.device).to(dtype or (torch.float16 if self.cuda else torch.float32))

    def milliseconds(self, function: Callable[[], object], repeats: int = 10) -> float:
        """Median, after three calls that do not count."""
        probe = Probe(self.cuda)
        for _ in range(3 + repeats):
            probe.run(1, 1, function)
        times = sorted(probe.device_ms()[3:])
        return times[len(times) // 2]

    def attempt(self, function: Callable[[], object]) -> float | str:
        """`milliseconds`, or why there are none."""
        try:
            return self.milliseconds(function)
        except RuntimeError as error:
            return f"{next(iter(str(error).splitlines()), type(error).__name__)[:60]}"
