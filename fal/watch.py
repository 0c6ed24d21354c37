"""A job that was sent: looked at until it is finished, told about, and cancelled."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from .client import Queue, Reply
from .errors import GoneError, LostContactError
from .request import FalRequest
from .waiting import Patience

PACE = ((5.0, 0.5), (30.0, 1.0), (120.0, 2.0), (float("inf"), 5.0))
"""Until so many seconds after the start, a look at the job every so many."""
SILENCE = 120.0
"""Seconds without an answer after which a job is left to be collected later."""
UNANSWERED = (aiohttp.ClientError, asyncio.TimeoutError, ValueError, RuntimeError)
"""What a call may end with instead of an answer; the last where the program is just ending."""
CANCEL_SECONDS, CANCEL_TRIES = 5.0, 3
LOG_LINES, LOG_LENGTH = 200, 300
GONE = (
    "This video was generated earlier, but fal.ai has deleted it (results expire). Generating it again costs again: set if_lost to 'submit again' or change "
    "the seed."
)


@dataclass(frozen=True)
class Progress:
    """What is going on: text for a person, and the step of how many, 0 of 0 when not known."""

    text: str
    step: int = 0
    steps: int = 0


class TookTooLongError(Exception):
    """The minutes that a job was given are over."""


@dataclass(frozen=True)
class Watch:
    """Follows the jobs of one request. report: is told what is going on."""

    queue: Queue
    request: FalRequest
    patience: Patience
    report: Callable[[Progress], None]

    async def result(self, request_id: str, minutes: float) -> Reply:
        """The answer of the finished job, be it a video or a failure.

        Raises TookTooLongError, LostContactError when nobody answers or the key is refused, GoneError when fal.ai knows the job no more.
        """
        started = answered = self.patience.clock.now()
        finished = False
        while True:
            reply = await self._look(request_id, finished)
            now = self.patience.clock.now()
            if reply is not None and finished:
                return reply
            if reply is not None:
                answered, finished = now, self._is_finished(reply, now - started)
            elif now - answered > SILENCE:
                raise LostContactError(
                    "P", f"Lost contact with fal.ai while waiting ({now - answered:.0f} s). The job may still finish; run the same inputs again to collect it without "
                    "paying twice.", request_id,
                )  # fmt: skip
            if now - started > 60 * minutes:
                raise TookTooLongError
            if reply is None or not finished:
                await self.patience.wait(next(pause for until, pause in PACE if now - started < until))

    async def _look(self, request_id: str, finished: bool) -> Reply | None:
        """An answer that says something; None when there is none for now."""
        ask = self.queue.result if finished else self.queue.status
        try:
            reply = await self.patience.during(ask(self.request, request_id))
        except UNANSWERED:
            return None
        by_fal = reply.detail is not None if finished else False
        if reply.body is None or reply.status in (408, 429) or (reply.status >= 500 and not by_fal):
            return None
        if reply.status in (401, 403):
            raise LostContactError("K3", "fal.ai refuses the key while the job is there. The job is kept; run the same inputs again with its key to collect it.", request_id)
        if reply.status in (404, 410):
            raise GoneError("L", GONE, request_id)
        return reply

    def _is_finished(self, reply: Reply, seconds: float) -> bool:
        body = reply.body if isinstance(reply.body, dict) else {}
        status = body.get("status")
        if status == "IN_QUEUE":
            position = body.get("queue_position")
            place = f" (position {position})" if isinstance(position, int) else ""
            self.report(Progress(f"Queued at fal.ai{place}, {seconds:.0f} s"))
        elif status != "COMPLETED":
            step, steps = self._steps(body.get("logs"))
            self.report(Progress(f"Running, {seconds:.0f} s" + (f", step {step}/{steps}" if steps else ""), step, steps))
        return status == "COMPLETED"

    def _steps(self, logs: object) -> tuple[int, int]:
        """The last step that the job's log tells of; the log is whole in every answer."""
        lines = [line.get("message") for line in logs if isinstance(line, dict)][-LOG_LINES:] if isinstance(logs, list) else []
        steps = self.request.arguments.get("num_inference_steps")
        for line in reversed(lines):
            for step, total in reversed(re.findall(r"(\d{1,4})/(\d{1,4})", str(line)[:LOG_LENGTH])):
                if int(total) == steps:
                    return int(step), int(total)
        return 0, 0

    async def cancel(self, request_id: str) -> bool:
        """Whether fal.ai has confirmed within some seconds that the job is no more. Does not ask whether the run was stopped: it was."""
        cancelling = asyncio.ensure_future(self._cancel(request_id))
        done, _ = await asyncio.wait({cancelling}, timeout=CANCEL_SECONDS)
        if not done:
            cancelling.cancel()
        return bool(done) and cancelling.result()

    async def _cancel(self, request_id: str) -> bool:
        for _ in range(CANCEL_TRIES):
            try:
                reply = await self.queue.cancel(self.request, request_id)
            except UNANSWERED:
                await asyncio.sleep(0.2)
                continue
            if reply.status < 500:
                return reply.status in (200, 202, 404) and not reply.by_portal
        return False
