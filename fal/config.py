"""Every setting of the remote nodes: the only place that reads the environment."""

import ipaddress
import logging
import os
import re
import stat
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from .errors import NotSentError

logger = logging.getLogger(__name__)

QUEUE, STORAGE = URL("https://queue.fal.run"), URL("https://rest.fal.ai")
KEY_FILE = "fal_key.txt"
_KEY = re.compile(r"[\x21-\x7e]{8,512}")


@dataclass(frozen=True)
class Key:
    """A fal.ai key, which no text, log or error shows."""

    secret: str = field(repr=False)

    def __repr__(self) -> str:
        return "Key(***)"

    __str__ = __repr__


@dataclass(frozen=True)
class Config:
    """queue, storage: where requests and uploads go. folder: of key file, journal and results. max_jobs: paid jobs that one run may start.

    max_entries, max_bytes: of the results that are kept. media_hosts: the only ones to download from; any public one when empty.
    proxies: the system's, by scheme. keep_at_fal: whether fal.ai stores the request for 30 days, so that a lost job can be collected.
    answer_seconds: until an answer of the queue must be there.
    """

    folder: Path
    queue: URL = QUEUE
    storage: URL = STORAGE
    max_jobs: int = 8
    max_entries: int = 500
    max_bytes: int = 2 * 10**9
    media_hosts: frozenset[str] = frozenset()
    proxies: Mapping[str, str] = field(default_factory=dict)
    keep_at_fal: bool = True
    answer_seconds: float = 60.0

    def proxy(self, url: URL) -> str | None:
        """The proxy to reach url by; none for a server of one's own and for what the system excludes."""
        found = self.proxies.get(url.scheme)
        if self.own_server or not found or urllib.request.proxy_bypass(url.host or ""):
            return None
        return found if "://" in found else f"http://{found}"

    def check_proxy(self) -> None:
        """Raises NotSentError when the way to the queue leads through a proxy that cannot be used; its address may hold a password and is not shown."""
        found = self.proxy(self.queue)
        if found is None:
            return
        try:
            url = URL(found)
            fault = "" if url.scheme in ("http", "https") and url.host and url.port else f"is a {url.scheme} proxy"
        except ValueError:
            fault = "is not an address"
        if fault:
            raise NotSentError("S", f"HTTPS_PROXY (or the system's proxy) {fault}; only one such as http://host:8080 can be used. Nothing was sent.")

    @property
    def own_server(self) -> bool:
        """Whether requests go to a server that the person has set up instead of fal.ai."""
        return self.queue.origin() != QUEUE.origin()


def read(folder: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """The settings from ADT_FAL_QUEUE_URL, ADT_FAL_MAX_JOBS_PER_RUN, ADT_FAL_MEDIA_HOSTS, ADT_FAL_FOLDER and ADT_FAL_STORE_IO.

    Raises NotSentError with the variable and what it may be.
    """
    own = environment.get("ADT_FAL_QUEUE_URL", "").strip()
    servers = {"queue": _own_server(own), "storage": _own_server(own)} if own else {}
    jobs = environment.get("ADT_FAL_MAX_JOBS_PER_RUN", "8").strip()
    if not jobs.isdecimal():
        raise NotSentError("S", "ADT_FAL_MAX_JOBS_PER_RUN is not a whole number from 0 on. Nothing was sent.")
    hosts = frozenset(host.strip().lower() for host in environment.get("ADT_FAL_MEDIA_HOSTS", "").split(",") if host.strip())
    own_folder = environment.get("ADT_FAL_FOLDER", "").strip()
    keep = environment.get("ADT_FAL_STORE_IO", "1").strip() != "0"
    return Config(Path(own_folder) if own_folder else folder, max_jobs=int(jobs), media_hosts=hosts, proxies=urllib.request.getproxies(), keep_at_fal=keep, **servers)


def _own_server(text: str) -> URL:
    try:
        url = URL(text)
        private = url.host is not None and (url.host == "localhost" or _is_private(url.host))
        valid = url.host and not url.user and not url.password and not url.query and url.path == "/" and (url.scheme == "https" or (url.scheme == "http" and private))
    except ValueError:
        valid = False
    if not valid:
        raise NotSentError("S", "ADT_FAL_QUEUE_URL must be https://host, or http:// with localhost or a private address. Nothing was sent.")
    return url.origin()


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def key(config: Config, environment: Mapping[str, str] = os.environ) -> Key:
    """The key from FAL_KEY, FAL_KEY_ID with FAL_KEY_SECRET, the file named by FAL_KEY_FILE, or the key file in the folder.

    Raises NotSentError when there is none or it cannot be one; the text never holds it.
    """
    found = environment.get("FAL_KEY", "").strip()
    if not found and environment.get("FAL_KEY_ID") and environment.get("FAL_KEY_SECRET"):
        found = f"{environment['FAL_KEY_ID'].strip()}:{environment['FAL_KEY_SECRET'].strip()}"
    path = Path(environment.get("FAL_KEY_FILE") or config.folder / KEY_FILE)
    if not found and path.is_file():
        found = _first_line(path)
        if is_readable_by_others(path):
            logger.warning("Other accounts of this machine can read the key file %s; take their permission away (chmod 600).", path)
    if not found:
        raise NotSentError(
            "K1",
            f"No fal.ai key found. Set the FAL_KEY environment variable (or put the key in {config.folder / KEY_FILE}) and run again. Nothing was sent. "
            "Keys: https://fal.ai/dashboard/keys",
        )
    if not _KEY.fullmatch(found):
        raise NotSentError("K2", "The fal.ai key contains spaces, line breaks or other characters that cannot be sent, or is cut off: copy it again. Nothing was sent.")
    return Key(found)


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotSentError("K2", f"The key file {path} cannot be read ({type(error).__name__}). Nothing was sent.") from None


def is_readable_by_others(path: Path) -> bool:
    """Whether a key file's permissions let other accounts read it; never on Windows, which has none of these."""
    return os.name == "posix" and path.is_file() and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
