"""A worker process as the server sees it: orders in, reports out, both as lines of JSON."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

LINE = 2**20
"""Bytes that a report may have."""
STOP_SECONDS = 5.0
"""Until a worker that was told to end is ended."""
Report = dict[str, object]


@dataclass(frozen=True)
class Link:
    """A running worker."""

    process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, program: tuple[str, ...], setting: Mapping[str, object]) -> "Link":
        """Starts program and tells it its setting, the first line that it reads. What it says for people goes where the server's own goes."""
        link = cls(await asyncio.create_subprocess_exec(*program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE))
        link.send(setting)
        return link

    def send(self, order: Mapping[str, object]) -> None:
        """Gives an order; one to a worker that is gone is lost, and `receive` tells."""
        if not self.process.stdin.is_closing():
            self.process.stdin.write(json.dumps(dict(order)).encode() + b"\n")

    async def receive(self, seconds: float) -> Report | None:
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
