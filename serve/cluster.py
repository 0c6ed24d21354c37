"""Workers on the machines of a Ray cluster: each is an actor that has the worker process of `link` beside it, and carries files and reports to and fro.

Which machine has room, and what becomes of a machine that is gone, is Ray's to say; the queue gives the next job to a free worker as ever. The pack, and
the files of the models at the same paths, must be on every machine.
"""

import asyncio
import contextlib
import functools
import logging
import re
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .files import to_disk
from .link import STOP_SECONDS, Link, Report
from .states import UNWRITABLE

if TYPE_CHECKING:
    import ray

logger = logging.getLogger(__name__)


REACH_SECONDS = 5.0
PREFIX, OLD_SECONDS = "animatediff_turbo_", 24 * 3600.0
"""Of the folders of actors; one whose actor was killed is removed by another one that starts so much later."""


class ClusterError(RuntimeError):
    """There is no cluster to work on; one sentence with the fix."""


def join(address: str) -> int:
    """Makes this process one of the cluster's drivers, and gives the number of its GPUs. address: HOST:PORT of its head.

    Raises ClusterError.
    """
    try:
        import ray
    except ImportError as error:
        raise ClusterError("--ray needs the package ray: pip install 'animatediff-turbo[ray]'.") from error
    _reach(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, namespace="animatediff_turbo")
        return int(ray.cluster_resources().get("GPU", 0))
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(f"The Ray cluster at {address} can't be joined ({_first_line(error)}).") from error
    finally:
        signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)  # Ray has one of its own, which hides that the process was told to end


def _reach(address: str) -> None:
    # Ray itself asks for minutes, and then ends the process
    found = re.fullmatch(r"([A-Za-z0-9.-]+):([0-9]{1,5})", address)
    if not found:
        raise ClusterError(f"--ray is {address!r}; use HOST:PORT of the cluster's head, on a machine that is part of it.")
    try:
        socket.create_connection((found[1], int(found[2])), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ClusterError(f"There is no Ray cluster at {address} ({reason}); start one with `ray start --head`, or give another address.") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


class Remote:
    """The actor: a worker process on its machine. parent: of the folder for its files, the temporary folder without."""

    def __init__(self, program: tuple[str, ...], parent: Path | None = None):
        self._program, self._link, self._started = program, None, asyncio.Event()
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        for path in self._folder.parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - OLD_SECONDS:
                    shutil.rmtree(path)

    async def start(self, setting: Report) -> None:
        """Starts it, and returns when it has ended."""
        try:
            self._link = await Link.start(self._program, setting)
        finally:
            self._started.set()
        await self._link.process.wait()

    async def send(self, order: Report, source: bytes | None) -> bool:
        """Gives it an order, whose paths become some of this machine. True."""
        if "path" in order:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            order = order | {"path": str(self._folder / Path(str(order["path"])).name)}
        if source is not None:
            path = self._folder / Path(str(order["source"])).name
            await asyncio.to_thread(path.write_bytes, source)
            order = order | {"source": str(path)}
        self._link.send(order)
        return True

    async def receive(self) -> Report | None:
        """See `Worker.receive`; with the video of a job that is done."""
        await self._started.wait()
        report = self._link and await self._link.receive(None)
        if report is None or report["say"] in ("begun", "step"):
            return report
        files = await asyncio.to_thread(self._emptied)
        return report | ({"video": files[0]} if report["say"] == "done" and files else {})

    def _emptied(self) -> list[bytes]:
        """What was made; sources are dropped too, after every job."""
        paths = sorted(self._folder.iterdir())
        found = [path.read_bytes() for path in paths if path.name.startswith("made")]
        for path in paths:
            path.unlink()
        return found

    async def stop(self) -> str:
        """See `Worker.stop`."""
        how = await self._link.stop() if self._link else "it could not be started"
        with contextlib.suppress(OSError):
            self._emptied()
            self._folder.rmdir()
        return how


class RayLink:
    """A running worker somewhere in the cluster, a `Worker`. One that is gone went with its machine as often as with its job: the job is begun again."""

    retries: ClassVar[bool] = True

    def __init__(self, actor: "ray.actor.ActorHandle", setting: Report):
        self._actor, self._why = actor, ""
        self._paths: dict[object, Path] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._watch = asyncio.ensure_future(self._gone_or(actor.start.remote(setting)))

    @classmethod
    async def start(cls, program: tuple[str, ...], gpus: float, setting: Report) -> "RayLink":
        """A worker with so many GPUs that has been told its setting, as soon as the cluster has room for one, however long that takes.

        Raises ClusterError when the cluster is gone.
        """
        from ray.exceptions import RayError

        try:
            actor = await asyncio.to_thread(lambda: _actor_class().options(num_cpus=1, num_gpus=gpus, max_restarts=0).remote(program))
        except RayError as error:
            raise ClusterError(f"The cluster gives no workers any more ({_first_line(error)}).") from error
        try:
            await actor.__ray_ready__.remote()
        except RayError as error:
            logger.warning("A worker of the cluster could not be started (%s).", _first_line(error))
        except asyncio.CancelledError:
            _end(actor)
            raise
        return cls(actor, setting)

    async def _gone_or(self, reference: "ray.ObjectRef") -> object:
        """What a call gives; None when the actor, or its machine, is gone."""
        from ray.exceptions import RayError

        try:
            return await reference
        except RayError as error:
            self._why = _first_line(error)
            return None

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self._watch.done()

    def send(self, order: Mapping[str, object]) -> None:
        """See `Worker.send`. The file that a job starts from goes with it."""
        if "path" in order:
            self._paths[order["id"]] = Path(str(order["path"]))
        task = asyncio.ensure_future(self._sent(dict(order)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sent(self, order: Report) -> None:
        try:
            source = await asyncio.to_thread(Path(str(order["source"])).read_bytes) if "source" in order else None
        except OSError:
            source = b""  # which is no video, as the worker will say
        if not await self._gone_or(self._actor.send.remote(order, source)) and "path" in order:
            self.kill()  # nobody would wait for less than a stall: it did not get the job

    async def receive(self, seconds: float) -> Report | None:
        """See `Worker.receive`. A video that came is on this machine's disk when this returns."""
        report = await asyncio.wait_for(self._gone_or(self._actor.receive.remote()), seconds)
        if report is None or report["say"] in ("begun", "step"):
            return report
        path, video = self._paths.pop(report.get("id"), None), report.pop("video", None)
        if report["say"] == "done" and path is not None:
            return await asyncio.to_thread(_kept, report, path, video)
        return report

    async def stop(self) -> str:
        """See `Worker.stop`."""
        try:
            how = await asyncio.wait_for(self._gone_or(self._actor.stop.remote()), 2 * STOP_SECONDS)
        except asyncio.TimeoutError:
            how = None
        finally:
            self.kill()
            self._watch.cancel()
        return str(how or self._why or "its actor or its machine is gone")

    def kill(self) -> None:
        """Ends it at once."""
        _end(self._actor)


def _end(actor: "ray.actor.ActorHandle") -> None:
    import ray

    with contextlib.suppress(ray.exceptions.RayError):
        ray.kill(actor)


@functools.cache
def _actor_class() -> "ray.actor.ActorClass":
    import ray

    return ray.remote(Remote)


def _kept(report: Report, path: Path, video: bytes | None) -> Report:
    """The report of a job whose video is on disk now, or can't be."""
    try:
        path.write_bytes(video or b"")
        to_disk(path)
    except OSError as error:
        logger.warning("A video could not be written (%s).", error.strerror)
        return {"say": "failed", "status": UNWRITABLE.status, "detail": UNWRITABLE.detail, "type": UNWRITABLE.error_type, "id": report["id"]}
    return report
