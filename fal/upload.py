"""A file to a public address at fal.ai, before the request that names it."""

import asyncio
import tempfile
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import aiohttp
from yarl import URL

from ..video.encode import encode
from .client import Queue
from .config import Config
from .errors import NotSentError
from .guard import allowed
from .request import Upload
from .waiting import Patience

QUALITY = 95
"""Of what is uploaded; see `video.encode`."""
CONNECT, IDLE, TOTAL = 10.0, 60.0, 300.0
"""Seconds: until a connection stands, without an answer, and all together."""


def from_frames(frames: Iterable, fps: float | Fraction) -> Upload:
    """Frames as `video.encode` takes them as an mp4 of these pictures alone: no workflow, no place, no camera; the same bytes each time."""
    with tempfile.TemporaryDirectory() as folder:
        return Upload(encode(frames, Path(folder) / "video.mp4", fps, "mp4", QUALITY).path.read_bytes(), "video/mp4", ".mp4")


async def put(upload: Upload, queue: Queue, session: Callable[[bool], aiohttp.ClientSession], config: Config, patience: Patience) -> str:
    """Uploads a file and gives its address. The key goes to fal.ai's storage host alone, not to where the file goes.

    Raises NotSentError, as no job was sent yet, and Interrupted.
    """
    target, address = await patience.during(queue.upload_addresses(upload))
    try:
        url, public = allowed(target, config)
        allowed(address, config)
    except ValueError as error:
        raise NotSentError("U", f"fal.ai returned an address that is not allowed ({error}); nothing was uploaded.") from None
    try:
        proxy = config.proxy(url)
        status = await patience.during(asyncio.wait_for(_put(upload, url, session(public and proxy is None), proxy), TOTAL))
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
        raise NotSentError("U", f"The video could not be uploaded ({type(error).__name__}). No job was sent; run again.") from None
    if not 200 <= status < 300:
        raise NotSentError("U", f"The video could not be uploaded (HTTP {status}). No job was sent; run again.")
    return address


async def _put(upload: Upload, url: URL, session: aiohttp.ClientSession, proxy: str | None) -> int:
    limits = aiohttp.ClientTimeout(total=None, connect=IDLE, sock_connect=CONNECT, sock_read=IDLE)
    options = {"headers": {"Content-Type": upload.content_type}, "allow_redirects": False, "timeout": limits, "proxy": proxy}
    async with session, session.put(url, data=upload.content, **options) as response:
        return response.status
