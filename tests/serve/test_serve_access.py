"""Keys in a file, as hashes."""

import os
import stat

import pytest

from animatediff_turbo.serve import access


def test_a_key_is_known_by_its_hash_and_written_nowhere(tmp_path):
    path = tmp_path / "keys.txt"
    key, other = access.new_key(path, "alice"), access.new_key(path, "bob")
    keys = access.read(path)
    assert key.split(":")[1] not in path.read_text() and len(key) > 40
    assert access.owner(keys, f"Key {key}") == "alice" and access.owner(keys, f"key  {other} ") == "bob"
    for wrong in ("", "Key", f"Key {key}x", f"Bearer {key}", key, "Key alice", "Key \u00e9", f"Key {key}\x00"):
        assert access.owner(keys, wrong) is None
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("", "holds no key"), ("# nothing\n", "holds no key"), ("alice\n", "line 1 is not a name and a hash"), ("alice secret\n", "line 1 is not a name and a hash")],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, sentence):
    path = tmp_path / "keys.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        access.read(path)


def test_names_are_unique_and_the_file_must_be_there(tmp_path):
    access.new_key(tmp_path / "keys.txt", "alice")
    with pytest.raises(ValueError, match="has a key of alice already"):
        access.new_key(tmp_path / "keys.txt", "alice")
    with pytest.raises(ValueError, match="is no name for a key"):
        access.new_key(tmp_path / "keys.txt", "al ice")
    with pytest.raises(ValueError, match="can't be read"):
        access.read(tmp_path / "missing.txt")
