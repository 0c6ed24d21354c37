"""The error of `video/`, and the way from what the system says to it."""
import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import av

_NOT_YOURS = "choose a folder you may write to, or close the program that has the file open"
_FULL = "free some disk space, or choose another disk"
_FIXES = {
    errno.ENOENT: "create the folder first", errno.ENOTDIR: "choose a folder, not a file", errno.EISDIR: "choose another file name",
    errno.EACCES: _NOT_YOURS, errno.EPERM: _NOT_YOURS, errno.EROFS: _NOT_YOURS,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: _FULL, errno.EFBIG: _FULL, getattr(errno, "EDQUOT", errno.ENOSPC): _FULL,
}


class VideoError(RuntimeError):
    """A video file could not be written or read: one sentence with the file, what is wrong and the fix."""


@contextlib.contextmanager
def explain_writing(path: Path) -> Iterator[None]:
    """Turn an error of the system or of a codec inside the block into a VideoError about `path` (PyAV's errors do not name the file)."""
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        reason = (error.strerror or str(error)).lower()
        fix = _FIXES.get(error.errno, "choose another format or folder")
        raise VideoError(f"{path} could not be written ({reason}); {fix}.") from error
