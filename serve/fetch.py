"""A video at somebody else's address: over https, from public addresses only, bounded in size and time."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp
from yarl import URL

from ..fal import guard
from ..fal.config import Config

REDIRECTS, SECONDS, PART = 3, 60.0, 2**16


class FetchError(RuntimeError):
    """There is no video at an address; one sentence."""


def fetch(address: str, path: Path, most: int, check: Callable[[], None], allow: Callable[[str], tuple[URL, bool]] | None = None) -> None:
    """Writes what is at address, up to most bytes, to path. check: is called again and again, and may raise to end it.

    allow: gives an address to follow and whether it must be public, or raises ValueError; public ones without.
    Raises FetchError; path may have a part of it then.
    """
    rules = allow or (lambda each: guard.allowed(each, Config(path.parent)))
    try:
        asyncio.run(asyncio.wait_for(_follow(address, path, most, check, rules), SECONDS))
    except asyncio.TimeoutError:
        raise FetchError(f"The video did not come within {SECONDS:g} s.") from None
    except ValueError as error:
        raise FetchError(f"Videos are fetched over https from public addresses only, not from {error}.") from None
    except (aiohttp.ClientError, OSError) as error:
        raise FetchError(f"The video could not be fetched ({type(error).__name__}).") from None


async def _follow(address: str, path: Path, most: int, check: Callable[[], None], allow: Callable[[str], tuple[URL, bool]]) -> None:
    for _ in range(REDIRECTS + 1):
        url, public = allow(address)
        async with guard.session(public) as session, session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as response:
            if response.status in (301, 302, 303, 307, 308):
                address = str(url.join(URL(response.headers.get("Location", ""))))
                continue
            if response.status != 200:
                raise FetchError(f"There is no video at this address (HTTP {response.status}).")
            await _save(response, path, most, check)
            return
    raise FetchError(f"The address leads on more than {REDIRECTS} times.")


async def _save(response: aiohttp.ClientResponse, path: Path, most: int, check: Callable[[], None]) -> None:
    done = 0
    with path.open("wb") as file:
        async for part in response.content.iter_chunked(PART):
            check()
            done += len(part)
            if done > most:
                raise FetchError(f"The video has more than {most // 10**6} MB; use a smaller one.")
            file.write(part)
