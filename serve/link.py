"""A worker process as the server sees it: orders in, reports out, both as lines of JSON."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

PROGRAM = (sys.executable, "-m", f"{__package__}.worker")
LINE = 2**20
"""Bytes that a report may have."""
STOP_SECONDS = 5.0
"""Until a worker that was told to end is ended."""
Report = dict[str, object]


class Worker(Protocol):
    """A running worker, wherever it is. retries: whether its job is begun again when it is gone, which on this machine would often end it again."""

    retries: bool

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""

    def send(self, order: Mapping[str, object]) -> None:
        """Gives an order; one to a worker that is gone is lost, and `receive` tells."""

    async def receive(self, seconds: float) -> Report | None:
        """The next report; None when the worker is gone, or says something that is none. Raises asyncio.TimeoutError when it says nothing for so long."""

    async def stop(self) -> str:
        """Ends it, by force if need be, and gives how it ended in words."""

    def kill(self) -> None:
        """Ends it at once."""


@dataclass(frozen=True)
class Link:
    """A running worker on this machine, a `Worker`."""

    process: asyncio.subprocess.Process
    retries: ClassVar[bool] = False

    @classmethod
    async def start(cls, program: tuple[str, ...], setting: Mapping[str, object]) -> "Link":
        """Starts program, `PROGRAM` where there is none, and tells it its setting, the first line that it reads. What it says for people goes where the server's own goes."""
        link = cls(await asyncio.create_subprocess_exec(*(program or PROGRAM), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE))
        link.send(setting)
        return link

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self.process.returncode is not None

    def send(self, order: Mapping[str, object]) -> None:
        """Gives an order; one to a worker that is gone is lost, and `receive` tells."""
        if not self.process.stdin.is_closing():
            self.process.stdin.write(json.dumps(dict(order)).encode() + b"\n")

    async def receive(self, seconds: float | None) -> Report | None:
        """The next report; None when the worker is gone, or says something that is none. Raises asyncio.TimeoutError when it says nothing for so long."""
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), seconds)
            report = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:  # no JSON, or a line without end
            return None
        return report if isinstance(report, dict) and "say" in report else None

    async def stop(self) -> str:
        """Ends the process, by force if need be, and gives how it ended in words. A worker ends when nobody gives orders any more."""
        self.process.stdin.close()
        try:
            status = await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        except asyncio.TimeoutError:
            self.kill()
            status = await self.process.wait()
        return f"killed by signal {-status}, perhaps because memory ran out" if status < 0 else f"exit status {status}"

    def kill(self) -> None:
        """Ends the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
