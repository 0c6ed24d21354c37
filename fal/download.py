"""The video of a finished job: fetched without the key, from public addresses only, bounded in size and time, whole or not at all."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp
from yarl import URL

from ..video.decode import Limits, measure
from ..video.errors import VideoError
from .config import Config
from .errors import LostMediaError, MediaError, not_kept, one_line
from .guard import allowed
from .waiting import Patience

MAX_BYTES = 64 * 10**6
CONNECT, IDLE, TOTAL = 10.0, 30.0, 180.0
"""Seconds: until a connection stands, without a byte, and all together."""
TRIES, REDIRECTS, PART = 4, 3, 2**16
LIMITS = Limits(side=4096, frames=256, pixels=2048 * 2048 * 32, sound_seconds=120.0)
"""As float32 RGB so many pixels are 1.6 GB."""
FREE = "Run again to retry the download: it is not generated or billed again."
BROKE_OFF = "The download broke off; run again to retry (not billed again)."
LOST = "With if_lost at 'stop' a run asks for it again and pays nothing; at 'submit again' it is generated anew, which may cost again."


class _AgainError(Exception):
    """Another try may do better; final is what to say when none did."""

    def __init__(self, final: MediaError):
        super().__init__(str(final))
        self.final = final


class Downloader:
    """Fetches files. session: makes one for public addresses, or for all; see `guard.session`."""

    def __init__(self, session: Callable[[bool], aiohttp.ClientSession], config: Config, patience: Patience):
        self._session, self._config, self._patience = session, config, patience

    async def fetch(self, url: str, path: Path, request_id: str, progress: Callable[[str], None]) -> None:
        """Writes the video at url to path, which is complete and a video when this returns. Raises MediaError with what is wrong, and Interrupted."""
        for attempt in range(1, TRIES + 1):
            try:
                await self._patience.during(asyncio.wait_for(self._follow(url, path, request_id, progress), TOTAL))
                break
            except asyncio.TimeoutError:
                raise MediaError("D1", f"The video was generated but could not be downloaded (more than {TOTAL:g} s). {FREE} URL: {one_line(url)}", request_id) from None
            except _AgainError as error:
                if attempt == TRIES:
                    raise error.final from None
            await self._patience.wait(float(attempt))
        await asyncio.to_thread(check, path, url, request_id)

    async def _follow(self, url: str, path: Path, request_id: str, progress: Callable[[str], None]) -> None:
        address: str | None = url
        for _ in range(REDIRECTS + 1):
            try:
                address = await self._get(address, path, url, request_id, progress)
            except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
                raise _AgainError(MediaError("D2", BROKE_OFF, request_id)) from None
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
                reason = type(error).__name__
                raise _AgainError(MediaError("D1", f"The video was generated but could not be downloaded ({reason}). {FREE} URL: {one_line(url)}", request_id)) from None
            if address is None:
                return
        raise MediaError("D4", f"fal.ai returned an address that leads on more than {REDIRECTS} times; not downloaded. URL: {one_line(url)}", request_id)

    async def _get(self, address: str, path: Path, url: str, request_id: str, progress: Callable[[str], None]) -> str | None:
        """Writes what is at address, or gives the address to which it leads on."""
        try:
            target, public = allowed(address, self._config)
        except ValueError as error:
            raise MediaError("D4", f"fal.ai returned an address that is not allowed ({error}); not downloaded.", request_id) from None
        proxy = self._config.proxy(target)
        limits = aiohttp.ClientTimeout(total=None, connect=IDLE, sock_connect=CONNECT, sock_read=IDLE)
        options = {"allow_redirects": False, "timeout": limits, "headers": {"Accept-Encoding": "identity"}, "proxy": proxy}
        async with self._session(public and proxy is None) as session, session.get(target, **options) as response:
            if response.status in (301, 302, 303, 307, 308):
                return self._led_on(target, response.headers.get("Location", ""), request_id)
            await self._save(response, path, url, request_id, progress)
        return None

    def _led_on(self, target: URL, location: str, request_id: str) -> str:
        try:
            return str(target.join(URL(location)))
        except ValueError:
            raise MediaError("D4", "fal.ai returned an address that leads on to none; not downloaded.", request_id) from None

    async def _save(self, response: aiohttp.ClientResponse, path: Path, url: str, request_id: str, progress: Callable[[str], None]) -> None:
        if response.status != 200:
            kind, advice = (LostMediaError, LOST) if response.status in (404, 410) else (MediaError, FREE)
            error = kind("D1", f"The video was generated but could not be downloaded (HTTP {response.status}). {advice} URL: {one_line(url)}", request_id)
            # a network of caches may not have it yet
            raise _AgainError(error) if response.status in (404, 408, 425, 429) or response.status >= 500 else error
        too_big = MediaError("D3", f"The video is larger than {MAX_BYTES // 10**6} MB and was not downloaded. URL: {one_line(url)}", request_id)
        if (response.content_length or 0) > MAX_BYTES:
            raise too_big
        done = 0
        _append(path, b"", done)  # nothing of an earlier try stays, whatever comes now
        async for part in response.content.iter_chunked(PART):
            self._patience.check()
            if done + len(part) > MAX_BYTES:
                raise too_big
            _append(path, part, done)
            done += len(part)
            progress(f"Downloading {done / 1e6:.1f} MB")
        bounded = response.content_length is not None or "chunked" in response.headers.get("Transfer-Encoding", "")
        if not bounded and _is_cut_off(path):  # the end of the connection looks like the end of the file
            raise _AgainError(MediaError("D2", BROKE_OFF, request_id))


def _append(path: Path, part: bytes, done: int) -> None:
    """Writes part after what is done. Raises NotSentError when the disk does not take it."""
    try:
        with path.open("ab" if done else "wb") as file:
            file.write(part)
    except OSError as error:
        raise not_kept(path.parent, error) from None


def _is_cut_off(path: Path) -> bool:
    """Whether this is an mp4 that ends within a box: one whose index comes first can be decoded all the same, with fewer frames. Source: ISO/IEC 14496-12, 4.2."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return False
        while place < size:
            file.seek(place)
            head = file.read(16)
            length = int.from_bytes(head[8:] if head[:4] == b"\0\0\0\1" else head[:4], "big")
            if head[:4] == bytes(4):  # up to the end of the file
                return False
            if len(head) < 8 or length < 8:
                return True
            place += length
    return place > size


def check(path: Path, url: str, request_id: str) -> None:
    """Decodes the file once. Raises MediaError when it is no video, or larger than what the endpoint makes."""
    try:
        found = measure(path, LIMITS)
    except VideoError:
        raise MediaError("D5", f"The downloaded file is not a readable video. {FREE} URL: {one_line(url)}", request_id) from None
    if found.over:
        raise MediaError("D3", f"The video is larger than this endpoint's are ({found.over}). URL: {one_line(url)}", request_id)
