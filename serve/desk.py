"""What requests and workers share: the queue for asynchronous callers, the progress of running jobs, and a bell that rings at every change."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TypeVar

from . import states
from .files import Files
from .jobs import Job, Logs, Order
from .queue import Queue
from .settings import Limits
from .states import Failure

T = TypeVar("T")

LOOK, PACE = 30.0, 0.05
"""Seconds until somebody who waits for a job looks again, at the latest and at the earliest: many do, and the bell rings for each job."""


class Bell:
    """Wakes everybody who waits for something to change. To be used in one event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something has changed."""
        self.count += 1
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    async def after(self, count: int, seconds: float) -> None:
        """Returns when it has rung since count, or after some seconds."""
        if self.count == count:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._rung.wait(), seconds)


@dataclass
class Live:
    """A job that is being rendered. stop: tells its worker to. file: the name of the video that is being made."""

    stop: Callable[[], None]
    file: str
    logs: Logs = field(default_factory=list)

    def log(self, message: str, level: str = "INFO") -> None:
        """Adds a line."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self.logs.append({"message": message, "level": level, "source": "USER", "timestamp": now})


class Desk:
    """The queue, its files, a bell that rings when the queue has changed and one that rings at steps of a job, too.

    Database and disk are used in other threads, and a change is complete before it is told.
    """

    def __init__(self, queue: Queue, files: Files, limits: Limits):
        self.queue, self.files, self.limits = queue, files, limits
        self.bell, self.steps = Bell(), Bell()
        self.live: dict[str, Live] = {}
        self._asked: set[str] = set()

    async def _do(self, act: Callable[..., T], *arguments: object) -> T:
        before = self.queue.changes
        try:
            return await asyncio.to_thread(act, *arguments)
        finally:
            if self.queue.changes != before:
                self.bell.ring()
                self.steps.ring()

    async def submit(self, order: Order) -> Job:
        """An accepted job, ended already where an equal one is done. Raises FullError."""
        job = await self._do(self.queue.submit, order, self.limits.waiting)
        return await self._do(self.queue.answer, job, self.files.exists)

    async def get(self, id: str, owner: str) -> Job | None:
        """See `Queue.get`."""
        return await self._do(self.queue.get, id, owner)

    async def position(self, job: Job) -> int:
        """See `Queue.position`."""
        return await self._do(self.queue.position, job)

    async def cancel(self, id: str, owner: str) -> Job | None:
        """See `Queue.cancel`; the worker is told."""
        job = await self._do(self.queue.cancel, id, owner)
        if job and job.state == states.CANCELLING:
            # a worker may be about to begin it: the claim is on disk, and `begin` comes next
            self._asked.add(id)
            if id in self.live:
                self.live[id].stop()
        return job

    async def ended(self, id: str, owner: str) -> Job | None:
        """The job when it has ended; None when there is none any more."""
        while True:
            count = self.bell.count
            job = await self.get(id, owner)
            if job is None or job.has_ended:
                return job
            await self.bell.after(count, LOOK)
            await asyncio.sleep(PACE)

    async def claim(self) -> Job | None:
        """See `Queue.claim`. Whoever gets the job must end it: nobody else will while the server goes on."""
        return await self._do(self.queue.claim, self.limits.per_key, self.files.exists)

    def begin(self, job: Job, live: Live) -> None:
        """A worker has the job."""
        self.live[job.id] = live
        if job.attempts > 1:
            live.log("Begun again, with the same seed: the server or its worker had stopped.", "WARN")
        if job.id in self._asked:
            live.stop()

    async def finish(self, job: Job, size: int) -> Job:
        """The job after its video was written."""
        live = self.live[job.id]
        return await self._end(live, self.queue.finish, job, live.file, size, live.logs)

    async def fail(self, job: Job, failure: Failure) -> Job:
        """The job after it failed."""
        live = self.live[job.id]
        return await self._end(live, self.queue.fail, job, failure, live.logs)

    async def stopped(self, job: Job) -> Job:
        """The job after its worker has stopped as it was told."""
        live = self.live[job.id]
        return await self._end(live, self.queue.stopped, job, live.logs)

    async def requeue(self, job: Job) -> Job:
        """The job, to be begun again, after its worker was gone."""
        return await self._end(self.live[job.id], self.queue.requeue, job)

    async def _end(self, live: Live, act: Callable[..., Job], *arguments: object) -> Job:
        job = await self._do(act, *arguments)
        if self.live.get(job.id) is live:  # a job to be begun again may have been already
            del self.live[job.id]
            self._asked.discard(job.id)
        if job.file is None:
            await asyncio.to_thread(self.files.delete, live.file)
        return job

    async def tidy(self, seconds: float, size: int, *, everything: bool = False) -> int:
        """Forgets what is too old or too much, see `Queue.expire`, and removes its files. everything: see `Files.sweep`. Gives the number of jobs."""
        number, files = await self._do(self.queue.expire, seconds, size)
        for name in files:
            await asyncio.to_thread(self.files.delete, name)
        await asyncio.to_thread(lambda: self.files.sweep(self.queue.files(), everything=everything))
        return number

    async def end_overdue(self) -> None:
        """See `Queue.end_overdue`."""
        await self._do(self.queue.end_overdue)
