"""What was asked of fal.ai and what became of it, on disk before and after every step, so that nothing is paid for twice."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from .config import Config
from .errors import NotSentError, not_kept

NONE, SUBMITTING, SUBMITTED, COMPLETED, STORED, FAILED = "none", "submitting", "submitted", "completed", "stored", "failed"
CANCELLING, CANCELLED = "cancelling", "cancelled"
"""fal.ai was asked to stop a job, which may be finished and paid for all the same; and one that was stopped before it was sent."""
STATES = {SUBMITTING, SUBMITTED, COMPLETED, STORED, FAILED, CANCELLING, CANCELLED}
EVICTABLE = {STORED, FAILED, CANCELLED}
"""States of jobs that cost nothing any more: whatever else a person has, these may go when the results grow too many."""


@dataclass(frozen=True)
class State:
    """How far a request is.

    request_id: fal.ai's, from `submitted` on and while `cancelling`. url, seed: of its result, from `completed` on. sha256, bytes: of the video on disk, when `stored`.
    code: why it failed. changed: Unix seconds.
    """

    state: str = NONE
    endpoint: str = ""
    request_id: str = ""
    url: str = ""
    seed: int = 0
    sha256: str = ""
    bytes: int = 0
    code: str = ""
    changed: float = 0.0


class Entry:
    """One request's place in the journal; the owner of its folder while it is locked."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.video = folder / "video.mp4"

    def read(self) -> State:
        """The last state that was written whole; `stored` only while its video is there unchanged."""
        state = self.written()
        return replace(state, state=COMPLETED) if state.state == STORED and not self._is_whole(state) else state

    def written(self) -> State:
        """The last state, without a look at the video. Raises NotSentError when it cannot be read."""
        try:
            values = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            state = State(**{each.name: values[each.name] for each in fields(State) if each.name in values})
            if state.state not in STATES:
                raise ValueError(state.state)
            return state
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, TypeError) as error:
            raise NotSentError(
                "J", f"Cannot read {self.folder / 'state.json'} ({type(error).__name__}); remote jobs are not sent without a record of them. Remove the file to start anew."
            ) from None

    def _is_whole(self, state: State) -> bool:
        try:
            return self.video.stat().st_size == state.bytes and hashlib.sha256(self.video.read_bytes()).hexdigest() == state.sha256
        except OSError:
            return False

    def write(self, state: State, /, **changes: object) -> State:
        """Replaces the state, whole or not at all, and gives it back. Raises NotSentError when the disk does not take it."""
        state = replace(state, **changes, changed=time.time())
        try:
            _make_private(self.folder)
            _replace(self.folder / "state.json", json.dumps(asdict(state), indent=1).encode())
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise NotSentError("J", f"Cannot write {self.folder} ({reason}); remote jobs are not sent without a record of them.") from None
        return state

    def touch(self) -> None:
        """Counts as used now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / "state.json")

    def store(self, state: State, video: Path) -> State:
        """Takes the downloaded file as the result. Raises NotSentError when the disk does not take it."""
        content = video.read_bytes()
        try:
            _replace(self.video, content)
        except OSError as error:
            raise not_kept(self.video, error) from None
        return self.write(state, state=STORED, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


class Journal:
    """The folder of all requests."""

    def __init__(self, config: Config):
        self.config = config
        self.folder = config.folder / "fal"

    @contextlib.contextmanager
    def entry(self, key: str) -> Iterator[Entry | None]:
        """The entry of a request, None while another task or program has it; the system gives a lock back when its program dies."""
        try:
            _make_private(self.folder)
            file = (self.folder / f"{key}.lock").open("a+b")
            locked = _lock(file)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise NotSentError("J", f"Cannot write {self.folder} ({reason}); remote jobs are not sent without a record of them.") from None
        with file:
            yield Entry(self.folder / key) if locked else None

    def evict(self, used: str) -> None:
        """Removes the results that were longest not used, beyond the limits; what may still cost money stays, and so does the one just used."""
        found = []
        for state in self.folder.glob("*/state.json"):
            with contextlib.suppress(OSError):  # another run's file that has just gone
                found.append((state.stat().st_mtime, sum(path.stat().st_size for path in state.parent.iterdir()), state.parent.name))
        size = 0
        for number, (_, size_of_one, key) in enumerate(sorted(found, reverse=True)):
            size += size_of_one
            if key == used or (number < self.config.max_entries and size <= self.config.max_bytes):
                continue
            with contextlib.suppress(NotSentError), self.entry(key) as entry:
                if entry is not None and entry.written().state in EVICTABLE:
                    shutil.rmtree(entry.folder, ignore_errors=True)


def _make_private(folder: Path) -> None:
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        _keep_names(each.parent)


def _keep_names(folder: Path) -> None:
    """Has the disk keep which files folder holds, as fsync does what they hold; a name that was just made is lost in a power cut otherwise."""
    if os.name == "nt":
        return  # it opens no folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems that cannot, such as some over a network
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _exchange(partial, path)
        _keep_names(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _exchange(partial: Path, path: Path, tries: int = 10) -> None:
    for left in reversed(range(tries)):
        try:
            os.replace(partial, path)
        except PermissionError:  # on Windows, while another program such as a virus scanner reads it
            if not left:
                raise
            time.sleep(0.05)
        else:
            return


BUSY = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}


def _lock(file) -> bool:
    """Whether file could be locked at once; until it is closed. Raises OSError where files cannot be locked at all."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in BUSY:
            file.close()
            raise
        return False
    return True
