"""Who may send jobs: keys, of which the server knows nothing but the hash.

A key is 256 random bits, so that one fast hash of it is as good as a slow one: there is nothing to guess.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
HASH = re.compile(r"[0-9a-f]{64}")
EVERYBODY = ""
"""The owner of all jobs where there are no keys."""


def new_key(path: Path, name: str) -> str:
    """Adds a key to the file at path, which is made if there is none, and gives it: the only time that it can be read.

    Raises ValueError for a name that is taken or none, or a file that is no file of keys.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a key; use up to 64 letters, digits, dots, dashes and underscores.")
    taken = read(path) if path.exists() else {}
    if name in taken.values():
        raise ValueError(f"{path} has a key of {name} already; take its line out first, or choose another name.")
    key = f"{name}:{secrets.token_urlsafe(32)}"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{name} {_hash(key)}\n")
    return key


def read(path: Path) -> Mapping[str, str]:
    """The names of a file's keys by their hashes. Each line is a name and the SHA-256 of its key in hex; # begins a comment.

    Raises ValueError for a line that is no such thing, or a file that can't be read or has none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The keys in {path} can't be read ({type(error).__name__}); make one with --new-key NAME --keys FILE.") from error
    found = {}
    for number, line in enumerate(lines, 1):
        parts = line.partition("#")[0].split()
        if not parts:
            continue
        if len(parts) != 2 or not NAME.fullmatch(parts[0]) or not HASH.fullmatch(parts[1]):
            raise ValueError(f"{path.name}, line {number} is not a name and a hash; make keys with --new-key NAME --keys FILE.")
        found[parts[1]] = parts[0]
    if not found:
        raise ValueError(f"{path} holds no key; make one with --new-key NAME --keys FILE.")
    return found


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def owner(keys: Mapping[str, str], header: str) -> str | None:
    """Whose key an Authorization header holds; None when nobody's. Takes the same time for every key that is wrong."""
    scheme, _, key = header.partition(" ")
    presented = _hash(key.strip())
    matching = [name for known, name in keys.items() if hmac.compare_digest(known, presented)]
    return matching[0] if matching and scheme.lower() == "key" else None
