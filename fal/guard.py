"""Addresses that a server names: followed without the key, over https, and never into this machine or its network."""

import ipaddress
import logging
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from .config import Config

logger = logging.getLogger(__name__)

KNOWN = ("fal.media", "fal.ai", "fal.run", "storage.googleapis.com")


class PublicResolver(AbstractResolver):
    """The system's names, without addresses that belong to this machine or its network."""

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """As aiohttp's resolvers; raises OSError when no public address is left."""
        found = [entry for entry in await self._resolver.resolve(host, port, family) if is_public(entry["host"])]
        if not found:
            raise OSError(None, f"{host} has no public address")
        return found

    async def close(self) -> None:
        """Frees the system's resolver."""
        await self._resolver.close()


def is_public(address: str) -> bool:
    """Whether an IP address can be reached from everywhere."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_global
    except ValueError:
        return False


def session(public: bool) -> aiohttp.ClientSession:
    """For files: without cookies and credentials, and content as it comes; with public, unable to reach what is not. Its owner closes it."""
    connector = aiohttp.TCPConnector(resolver=PublicResolver() if public else None, force_close=True)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)


def allowed(address: str, config: Config) -> tuple[URL, bool]:
    """The address, and whether it must be public; raises ValueError with its scheme and host when it is none to follow."""
    try:
        url = URL(address)
        host, port = (url.host or "").lower(), url.port
    except ValueError:
        raise ValueError("it is none") from None
    if config.own_server and host and url.origin() == config.queue.origin():
        return url, False
    literal = host.replace(".", "").isdecimal() or ":" in host
    listed = not config.media_hosts or host in config.media_hosts
    if url.scheme != "https" or not host or url.user or url.password or port != 443 or (literal and not is_public(host)) or not listed:
        raise ValueError(f"{url.scheme}://{host}")
    if not any(host == known or host.endswith(f".{known}") for known in KNOWN):
        logger.info("fal.ai names %s, which is not one of its usual hosts.", host)
    return url, True
