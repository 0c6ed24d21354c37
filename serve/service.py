"""The answers to all requests: submit, status, stream, result, cancel, the synchronous call, uploads and files."""

import asyncio
import hashlib
import json
import math
import secrets
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from .. import schema
from ..fal.request import VIDEO_TO_VIDEO
from . import answers, contract, states
from .answers import Refused, json_response
from .contract import Fault
from .desk import PACE, Desk
from .files import SENT
from .jobs import Job, Order
from .queue import FullError
from .settings import Settings

BEAT = 15.0
"""Seconds after which a stream that has nothing to say says so."""
MEDIA = {"Content-Security-Policy": "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; sandbox", "Cache-Control": "private, max-age=3600"}
"""Of a video, which a browser may show."""


class Service:
    """The answers to all requests."""

    def __init__(self, desk: Desk, settings: Settings):
        self._desk, self._settings = desk, settings

    def origin(self, request: Request) -> str:
        """The address under which this client, and others, reach the server."""
        return self._settings.origin or f"{request.scope['scheme']}://{request.headers.get('host', '')}"

    async def accept(self, endpoint: str, request: Request, body: contract.Body) -> Job:
        """The job that a request asks for, accepted. Raises Refused."""
        if "fal_webhook" in request.query_params:
            raise Refused(400, "This server calls nobody back; ask for the status instead of giving fal_webhook.", "bad_request")
        given = contract.arguments(body)
        work = contract.work(endpoint, given)
        if work > self._settings.limits.work:
            sentence = f"Pixels x frames x steps are {work}, and this server takes {self._settings.limits.work}; use a smaller size, fewer frames or fewer steps."
            raise Refused(422, Fault("", sentence, "too_much_work").detail(), "too_much_work", {"X-Fal-Billable-Units": "0"})
        source = await self._source(endpoint, request, given)
        given.setdefault("seed", secrets.randbelow(int(schema.SEED.maximum) + 1))
        known = dict(given)
        if "video_url" in given:  # the same content is the same request; elsewhere it may change at any time
            known["video_url"] = await asyncio.to_thread(self._desk.files.digest, source) if source else secrets.token_hex()
        digest = hashlib.sha256(json.dumps([endpoint, known], sort_keys=True).encode()).hexdigest()
        low = request.headers.get("x-fal-queue-priority", "normal").lower() == "low"
        try:
            return await self._desk.submit(Order(endpoint, request.state.owner, digest, given, low, _start_seconds(request), source))
        except FullError as error:
            raise Refused(429, str(error), "queue_full", {"Retry-After": "10"}) from error

    async def _source(self, endpoint: str, request: Request, given: dict[str, object]) -> str:
        """The name of the uploaded file that video_url is; empty where it is elsewhere, or the endpoint has none."""
        if endpoint != VIDEO_TO_VIDEO:
            return ""
        url = str(given["video_url"])
        own = f"{self.origin(request)}/files/"
        if not url.startswith(own):
            if not url.startswith("https://"):
                raise _fault("Give an https address, or upload the video to this server and give the address that it answers.", "value_error")
            return ""
        try:
            await asyncio.to_thread(self._desk.files.touch, url.removeprefix(own))
        except (ValueError, FileNotFoundError) as error:
            raise _fault("There is no such file here, or no longer; upload it again.", "file_download_error") from error
        return url.removeprefix(own)

    async def submit(self, endpoint: str, request: Request, body: contract.Body) -> Response:
        """Accepts a job."""
        job = await self.accept(endpoint, request, body)
        return json_response(answers.accepted(job, await self._desk.position(job), self.origin(request)), headers={"x-fal-request-id": job.id})

    async def run(self, endpoint: str, request: Request, body: contract.Body) -> Response:
        """Accepts a job and answers with its result. It is cancelled when nobody waits for it any more, as nobody knows its id."""
        job = await self.accept(endpoint, request, body)
        ended, gone = asyncio.ensure_future(self._desk.ended(job.id, request.state.owner)), asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and ended.result():
                return answers.result(ended.result(), self.origin(request))
        finally:
            still_running = not ended.done()
            ended.cancel()
            gone.cancel()
            if still_running:
                await asyncio.shield(self._desk.cancel(job.id, request.state.owner))
        return Response(status_code=499)

    async def _found(self, request: Request, request_id: str) -> Job:
        job = await self._desk.get(request_id, request.state.owner)
        if job is None:
            raise Refused(404, "There is no such request, or it is gone.", "not_found")
        return job

    async def _status(self, request: Request, job: Job, logs: bool) -> dict[str, object]:
        position = await self._desk.position(job) if job.state == states.QUEUED else 0
        return answers.status(job, self._desk.live.get(job.id), position, self.origin(request), logs)

    async def status(self, request: Request, request_id: str, logs: bool = False) -> Response:
        """Where a job stands."""
        job = await self._found(request, request_id)
        return json_response(await self._status(request, job, logs), 200 if job.has_ended else 202, {"x-fal-request-id": job.id})

    async def stream(self, request: Request, request_id: str, logs: bool = False) -> Response:
        """Where a job stands, at every change, until it has ended."""
        await self._found(request, request_id)
        return StreamingResponse(self._events(request, request_id, logs), media_type="text/event-stream")

    async def _events(self, request: Request, request_id: str, logs: bool) -> AsyncIterator[str]:
        last, told, clock = "", 0.0, asyncio.get_running_loop().time
        while True:
            count = self._desk.steps.count
            job = await self._desk.get(request_id, request.state.owner)
            if job is None:
                return
            now = json.dumps(await self._status(request, job, logs))
            if now != last or clock() - told >= BEAT:
                yield f"data: {now}\n\n" if now != last else ": still here\n\n"
                last, told = now, clock()
            if job.has_ended:
                return
            await self._desk.steps.after(count, BEAT)
            await asyncio.sleep(PACE)

    async def result(self, request: Request, request_id: str) -> Response:
        """A job's video, or why there is none."""
        return answers.result(await self._found(request, request_id), self.origin(request))

    async def cancel(self, request: Request, request_id: str) -> Response:
        """Stops a job: at once in the queue, after its step when it is being rendered."""
        job = await self._desk.cancel(request_id, request.state.owner)
        if job is None:
            return json_response({"status": "NOT_FOUND"}, 404)
        if job.state in (states.DONE, states.FAILED):
            return json_response({"status": "ALREADY_COMPLETED"}, 400)
        return json_response({"status": "CANCELLATION_REQUESTED"}, 202)

    async def initiate(self, request: Request) -> Response:
        """Where to put a file, and where it will be found. What the client calls it is not asked."""
        if await asyncio.to_thread(self._desk.files.sent_bytes) + self._settings.limits.upload > self._settings.keep_bytes:
            raise Refused(429, "The uploaded files take as much room as they may; try again later.", "storage_full", {"Retry-After": "600"})
        name, origin = self._desk.files.new(SENT), self.origin(request)
        return json_response({"upload_url": f"{origin}/storage/put/{name}?token={self._desk.files.token(name)}", "file_url": f"{origin}/files/{name}"})

    async def put(self, request: Request, name: str, token: str = "") -> Response:
        """Takes a file, whole or not at all, once."""
        files = self._desk.files
        if not files.may_upload(name, token):
            raise Refused(403, "This is no address to upload to, or no longer; ask for another one.", "bad_request")
        if files.exists(name):
            raise Refused(409, "This file is here already.", "bad_request")
        part = files.path(name).with_name(f".{secrets.token_hex(16)}.part")
        try:
            with part.open("wb") as file:
                async for block in request.stream():
                    await asyncio.to_thread(file.write, block)
            await asyncio.to_thread(files.settle, name, part)
        finally:
            part.unlink(missing_ok=True)
        return Response()

    async def file(self, name: str) -> Response:
        """A video."""
        if not self._desk.files.exists(name):
            raise Refused(404, "There is no such file, or it is gone.", "not_found")
        return FileResponse(self._desk.files.path(name), media_type="video/mp4", headers=MEDIA)


def _fault(sentence: str, kind: str) -> Refused:
    return Refused(422, Fault("video_url", sentence, kind).detail(), kind)


async def _gone(request: Request) -> None:
    """Returns when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _start_seconds(request: Request) -> float:
    text = request.headers.get("x-fal-request-timeout")
    if text is None:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e9:
        raise Refused(400, "X-Fal-Request-Timeout is the number of seconds in which the job must have begun.", "bad_request")
    return seconds
