"""fal's queue and its files on loopback: counts what comes in, and does wrong what a test asks for."""

import asyncio
import itertools
import json
import threading
from dataclasses import dataclass, field

from aiohttp import web

KEY = "test-key-id:test-key-secret-0123456789"
LOGS = [{"message": f" {25 * step}%|##| {step}/4 [00:0{step}<00:00]", "level": "INFO", "source": "USER", "timestamp": "2026-01-01T00:00:00"} for step in range(5)]


@dataclass
class Job:
    """One accepted job. looks: how often its status was asked for."""

    arguments: dict
    looks: int = 0
    cancelled: bool = False


@dataclass
class Behaviour:
    """What the server does. Lists hold the answers to the first requests in turn: a status with a body, or one of the names in `FalServer._answer`.

    To a paid request also "after" with a status and a body: the job is there.

    queued, running: how many looks a job is in that state. listens: whether a job at work stops when it is asked to. video: content of the file. headers: of the file.
    """

    submit: list = field(default_factory=list)
    status: list = field(default_factory=list)
    results: list = field(default_factory=list)
    media: list = field(default_factory=list)
    cancel: list = field(default_factory=list)
    storage: list = field(default_factory=list)
    put: list = field(default_factory=list)
    queued: int = 1
    running: int = 2
    listens: bool = True
    video: bytes = b""
    url: str = ""
    foreign: str = ""
    hold_submit: float = 0.0
    headers: dict = field(default_factory=dict)


class FalServer:
    """Runs in a thread of its own; `requests` holds (method, path, headers) of everything that came."""

    def __init__(self, video: bytes, tls=None):
        self.video, self.tls = video, tls
        self.numbers = itertools.count(1)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self.reset()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(20)

    def reset(self, **behaviour):
        """Forgets jobs and requests."""
        self.jobs, self.requests, self.uploads = {}, [], {}
        self.does = Behaviour(**{"video": self.video} | behaviour)

    @property
    def address(self):
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    def count(self, method, part=""):
        return sum(1 for each, path, _ in self.requests if each == method and part in path)

    @property
    def posts(self):
        """How many paid requests came."""
        return self.count("POST", "/fal-ai/")

    def stop(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def _serve(self, started):
        asyncio.set_event_loop(self._loop)
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.tls)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        started.set()
        self._loop.run_forever()
        pending = asyncio.all_tasks(self._loop)  # answers that nobody waits for any more
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _handle(self, request):
        self.requests.append((request.method, request.path, dict(request.headers)))
        parts = request.path.strip("/").split("/")
        if parts[0] == "files":
            return await self._odd(self.does.media, request) or web.Response(body=self.does.video, content_type="video/mp4", headers=self.does.headers)
        if parts[0] == "storage":
            return await self._odd(self.does.storage, request) or self._storage(json.loads(await request.text()))
        if parts[0] == "put":
            self.uploads[parts[1]] = await request.read()
            return await self._odd(self.does.put, request) or web.Response()
        if request.method == "POST":
            return await self._submit(request)
        if len(parts) < 4 or parts[2] != "requests":
            return web.json_response({"detail": "Not found"}, status=404)
        return await self._job(request, parts)

    def _storage(self, asked):
        name = f"{next(self.numbers)}-{asked['file_name']}"
        return web.json_response({"upload_url": f"{self.address}/put/{name}?signature=x", "file_url": f"{self.address}/files/{name}"})

    async def _submit(self, request):
        kind = self.does.submit.pop(0) if self.does.submit else None
        accepted = kind in (None, "right", "drop", "slow", "html after", "no id", "redirect after", "empty", "drip")
        if isinstance(kind, tuple) and kind[0] == "after":
            accepted, kind = True, kind[1:]
        id_ = f"request-{next(self.numbers):08}"
        if accepted:  # before anything is answered, as a queue does
            self.jobs[id_] = Job(json.loads(await request.text()))
        if self.does.hold_submit:
            await asyncio.sleep(self.does.hold_submit)
        odd = await self._answer(kind, request)
        if odd is not None:
            return odd
        base = self.does.foreign or self.address
        app = "/".join(request.path.strip("/").split("/")[:2])
        addresses = {f"{name}_url": f"{base}/{app}/requests/{id_}{path}" for name, path in {"response": "", "status": "/status", "cancel": "/cancel"}.items()}
        return web.json_response({"status": "IN_QUEUE", "request_id": id_, "logs": None, "metrics": {}, "queue_position": 0, **addresses})

    async def _job(self, request, parts):
        job, last = self.jobs.get(parts[3]), parts[-1]
        if job is None:
            return web.json_response({"status": "NOT_FOUND"}, status=404)
        if last == "cancel":
            return await self._odd(self.does.cancel, request) or self._cancel(job)
        if last == "status":
            return await self._odd(self.does.status, request) or self._status(job)
        odd = await self._odd(self.does.results, request)
        if odd is not None:
            return odd
        if job.cancelled:
            return web.json_response({"detail": "cancelled", "error_type": "client_cancelled"}, status=499)
        url = self.does.url or f"{self.address}/files/{parts[3]}.mp4"
        return web.json_response({"video": {"url": url, "content_type": "video/mp4"}, "seed": job.arguments.get("seed", 7)}, headers={"x-fal-request-id": parts[3]})

    def _cancel(self, job):
        if job.looks > self.does.queued + self.does.running:
            return web.json_response({"status": "ALREADY_COMPLETED"}, status=400)
        job.cancelled = self.does.listens
        return web.json_response({"status": "CANCELLATION_REQUESTED"}, status=202)

    def _status(self, job):
        job.looks += 1
        if job.looks <= self.does.queued:
            return web.json_response({"status": "IN_QUEUE", "queue_position": self.does.queued - job.looks, "logs": None}, status=202)
        if job.looks <= self.does.queued + self.does.running and not job.cancelled:
            return web.json_response({"status": "IN_PROGRESS", "logs": LOGS[: job.looks]}, status=202)
        return web.json_response({"status": "COMPLETED", "logs": LOGS, "metrics": {"inference_time": 0.1}})

    async def _odd(self, plan, request):
        """The next answer of a plan; None for the right one."""
        return await self._answer(plan.pop(0), request) if plan else None

    async def _answer(self, kind, request):
        if isinstance(kind, tuple):
            status, body, *headers = kind
            text = body if isinstance(body, str) else json.dumps(body)
            return web.Response(status=status, text=text, content_type="text/html" if isinstance(body, str) else "application/json", headers=headers[0] if headers else None)
        if kind in (None, "right"):
            return None
        if kind == "drop":
            request.transport.close()
            return web.Response()
        if kind == "slow":
            await asyncio.sleep(3)
            return web.Response()
        if kind in ("html", "html after"):
            return web.Response(text="<html>Please log in</html>", content_type="text/html")
        if kind == "no id":
            return web.json_response({"status": "IN_QUEUE"})
        if kind in ("empty", "nothing"):
            return web.Response(status=200)
        if kind in ("redirect", "redirect after"):
            return web.Response(status=307, headers={"Location": f"{self.address}/elsewhere"})
        return await self._stream(kind, request)

    async def _stream(self, kind, request):
        if kind == "cut":  # as HTTP/1.0 has it: neither a length nor chunks, and the end is the connection's
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nConnection: close\r\n\r\n" + self.does.video[: len(self.does.video) * 6 // 10])
            request.transport.close()
            return web.Response()
        response = web.StreamResponse(headers={"Content-Length": str(len(self.does.video))} if kind == "truncated" else None)
        await response.prepare(request)
        if kind == "truncated":
            await response.write(self.does.video[: len(self.does.video) // 2])
            request.transport.close()
        if kind == "drip":
            for _ in range(100):  # a byte before the answer would be given up
                await response.write(b" ")
                await asyncio.sleep(0.3)
        if kind == "endless":
            for _ in range(4000):  # 250 MB
                await response.write(bytes(2**16))
        return response
