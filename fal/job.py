"""From a request to its video: at most one paid job, whatever happened before and happens now."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import download, guard, upload
from .client import AMBIGUOUS, Queue, Reply, connect
from .config import Config, Key
from .errors import PREFIX, AmbiguousError, FalError, GoneError, Interrupted, JobError, LostContactError, LostMediaError, MediaError, NotSentError
from .journal import CANCELLED, CANCELLING, COMPLETED, FAILED, STORED, SUBMITTED, SUBMITTING, Entry, Journal, State
from .request import FalRequest
from .waiting import SLICE, Clock, Patience
from .watch import ASK_AGAIN, Progress, TookTooLongError, Watch

logger = logging.getLogger(__name__)

BECAME = {CANCELLING: "fal.ai was asked to cancel the job", SUBMITTED: "fal.ai did not confirm that the job is cancelled"}
"""What is known of a job that is not wanted any more."""
LEARN_SECONDS = 10.0
"""How long a stopped run waits for the id of a job that is just being sent."""


@dataclass(frozen=True)
class Options:
    """minutes: until the job is given up. submit_again: also where a job may exist or its result is gone, which may be paid for twice."""

    minutes: float = 10.0
    submit_again: bool = False


@dataclass(frozen=True)
class Found:
    """A request's video. path: in the journal. seed, url, request_id: as fal.ai gave them. cached: nothing was sent for it."""

    path: Path
    seed: int
    url: str
    request_id: str
    cached: bool


@dataclass(frozen=True)
class Runner:
    """Runs requests.

    key: asked for when something is to be sent, so that a stored video needs none. may_start: called before a paid job is sent; raises when it may not be.
    interrupted: whether the person has stopped the run. report: is told what is going on.
    """

    config: Config
    key: Callable[[], Key]
    may_start: Callable[[], None] = lambda: None
    interrupted: Callable[[], bool] = lambda: False
    report: Callable[[Progress], None] = lambda progress: None
    clock: Clock = field(default_factory=Clock)

    async def run(self, request: FalRequest, options: Options) -> Found:
        """The video of request.

        Raises a FalError with one sentence, and Interrupted; a job that is not needed any more is cancelled, one that was paid for is kept for the next run.
        """
        patience = Patience(self.clock, self.interrupted)
        journal = Journal(self.config)
        async with _owned(journal, request.key(self.config), patience) as entry:
            state = entry.read()
            if state.state == STORED:
                entry.touch()
                self.report(Progress("From cache, no charge"))
                return Found(entry.video, state.seed, state.url, state.request_id, True)
            async with connect(self.config, self.key(), patience) as queue:
                state = await _Job(self, request, options, entry, queue, patience).stored(state)
        journal.evict(entry.folder.name)
        return Found(entry.video, state.seed, state.url, state.request_id, False)


@asynccontextmanager
async def _owned(journal: Journal, key: str, patience: Patience) -> AsyncIterator[Entry]:
    """The entry, once nobody else has it."""
    while True:
        with journal.entry(key) as entry:
            if entry is not None:
                yield entry
                return
        await patience.wait(SLICE)


class _Job:
    """One request on its way, step by step through the journal's states."""

    def __init__(self, runner: Runner, request: FalRequest, options: Options, entry: Entry, queue: Queue, patience: Patience):
        self.runner, self.request, self.options, self.entry, self.queue, self.patience = runner, request, options, entry, queue, patience
        self.watch = Watch(queue, request, patience, runner.report)

    async def stored(self, state: State) -> State:
        """On from state until the video is on disk."""
        if state.state == SUBMITTING and not self.options.submit_again:
            raise AmbiguousError("A", f"The connection broke while this job was being sent. {AMBIGUOUS}")
        if state.state not in (SUBMITTED, CANCELLING, COMPLETED):
            return await self._collected(await self._sent())
        try:
            return await self._collected(state)
        except FalError as error:
            if not self._may_replace(state, error):
                raise  # the journal stays as it is: the next run says the same
        return await self._collected(await self._sent())

    def _may_replace(self, state: State, error: FalError) -> bool:
        """Whether a job of an earlier run gives way to a new one: it was to be cancelled and was, or what it made is lost and may be paid for again."""
        if state.state == CANCELLING and (error.code == "J2" or (error.code == "L" and self.entry.written().state == CANCELLING)):
            return True  # "L" from one that was seen to be finished is a lost video
        return self.options.submit_again and isinstance(error, (GoneError, LostMediaError))

    async def _sent(self) -> State:
        self.runner.may_start()
        self.patience.check()
        addresses = await self._uploaded()
        state = self.entry.write(State(endpoint=self.request.endpoint), state=SUBMITTING)
        self.runner.report(Progress("Sending"))
        sending = asyncio.ensure_future(self.queue.submit(self.request, addresses, 60 * self.options.minutes))
        try:
            while not sending.done():
                self.patience.check()
                await asyncio.wait({sending}, timeout=SLICE)
            request_id = sending.result()
        except NotSentError as error:
            self.entry.write(state, state=FAILED, code=error.code)
            raise
        except (Interrupted, asyncio.CancelledError):
            await self._learn_and_cancel(sending, state)
            raise
        try:
            return self.entry.write(state, state=SUBMITTED, request_id=request_id)
        except NotSentError as error:
            became = BECAME[await self.watch.cancel(request_id)]
            raise AmbiguousError("J", f"The job was sent and cannot be recorded here; {became}. {str(error).removeprefix(PREFIX)}", request_id) from None

    async def _uploaded(self) -> dict[str, str]:
        addresses = {}
        for name, file in self.request.uploads.items():
            self.runner.report(Progress(f"Uploading {len(file.content) / 1e6:.1f} MB"))
            addresses[name] = await upload.put(file, self.queue, guard.session, self.runner.config, self.patience)
        return addresses

    async def _learn_and_cancel(self, sending: asyncio.Future, state: State) -> None:
        """A request that is on its way may be paid for: its id is waited for, so that it can be cancelled."""
        done, _ = await asyncio.wait({sending}, timeout=LEARN_SECONDS)
        if not done:
            sending.cancel()
            logger.warning("The run was stopped while the job was being sent, and fal.ai did not answer; it may have started (and billed) it.")
            return
        try:
            request_id = sending.result()
        except NotSentError as error:
            self.entry.write(state, state=FAILED, code=error.code)
        except Interrupted:  # between two tries, of which none has arrived
            self.entry.write(state, state=CANCELLED)
        except FalError as error:
            logger.warning("%s", error)
        else:
            await self._cancel(replace(state, state=SUBMITTED, request_id=request_id))

    async def _collected(self, state: State) -> State:
        if state.state in (SUBMITTED, CANCELLING):
            state = await self._completed(state)
        return await self._downloaded(state)

    async def _completed(self, state: State) -> State:
        try:
            return self._read(state, await self.watch.result(state.request_id, self.options.minutes))
        except (LostContactError, GoneError):
            raise  # the next run asks again
        except JobError as error:
            self.entry.write(state, state=FAILED, code=error.code)
            raise
        except TookTooLongError:
            became = BECAME[await self._cancel(state)]
            raise JobError("T", f"No result after {self.options.minutes:g} minutes; {became}.", state.request_id) from None
        except BaseException:
            await self._cancel(state)
            raise

    def _read(self, state: State, reply: Reply) -> State:
        if reply.status >= 400:
            raise self.queue.failure(reply, state.request_id, JobError)
        url = _address(reply)
        if url is None:
            raise GoneError("M1", f"fal.ai finished without a video (unexpected answer). {ASK_AGAIN}", state.request_id)
        seed = reply.body.get("seed")
        seed = seed if isinstance(seed, int) and not isinstance(seed, bool) else self.request.arguments.get("seed", 0)
        return self.entry.write(state, state=COMPLETED, url=url, seed=seed)

    async def _downloaded(self, state: State) -> State:
        downloader = download.Downloader(guard.session, self.runner.config, self.patience)
        path = self.entry.folder / "download.partial"

        def say(text: str) -> None:
            self.runner.report(Progress(text))

        try:
            try:
                await downloader.fetch(state.url, path, state.request_id, say)
            except MediaError as error:
                url = await self._asked_again(state) if error.code in ("D1", "D5") else None
                if url is None:
                    raise
                await downloader.fetch(url, path, state.request_id, say)
            return await asyncio.to_thread(self.entry.store, state, path)
        finally:
            path.unlink(missing_ok=True)

    async def _asked_again(self, state: State) -> str | None:
        """The address that fal.ai gives by now; a job that was finished stays finished, whatever is said. Raises GoneError when fal.ai has deleted it."""
        try:
            return _address(await self.watch.result(state.request_id, self.options.minutes))
        except (LostContactError, TookTooLongError):
            return None
        except GoneError as error:
            if error.code == "L":
                raise
            return None

    async def _cancel(self, state: State) -> str:
        """What is known of the job, which may be finished all the same; the next run asks for it."""
        became = await self.watch.cancel(state.request_id)
        self.entry.write(state, state=became)
        logger.warning("The run was stopped; %s; it may be finished and billed, and the same inputs ask for it first [request %s].", BECAME[became], state.request_id)
        return became


def _address(reply: Reply) -> str | None:
    """Of the video in a result."""
    video = reply.body.get("video") if reply.status < 400 and isinstance(reply.body, dict) else None
    url = video.get("url") if isinstance(video, dict) else None
    return url if isinstance(url, str) and len(url) <= 4096 else None
