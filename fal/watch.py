"""A job that was sent: looked at until it is finished, told about, and cancelled."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import aiohttp

from .client import Queue, Reply
from .errors import GoneError, LostContactError
from .journal import CANCELLING, SUBMITTED
from .request import FalRequest
from .waiting import Patience

PACE = ((5.0, 0.5), (30.0, 1.0), (120.0, 2.0), (float("inf"), 5.0))
"""Until so many seconds after the start, a look at the job every so many."""
SILENCE = 120.0
"""Seconds without an answer after which a job is left to be collected later."""
KNOWN_AFTER = 10.0
"""Seconds in which fal.ai may not know everywhere yet what it has just accepted."""
UNANSWERED = (aiohttp.ClientError, asyncio.TimeoutError, ValueError, RuntimeError)
"""What a call may end with instead of an answer; the last where the program is just ending."""
Ask = Callable[[FalRequest, str], Coroutine[object, object, Reply]]
CANCEL_SECONDS, CANCEL_TRIES = 5.0, 3
LOG_LINES, LOG_LENGTH = 200, 300
GONE = "fal.ai does not know this job any more (results expire). Generating it again costs again: set if_lost to 'submit again' or change the seed."
ASK_AGAIN = "Run the same inputs again to ask once more without paying; set if_lost to 'submit again' to have it generated anew, which may cost again."


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

        Raises TookTooLongError, LostContactError when nobody answers or the key is refused, GoneError when fal.ai knows the job no more or has finished it and
        does not say how.
        """
        started = self.patience.clock.now()
        done = await self._until(request_id, self.queue.status, self._is_finished, started, minutes)
        return await self._until(request_id, self.queue.result, lambda reply, seconds: _is_final(reply, done), started, minutes)

    async def _until(self, request_id: str, ask: Ask, fits: Callable[[Reply, float], bool], started: float, minutes: float) -> Reply:
        """The first answer that fits, told with the seconds since the first look. One to the status may say that the job is not finished for as long as it likes."""
        answered, odd = self.patience.clock.now(), 0
        while True:
            reply = await self._look(request_id, ask, self.patience.clock.now() - started)
            now = self.patience.clock.now()
            if reply is not None and fits(reply, now - started):
                return reply
            if reply is not None and ask == self.queue.status:
                answered = now
            elif reply is not None:
                odd = reply.status
            if now - answered > SILENCE:
                raise _lost(now - answered, odd, request_id)
            if now - started > 60 * minutes:
                raise TookTooLongError
            await self.patience.wait(next(pause for until, pause in PACE if now - started < until))

    async def _look(self, request_id: str, ask: Ask, seconds: float) -> Reply | None:
        """An answer that says something, so many seconds after the first look; None when there is none for now."""
        try:
            reply = await self.patience.during(ask(self.request, request_id))
        except UNANSWERED:
            return None
        early = ask == self.queue.status and (reply.status >= 500 or (reply.status in (404, 410) and seconds < KNOWN_AFTER))
        if reply.body is None or reply.status in (408, 429) or early:
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

    async def cancel(self, request_id: str) -> str:
        """The job's state after some seconds of asking fal.ai to stop it. Does not ask whether the run was stopped: it was.

        `cancelling` when fal.ai took the wish, which a model at work need not follow, or knows no such job, which it may not yet; `submitted` when nobody said so.
        """
        cancelling = asyncio.ensure_future(self._cancel(request_id))
        done, _ = await asyncio.wait({cancelling}, timeout=CANCEL_SECONDS)
        if not done:
            cancelling.cancel()
        return cancelling.result() if done else SUBMITTED

    async def _cancel(self, request_id: str) -> str:
        for _ in range(CANCEL_TRIES):
            try:
                reply = await self.queue.cancel(self.request, request_id)
            except UNANSWERED:
                await asyncio.sleep(0.2)
                continue
            if reply.status < 500:
                return CANCELLING if reply.status in (200, 202, 404) and not reply.by_portal else SUBMITTED
        return SUBMITTED


def _is_final(reply: Reply, done: Reply) -> bool:
    """Whether an answer to the question for a result is the job's own: what it made, or that it failed, as it says or as done, its last status, does."""
    if reply.status < 400:
        return reply.status < 300 and isinstance(reply.body, dict)
    return reply.tells_of_failure or done.tells_of_failure or bool(done.body.get("error"))


def _lost(seconds: float, status: int, request_id: str) -> LostContactError | GoneError:
    """status: of the last odd answer to the question for the result of a finished job, 0 without one."""
    if status:
        return GoneError("R", f"fal.ai has finished the job and gives no result (HTTP {status} for {seconds:.0f} s). {ASK_AGAIN}", request_id)
    return LostContactError(
        "P", f"Lost contact with fal.ai while waiting ({seconds:.0f} s). The job may still finish; run the same inputs again to collect it without paying twice.", request_id
    )
