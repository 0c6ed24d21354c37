"""Waiting that a person can end: nothing here waits longer than a quarter of a second without asking whether the run was stopped."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar

from .errors import Interrupted

SLICE = 0.2
Result = TypeVar("Result")


@dataclass(frozen=True)
class Clock:
    """Time as the client sees it: seconds that only grow, and sleep."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Coroutine] = asyncio.sleep


@dataclass(frozen=True)
class Patience:
    """interrupted: whether the person has stopped the run."""

    clock: Clock
    interrupted: Callable[[], bool]

    def check(self) -> None:
        """Raises Interrupted when the run was stopped."""
        if self.interrupted():
            raise Interrupted

    async def wait(self, seconds: float) -> None:
        """Sleeps; raises Interrupted when the run is stopped meanwhile."""
        until = self.clock.now() + seconds
        while (left := until - self.clock.now()) > 0:
            self.check()
            await self.clock.sleep(min(SLICE, left))
        self.check()

    async def during(self, work: Coroutine[object, object, Result]) -> Result:
        """What work gives; when the run is stopped meanwhile work is cancelled and Interrupted is raised."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                self.check()
                await asyncio.wait({task}, timeout=SLICE)
        except BaseException:
            task.cancel()
            await asyncio.wait({task})
            raise
        return task.result()
