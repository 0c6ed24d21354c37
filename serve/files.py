"""Videos that were made and videos that were uploaded: one folder, names that nobody can guess, and nothing of anybody's in a path."""

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

NAME = re.compile(r"(made|sent)-[A-Za-z0-9_-]{32}\.mp4")
MADE, SENT = "made", "sent"
UPLOAD_SECONDS = 24 * 3600.0
"""How long an uploaded file is kept that no waiting job starts from."""


def to_disk(path: Path) -> None:
    """Returns when a file that was written is on disk, not only on its way there."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    if os.name == "posix":  # where the name is on disk with its folder
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


class Files:
    """The files in folder, which is made. clock: seconds since 1970."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._clock, self._secret = folder, clock, secrets.token_bytes(32)

    def new(self, kind: str) -> str:
        """A name of 192 random bits for a file that is MADE here or SENT."""
        return f"{kind}-{secrets.token_urlsafe(24)}.mp4"

    def path(self, name: str) -> Path:
        """Where a file of that name is or would be. Raises ValueError for what is no name of `new`."""
        if not NAME.fullmatch(name):
            raise ValueError("There is no such file.")
        return self._folder / name

    def exists(self, name: str) -> bool:
        """Whether a file of that name is there."""
        return bool(NAME.fullmatch(name)) and self.path(name).is_file()

    def token(self, name: str) -> str:
        """What one must know to upload a file under that name, which is not enough to be known; void when the server starts anew."""
        return hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest()

    def may_upload(self, name: str, token: str) -> bool:
        """Whether token belongs to the name of a file to upload."""
        fits = NAME.fullmatch(name) and name.startswith(SENT)
        return bool(fits) and token.isascii() and hmac.compare_digest(self.token(name), token)

    def settle(self, name: str, part: Path) -> None:
        """Gives a complete file its name. Both are on disk when this returns, see `to_disk`."""
        part.replace(self.path(name))
        to_disk(self.path(name))

    def delete(self, name: str) -> None:
        """Removes a file if it is there, and what a worker that was killed has left of it, see `video.encode`."""
        path = self.path(name)
        for each in (path, *self._folder.glob(f".{path.stem}.*")):
            each.unlink(missing_ok=True)

    def sent_bytes(self) -> int:
        """Of all uploaded files."""
        return sum(state.st_size for path, state in self._listed() if path.name.startswith(f"{SENT}-"))

    def _listed(self) -> Iterator[tuple[Path, os.stat_result]]:
        """What is there now; files come and go meanwhile."""
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat()

    def digest(self, name: str) -> str:
        """The SHA-256 of a file's content in hex."""
        digest = hashlib.sha256()
        with self.path(name).open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
        return digest.hexdigest()

    def touch(self, name: str) -> None:
        """Counts a file as uploaded just now. Raises FileNotFoundError when it is gone."""
        os.utime(self.path(name))

    def sweep(self, wanted: Collection[str], *, everything: bool = False) -> int:
        """Removes files that are not wanted and a day old; with everything, younger ones too, other than uploaded ones. Gives their number."""
        before = self._clock() - UPLOAD_SECONDS
        gone = []
        for path, state in self._listed():
            is_old = state.st_mtime < before or (everything and not path.name.startswith(f"{SENT}-"))
            if is_old and path.name not in wanted:
                gone.append(path)
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)
