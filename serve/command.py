"""python -m animatediff_turbo serve: arguments in, a server that runs until it is told to end."""

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import uvicorn

from . import access
from .app import RUN, build
from .cluster import ClusterError, RayLink, join
from .desk import Desk
from .files import Files
from .link import Link, Report, Worker
from .patience import impatient
from .queue import Queue, QueueError
from .service import Service
from .settings import DEFAULT_WORK, LOOPBACK, PORT, Limits, Settings
from .supervisor import Supervisor, UnfitError

logger = logging.getLogger(__name__)

ERRORS = (ValueError, OSError, sqlite3.Error, QueueError, UnfitError, ClusterError)
"""What `run` raises on purpose: one sentence each."""
QUEUE, FILES = "queue.sqlite", "files"
HELP = """Serves fal's AnimateDiff Turbo endpoints from this machine: the same inputs, queue and answers.

  python -m animatediff_turbo serve

This machine alone may use it. For others, with keys and TLS:

  python -m animatediff_turbo serve --new-key alice --keys keys.txt
  python -m animatediff_turbo serve --keys keys.txt --host 0.0.0.0 --certificate cert.pem --private-key key.pem

Where clients name fal's hosts, name this one: queue.fal.run becomes HOST:PORT, fal.run becomes HOST:PORT/run. In ComfyUI the
remote nodes use it with ADT_FAL_QUEUE_URL=https://HOST:PORT, fal's Python client with FAL_QUEUE_RUN_HOST=HOST:PORT (TLS only)."""


def parser() -> argparse.ArgumentParser:
    """Every flag."""
    result = argparse.ArgumentParser(prog="python -m animatediff_turbo serve", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--host", default=LOOPBACK[0], help="the address to listen at (default %(default)s); any other needs --keys")
    result.add_argument("--port", type=int, default=PORT, help="default %(default)s; 0 is any free one")
    result.add_argument("--folder", type=Path, default=Path("animatediff_turbo_server"), help="of the queue and the videos (default ./%(default)s)")
    result.add_argument("--certificate", type=Path, metavar="FILE", help="for TLS, PEM")
    result.add_argument("--private-key", type=Path, metavar="FILE", help="of the certificate, PEM")
    result.add_argument("--origin", default="", metavar="URL", help="how others reach the server, behind a proxy: https://box.example")
    result.add_argument("--keys", type=Path, metavar="FILE", help="who may use it: keys, of which the file holds hashes only")
    result.add_argument("--new-key", metavar="NAME", help="add a key to --keys, print it, and end")

    limits, kept = result.add_argument_group("limits"), Limits()
    limits.add_argument("--max-waiting", type=int, default=kept.waiting, metavar="JOBS", help="in the queue (default %(default)s); more are answered 429")
    limits.add_argument("--max-per-key", type=int, default=kept.per_key, metavar="JOBS", help="of one key that run at once (default %(default)s); the others wait")
    limits.add_argument("--max-work", type=int, default=DEFAULT_WORK, metavar="N", help="pixels x frames x steps of a job (default %(default)s)")
    limits.add_argument("--keep-days", type=float, default=7.0, metavar="DAYS", help="how long a video is kept (default %(default)g)")
    limits.add_argument("--keep-gb", type=float, default=10.0, metavar="GB", help="how much all of them may take (default %(default)g)")

    models = result.add_argument_group("your own models (without: the tiny one)")
    models.add_argument("--checkpoint", metavar="PATH", help="an SD1.5 model: a diffusers folder, or a .safetensors or .ckpt file")
    models.add_argument("--config", metavar="FOLDER", help="for a single file: a diffusers folder of SD1.5 with tokenizer and configurations")
    models.add_argument("--adapter", metavar="FILE", help="a motion adapter: Lightning, AnimateLCM, v1-v3")
    models.add_argument("--family", default="auto", metavar="NAME", help="which adapter the file is, when its name does not say")
    models.add_argument("--lora", action="append", default=[], metavar="FILE[:STRENGTH]", help="a LoRA for the checkpoint; may be given more than once")
    models.add_argument("--device", action="append", default=[], help="cpu, cuda:0, mps; one worker for each that is given (default: the best there is)")
    models.add_argument("--ray", default="", metavar="HOST:PORT", help="work on the Ray cluster with this head, of which this machine is a part; models at the same paths on every machine")
    models.add_argument("--workers", type=int, default=0, metavar="N", help="with --ray: how many (default: one for each GPU of the cluster, or one)")
    models.add_argument("--dtype", default="auto", choices=["auto", "fp32", "fp16", "bf16"], help="fp32 on the CPU and fp16 elsewhere by default")
    return result


def run(arguments: list[str]) -> str:
    """Does what arguments say; gives what is to be printed: a new key, or nothing after a server has ended. Raises one of ERRORS with one sentence."""
    options = parser().parse_args(arguments)
    if options.new_key is not None:
        if options.keys is None:
            raise ValueError("--new-key needs --keys FILE, the file to add it to.")
        return access.new_key(options.keys, options.new_key)
    asyncio.run(serve(settings(options)))
    return ""


def settings(options: argparse.Namespace) -> Settings:
    """What the flags mean."""
    models = {name: getattr(options, name) for name in ("family", "dtype")}
    # wherever a worker's own folder is
    models |= {name: str(Path(path).absolute()) for name in ("checkpoint", "config", "adapter") if (path := getattr(options, name)) is not None}
    loras = [(str(Path(path).absolute()), strength) for path, strength in map(_lora, options.lora)]
    return Settings(
        options.folder, options.host, options.port, options.certificate, options.private_key, options.keys, options.origin.rstrip("/"),
        tuple(options.device) or ("auto",), models | ({"loras": loras} if loras else {}),
        options.ray, options.workers, Limits(waiting=options.max_waiting, per_key=options.max_per_key, work=options.max_work), options.keep_days * 86400, int(options.keep_gb * 1e9),
    )  # fmt: skip


def _lora(text: str) -> tuple[str, float]:
    """FILE or FILE:STRENGTH; a drive letter is no strength."""
    path, colon, strength = text.rpartition(":")
    try:
        return (path, float(strength)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def connected(chosen: Settings) -> tuple[Settings, Callable[[Report], Awaitable[Worker]]]:
    """The settings with a device for each worker, and what starts a worker. Raises ClusterError."""
    if not chosen.ray:
        return chosen, lambda setting: Link.start(chosen.worker, setting)
    gpus = join(chosen.ray)
    devices = ("auto",) * (chosen.workers or max(1, gpus))
    return replace(chosen, devices=devices), lambda setting: RayLink.start(chosen.worker, min(1, gpus), setting)


async def serve(chosen: Settings) -> None:
    """Serves until the process is told to end. Raises one of ERRORS with one sentence."""
    chosen.check()
    chosen, start = connected(chosen)
    keys = access.read(chosen.keys) if chosen.keys else None
    chosen.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (chosen.folder / QUEUE).touch(mode=0o600)  # prompts are in it
    listening = _listen(chosen)
    with contextlib.closing(listening), contextlib.closing(Queue(chosen.folder / QUEUE, fingerprint(chosen))) as queue:
        files = Files(chosen.folder / FILES)
        interrupted = queue.recover()
        desk = Desk(queue, files, chosen.limits if keys else replace(chosen.limits, per_key=sys.maxsize))
        await desk.tidy(chosen.keep_seconds, chosen.keep_bytes, everything=True)
        supervisor = Supervisor(desk, chosen, start)
        work: list[asyncio.Future[None]] = []

        @contextlib.asynccontextmanager
        async def working() -> AsyncIterator[None]:
            work.append(asyncio.ensure_future(supervisor.run()))
            work[0].add_done_callback(lambda _: setattr(server, "should_exit", True))
            yield
            await _ended(work[0])

        app = build(Service(desk, chosen), chosen, keys, working)
        server = uvicorn.Server(_config(app, chosen))
        _announce(chosen, listening, interrupted, queue.waiting())
        await server.serve(sockets=[listening])
        for task in work:
            await _ended(task)
            if not task.cancelled():
                task.result()


async def _ended(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _config(app: object, chosen: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app, http=impatient(chosen.limits.head_seconds), log_config=None, access_log=False, server_header=False, proxy_headers=False, ws="none", limit_concurrency=chosen.limits.connections,
        ssl_certfile=chosen.certificate, ssl_keyfile=chosen.private_key, timeout_graceful_shutdown=3, h11_max_incomplete_event_size=65536,
    )  # fmt: skip


def _listen(chosen: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in chosen.host else socket.AF_INET
    try:
        return socket.create_server((chosen.host, chosen.port), family=family, backlog=512)
    except OSError as error:
        raise ValueError(f"{chosen.host}:{chosen.port} can't be listened at ({error.strerror or error}); choose another --port or --host.") from error


def _announce(chosen: Settings, listening: socket.socket, interrupted: int, waiting: int) -> None:
    scheme = "https" if chosen.certificate else "http"
    host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    address = f"{scheme}://{host}:{listening.getsockname()[1]}"
    logger.info("Listening at %s (queue.fal.run) and %s%s (fal.run).", address, address, RUN)
    if chosen.keys is None:
        logger.info("Without --keys only programs on this machine can use it.")
    if waiting:
        logger.info("%d jobs of the last time are waiting; %d of all were interrupted.", waiting, interrupted)


def fingerprint(chosen: Settings) -> str:
    """Of the served models: another one where a file is another."""
    found = {}
    for path in [chosen.models.get(name) for name in ("checkpoint", "config", "adapter")] + [each[0] for each in chosen.models.get("loras", ())]:
        if path and Path(path).exists():
            state = Path(path).stat()
            found[str(Path(path).resolve())] = (state.st_size, state.st_mtime_ns)
    return hashlib.sha256(json.dumps([dict(chosen.models), found], sort_keys=True).encode()).hexdigest()
