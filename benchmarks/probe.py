"""Times of calls on the device and of their launches, and how many there were."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

Answer = object


@dataclass
class Call:
    """conds and rows: the batch. launch_ms: until Python had the call's result, finished or not."""

    conds: int
    rows: int
    launch_ms: float
    begin: torch.cuda.Event | None = None
    end: torch.cuda.Event | None = None

    def device_ms(self) -> float:
        """Between two events on the stream; on a CPU the launch is the work. The device has to be synchronised."""
        return self.launch_ms if self.begin is None else self.begin.elapsed_time(self.end)


@dataclass
class Probe:
    """What was called since `clear`."""

    cuda: bool
    calls: list[Call] = field(default_factory=list)
    _open: list[tuple] = field(default_factory=list)

    def clear(self) -> None:
        """Forgets all calls."""
        self.calls = []
        self._open = []

    def event(self) -> torch.cuda.Event | None:
        """Recorded now."""
        if not self.cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def run(self, conds: int, rows: int, function: Callable[[], Answer]) -> Answer:
        """function's result."""
        begin, started = self.event(), time.perf_counter()
        result = function()
        self.calls.append(Call(conds, rows, (time.perf_counter() - started) * 1000, begin, self.event()))
        return result

    def watch(self, module: torch.nn.Module) -> None:
        """Every call of module."""
        module.register_forward_pre_hook(self._before)
        module.register_forward_hook(self._after)

    def _before(self, module: torch.nn.Module, arguments: tuple) -> None:
        self._open.append((self.event(), time.perf_counter()))

    def _after(self, module: torch.nn.Module, arguments: tuple, output: object) -> None:
        begin, started = self._open.pop()
        self.calls.append(Call(1, len(arguments[0]), (time.perf_counter() - started) * 1000, begin, self.event()))

    def device_ms(self) -> list[float]:
        """Of each call, after a synchronise."""
        synchronize(self.cuda)
        return [call.device_ms() for call in self.calls]


def synchronize(cuda: bool) -> None:
    """Waits for the device."""
    if cuda:
        torch.cuda.synchronize()


def gemm_tflops(dtype: torch.dtype, side: int, cuda: bool, repeats: int = 12) -> float:
    """Median rate of side^3 matrix products of random numbers: the ceiling that everything else is a share of."""
    device = "cuda" if cuda else "cpu"
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    probe = Probe(cuda)
    for _ in range(repeats):
        probe.run(1, side, lambda: a @ b)
    milliseconds = sorted(probe.device_ms()[2:])
    return 2 * side**3 / milliseconds[len(milliseconds) // 2] / 1e9
