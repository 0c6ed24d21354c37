"""What a server is started with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import schema

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PORT = 8190
DEFAULT_WORK = 512 * 512 * int(schema.NUM_FRAMES.maximum) * int(schema.NUM_INFERENCE_STEPS.maximum)


@dataclass(frozen=True)
class Limits:
    """What a request, a key and the whole server may take.

    body, upload: bytes of a request, of a file. head_seconds, body_seconds, upload_seconds: until its head, the rest of
    it, a file has come. waiting: queued jobs. per_key: jobs of one key that run at once; the others of it wait. work: pixels x frames x steps of a job.
    connections: open at once.
    """

    body: int = 256 * 1024
    upload: int = 64 * 10**6
    head_seconds: float = 20.0
    body_seconds: float = 20.0
    upload_seconds: float = 300.0
    waiting: int = 1000
    per_key: int = 2
    work: int = DEFAULT_WORK
    connections: int = 1000


@dataclass(frozen=True)
class Settings:
    """folder: of the queue and the videos. host, port: where to listen; port 0 is any free one. certificate, private_key: PEM files for TLS.

    keys: a file of hashed keys, see `access`; without one everybody on this machine, and nobody else, may send jobs.
    origin: the address at which others reach the server, such as https://box.example; that of each request without.
    devices: one worker for each, see `headless.render.Models`, of which models are the other fields, paths as text.
    ray, workers: the address of the Ray cluster whose machines have the workers, this one without; and how many, 0 for one on each GPU.
    keep_seconds, keep_bytes: how long finished jobs are kept, and how much their videos may take.
    worker: the program of a worker, this pack's own without. load_seconds, stall_seconds: until it must have loaded its models, and without a sign of life in a job.
    """

    folder: Path
    host: str = LOOPBACK[0]
    port: int = PORT
    certificate: Path | None = None
    private_key: Path | None = None
    keys: Path | None = None
    origin: str = ""
    devices: tuple[str, ...] = ("auto",)
    models: Mapping[str, object] = field(default_factory=dict)
    ray: str = ""
    workers: int = 0
    limits: Limits = field(default_factory=Limits)
    keep_seconds: float = 7 * 24 * 3600.0
    keep_bytes: int = 10 * 10**9
    worker: tuple[str, ...] = ()
    load_seconds: float = 900.0
    stall_seconds: float = 600.0

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach the server."""
        return self.host in LOOPBACK

    def check(self) -> None:
        """Raises ValueError with what does not go together."""
        if self.keys is None and not self.is_local:
            raise ValueError(f"--host {self.host} would let everybody in the network render here; make a key with --new-key NAME --keys FILE, and start with --keys FILE.")
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("TLS takes both --certificate and --private-key; give the one that is missing.")
        for path in filter(None, (self.certificate, self.private_key)):
            if not path.is_file():
                raise ValueError(f"There is no file {path}; --certificate and --private-key are PEM files.")
        if self.origin and not re.fullmatch(r"https?://[^/\s]+", self.origin):
            raise ValueError(f"--origin is {self.origin!r}; use an address without a path, such as https://box.example.")
        if self.workers < 0 or (self.workers and not self.ray):
            raise ValueError("--workers is the number of workers in the cluster of --ray; without one there is a worker for each --device.")
        if self.ray and self.devices != ("auto",):
            raise ValueError("--ray and --device don't go together: the cluster gives each worker its device.")
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port is {self.port}; use 0 to {2**16 - 1}, 0 for any free one.")
