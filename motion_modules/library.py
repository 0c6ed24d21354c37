"""Motion adapters by file, so that nobody waits for the same one twice."""

import os
import weakref
from pathlib import Path

from . import checkpoint
from .checkpoint import Checkpoint


class Library:
    """Loads files as `checkpoint.load` does. All who use one at a time share it; one that comes again later is mapped again but not read to its end."""

    def __init__(self):
        self._in_use: weakref.WeakValueDictionary[tuple, Checkpoint] = weakref.WeakValueDictionary()
        self._known: set[tuple] = set()

    def load(self, path: str | os.PathLike, copy: bool = False) -> Checkpoint:
        """Arguments and errors: see `checkpoint.load`. A file that has changed on the drive is another one."""
        path = Path(path)
        if not path.is_file():
            return checkpoint.load(path, copy)  # raises with its sentence
        stat = path.stat()
        state = str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns, copy
        found = self._in_use.get(state)
        if found is None:
            found = checkpoint.load(path, copy, known=state in self._known)
            self._in_use[state] = found
            self._known.add(state)
        return found
