"""What the checklist's items share: a clock, a table, and how long a function takes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from probe import Probe

QUEUED_MS, MOST_CALLS = 5.0, 50
"""A GPU is given so many milliseconds of work, or so many calls, between two events."""
CYCLES = 2e6
"""In a millisecond of a pause on the GPU, about."""


def markdown(columns: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


@dataclass
class Table:
    """Columns and rows of text. tell: is given every row when it is there."""

    columns: list[str]
    tell: Callable[[list[str]], None] = lambda row: None
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """One row; floats with two digits."""
        self.rows.append([f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells])
        self.tell(self.rows[-1])

    def markdown(self) -> list[str]:
        """Lines."""
        return markdown(self.columns, self.rows)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: the device's own, and the processor's for starting it; on a CPU they are the same."""

    device: float
    launch: float


@dataclass(frozen=True)
class Bench:
    """Where and until when (time.monotonic) it is measured. tell: is given every table's columns, and then its rows, when they are there."""

    cuda: bool
    ends: float
    out: Path
    weights: Path | None = None
    comfyui: Path | None = None
    tell: Callable[[list[str]], None] = lambda row: None

    @property
    def device(self) -> str:
        """torch's name of it."""
        return "cuda" if self.cuda else "cpu"

    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def table(self, *columns: str) -> Table:
        """An empty one."""
        self.tell(list(columns))
        return Table(list(columns), self.tell)

    def small(self, number: int, least: int = 1) -> int:
        """number on a GPU; so little of it on a CPU that it is quick."""
        return number if self.cuda else max(least, number // 256)

    def random(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Unit noise; in half precision on a GPU."""
        return torch.randn(*shape, device=self.device).to(dtype or (torch.float16 if self.cuda else torch.float32))

    def timing(self, function: Callable[[], object], repeats: int = 10) -> Timing:
        """Medians, after three calls that do not count."""
        for _ in range(3):
            function()
        found = [self._queued(function) if self.cuda else _called(function) for _ in range(repeats)]
        return Timing(*(sorted(getattr(each, name) for each in found)[repeats // 2] for name in ("device", "launch")))

    def _queued(self, function: Callable[[], object]) -> Timing:
        """Many calls, started while the GPU waits, so that the time between two events is that of the work alone."""
        torch.cuda.synchronize()
        started = time.perf_counter()
        function()
        launch = (time.perf_counter() - started) * 1000
        torch.cuda.synchronize()
        whole = (time.perf_counter() - started) * 1000
        calls = min(MOST_CALLS, max(1, int(QUEUED_MS / whole)))
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(int(2 * calls * launch * CYCLES))  # torch has no public way to keep a stream busy without using its memory
        begin.record()
        for _ in range(calls):
            function()
        end.record()
        torch.cuda.synchronize()
        return Timing(begin.elapsed_time(end) / calls, launch)

    def milliseconds(self, function: Callable[[], object]) -> float:
        """The device's own."""
        return self.timing(function).device

    def attempt(self, function: Callable[[], object]) -> float | str:
        """`milliseconds`, or why there are none."""
        try:
            return self.milliseconds(function)
        except RuntimeError as error:
            return f"{next(iter(str(error).splitlines()), type(error).__name__)[:60]}"


def _called(function: Callable[[], object]) -> Timing:
    probe = Probe(False)
    probe.run(1, 1, function)
    return Timing(probe.calls[0].launch_ms, probe.calls[0].launch_ms)
