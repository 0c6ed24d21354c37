"""Keeps a worker process on each device, gives it jobs one after the other, and writes down how each ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from .desk import Desk, Live
from .files import MADE
from .jobs import Job
from .link import Report, Worker
from .settings import Settings
from .states import CANCELLED, DONE, Failure

logger = logging.getLogger(__name__)

PAUSES = (1.0, 2.0, 5.0, 15.0, 30.0)
"""Seconds until a worker is started again that ended while it loaded its models, time after time; then the server gives up."""
IDLE, TICK, TIDY = 1.0, 0.25, 60.0
"""Seconds between two looks at whether an idle worker lives, at what is overdue, and at what is too old."""


class UnfitError(RuntimeError):
    """No worker can work here; one sentence with the fix."""


class Supervisor:
    """The workers of a server, each started by start from its setting. recipe: what the served model says of itself, as soon as one has loaded it."""

    def __init__(self, desk: Desk, settings: Settings, start: Callable[[Report], Awaitable[Worker]]):
        self._desk, self._settings, self._start = desk, settings, start
        self.recipe: Report = {}

    async def run(self) -> None:
        """Works until it is cancelled. Raises UnfitError when a worker can't load its models, and what the queue raises."""
        tasks = [asyncio.ensure_future(self._keep(device)) for device in self._settings.devices]
        tasks += [asyncio.ensure_future(self._end_overdue()), asyncio.ensure_future(self._tidy())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _end_overdue(self) -> None:
        while True:
            await self._desk.end_overdue()
            await asyncio.sleep(TICK)

    async def _tidy(self) -> None:
        while True:
            await self._desk.tidy(self._settings.keep_seconds, self._settings.keep_bytes)
            await asyncio.sleep(TIDY)

    async def _keep(self, device: str) -> None:
        failures = 0
        while True:
            link = await self._start({"device": device, "models": dict(self._settings.models)})
            try:
                ready = await self._loaded(link, device)
                failures = 0 if ready else failures + 1
                while ready and await self._one(link):
                    pass
            finally:
                how = await link.stop()
            if failures > len(PAUSES):
                raise UnfitError(f"The worker on {device} ended {failures} times while it loaded its models ({how}); is there enough memory?")
            await asyncio.sleep(PAUSES[failures - 1] if failures else 0)

    async def _loaded(self, link: Worker, device: str) -> bool:
        """Whether a worker has its models; False when it ended or said nothing."""
        try:
            report = await link.receive(self._settings.load_seconds)
        except asyncio.TimeoutError:
            report = None
        if report is None:
            link.kill()
            logger.warning("The worker on %s ended while it loaded its models (%s).", device, await link.stop())
            return False
        if report["say"] == "unfit":
            raise UnfitError(str(report["reason"]))
        self.recipe = report
        logger.info("The worker on %s is ready: %s.", device, report["adapter"])
        return True

    async def _one(self, link: Worker) -> bool:
        """Waits for a job and has it rendered; False when the worker is gone."""
        while not link.is_gone:
            count = self._desk.bell.count
            job = await self._desk.claim()
            if job is not None:
                return await self._rendered(link, job)
            await self._desk.bell.after(count, IDLE)
        return False

    async def _rendered(self, link: Worker, job: Job) -> bool:
        file = self._desk.files.new(MADE)
        order = {"do": "render", "id": job.id, "endpoint": job.endpoint, "inputs": dict(job.inputs), "path": str(self._desk.files.path(file))}
        link.send(order | ({"source": str(self._desk.files.path(job.source))} if job.source else {}))
        self._desk.begin(job, Live(lambda: link.send({"do": "stop", "id": job.id}), file))
        begun = False
        while True:
            try:
                report = await link.receive(self._settings.stall_seconds)
            except asyncio.TimeoutError:
                report = {"say": "stalled"}
            if report is None:
                await self._lost(link, job, begun)
                return False
            begun = True
            if await self._noted(report, link, job):
                return report["say"] != "stalled"

    async def _noted(self, report: Report, link: Worker, job: Job) -> bool:
        """Whether a report was the last one about the job."""
        say, live = report["say"], self._desk.live[job.id]
        if say == "begun":
            return False
        if say == "step":
            live.log(_bar(int(report["step"]), int(report["steps"])))
            self._desk.steps.ring()
            return False
        if say == "done":
            ended = await self._desk.finish(job, int(report["bytes"]))
        elif say == "stopped":
            ended = await self._desk.stopped(job)
        elif say == "failed":
            ended = await self._desk.fail(job, Failure(int(report["status"]), report["detail"], str(report["type"])))
        else:
            link.kill()
            ended = await self._desk.fail(job, Failure(500, f"The worker gave no sign of life for {self._settings.stall_seconds:g} s and was ended.", "runner_server_error"))
        _tell(ended)
        return True

    async def _lost(self, link: Worker, job: Job, begun: bool) -> None:
        """A worker is gone in the middle of a job."""
        how = await link.stop()
        logger.warning("A worker ended (%s); another one is started.", how)
        if link.retries or not begun:
            await self._desk.requeue(job)
            return
        sentence = f"The worker that rendered this job ended ({how}). Send it again, with a smaller size or fewer frames if that repeats."
        _tell(await self._desk.fail(job, Failure(503, sentence, "runner_disconnected")))


def _bar(step: int, steps: int) -> str:
    """As tqdm draws it, which is what clients of fal expect."""
    return f"{100 * step // steps:3d}%|{'#' * (10 * step // steps):<10}| {step}/{steps}"


def _tell(job: Job) -> None:
    seconds = (job.ended or 0.0) - (job.started or 0.0)
    level = logging.INFO if job.state in (DONE, CANCELLED) else logging.WARNING
    logger.log(level, "Job %s: %s after %.1f s%s.", job.id, job.state, seconds, f" ({job.failure.error_type})" if job.failure else "")
