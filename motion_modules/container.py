"""Opens .safetensors and torch files as mapped tensors without trusting a byte of them."""

import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import pickles

# What parsers of hostile bytes were seen to raise; anything else is a defect of ours and must show as one.
UNREADABLE = (
    ArithmeticError, EOFError, LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError, struct.error, zipfile.BadZipFile,
)  # fmt: skip

# Bytes that describe tensors, in a header, a zip's contents or a pickle; a whole UNet with motion needs a tenth of it.
# It bounds memory, since what is described here becomes objects that are larger than their description.
MAX_DESCRIPTION = 4 * 2**20

_BEGINNINGS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; download the file from its page"),
    (b"<", "is a web page, not a model; download the file itself, logged in where its site asks for it"),
    (b"\x80", "is a pickle from before torch 1.6, which can't be read safely; use a .safetensors version of it"),
)
_TOO_LARGE = "describes far more than a motion adapter; choose another file"
_ENTRY, _END, _END64, _LOCATOR64 = b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"


class CheckpointError(ValueError):
    """A file that can't be used. The message is one sentence: the file, what it is, what to do."""

    def __init__(self, path: Path, what: str):
        # a hostile file's keys may be endless or hold control characters
        short = what if len(what) <= 400 else f"{what[:200]}~{what[-200:]}"
        printable = "".join(letter if letter.isprintable() else "_" for letter in short)
        super().__init__(f"{path.name or path} {printable}.")


@dataclass(frozen=True)
class Tensors:
    """What an open file holds: the shape of every tensor by key, and a way to read one (mapped, not copied)."""

    shapes: Mapping[str, torch.Size]
    read: Callable[[str], Tensor]


def open_tensors(path: Path) -> Tensors:
    """Opens a model file by its content, whatever its extension.

    Memory: the pages that are read, no copies.
    Raises:
        CheckpointError: the file can't be opened, is truncated, compressed, larger inside than outside, or could run code.
    """
    if not path.is_file():
        raise CheckpointError(path, "is a folder; choose a file in it" if path.is_dir() else "does not exist; check its name and folder")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            beginning = file.read(32)
    except OSError as error:
        raise CheckpointError(path, f"can't be read ({error.strerror}); check its permissions") from error
    if beginning.startswith(_ENTRY):
        if path.suffix.lower() == ".safetensors":  # torch.load goes by this ending
            raise CheckpointError(path, "is a torch file with the ending of another kind; rename it to .ckpt")
        return _torch_zip(path, size)
    if beginning[8:9] == b"{":
        return _safetensors(path, int.from_bytes(beginning[:8], "little"))
    # after the formats, whose first bytes are a length and can be anything
    for magic, sentence in _BEGINNINGS:
        if beginning.lstrip(b"\xef\xbb\xbf\t\r\n ").startswith(magic):
            raise CheckpointError(path, sentence)
    raise CheckpointError(path, f"({size} bytes) is neither a .safetensors nor a torch file; download it again" if size else "is empty; download it again")


def _safetensors(path: Path, header: int) -> Tensors:
    try:
        if header > MAX_DESCRIPTION:
            raise CheckpointError(path, _TOO_LARGE)
        file = safe_open(path, framework="pt", device="cpu")
        shapes = {key: torch.Size(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118, safe_open has no iterator
    except CheckpointError:
        raise
    except UNREADABLE as error:
        raise CheckpointError(path, "is a truncated or broken .safetensors file; download it again") from error

    def read(key: str) -> Tensor:
        try:
            return file.get_tensor(key)
        except UNREADABLE as error:
            raise CheckpointError(path, f"holds {key} in a form that can't be read; download it again") from error

    return Tensors(shapes, read)


def _torch_zip(path: Path, size: int) -> Tensors:
    try:
        pickles.inspect(_pickle(path, size))
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except CheckpointError:
        raise
    except pickles.Forbidden as error:
        raise CheckpointError(path, f"{error}; use a .safetensors version") from error
    except UNREADABLE as error:
        raise CheckpointError(path, "is a truncated or broken torch file; download it again or use a .safetensors version") from error
    tensors = {key: value.detach() for key, value in _unwrap(path, content).items() if isinstance(key, str) and isinstance(value, Tensor)}
    for key, tensor in tensors.items():
        _check_storage(path, key, tensor)
    if sum(tensor.nbytes for tensor in tensors.values()) > size:
        raise CheckpointError(path, "describes more numbers than it holds; do not use it")
    return Tensors({key: tensor.shape for key, tensor in tensors.items()}, tensors.__getitem__)


def _pickle(path: Path, size: int) -> bytes:
    """The pickle of a zip that grows in no way when it is unpacked."""
    with path.open("rb") as file:
        if _contents_size(file, size) > MAX_DESCRIPTION:
            raise CheckpointError(path, _TOO_LARGE)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(path, file, size, entries)
            # torch looks names up without regard to case
            found = [entry for entry in entries if entry.filename.lower().endswith("data.pkl")]
            if len(found) != 1:
                raise CheckpointError(path, "is a zip, but not one that torch.save wrote; unpack it if a model is inside")
            if found[0].file_size > MAX_DESCRIPTION:
                raise CheckpointError(path, _TOO_LARGE)
            return archive.read(found[0])


def _contents_size(file: BinaryIO, size: int) -> int:
    """Bytes of a zip's table of contents, by its end record and, where there is one, its 64 bit end record."""
    file.seek(max(size - 98, 0))
    tail = file.read().rjust(98, b"\0")
    if tail[76:80] != _END:
        raise zipfile.BadZipFile("the end record is not where it belongs")
    contents = struct.unpack("<L", tail[88:92])[0]
    if tail[56:60] != _LOCATOR64:
        return contents
    contents64, place64 = struct.unpack("<40xQ16xQ", tail[:72])
    if tail[:4] != _END64 or place64 != size - 98 or contents not in (contents64, 0xFFFFFFFF):
        raise zipfile.BadZipFile("the 64 bit end record contradicts the other")
    return contents64


def _check_entries(path: Path, file: BinaryIO, size: int, entries: list[zipfile.ZipInfo]) -> None:
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise CheckpointError(path, "is a compressed zip, which torch never writes; unpack it if a model is inside, else use a .safetensors version")
    end, seen = 0, set()
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        file.seek(entry.header_offset)
        magic, name, extra = struct.unpack("<4s22xHH", file.read(30))
        start = entry.header_offset + 30 + name + extra
        if magic != _ENTRY or entry.header_offset < end or start + entry.file_size > size or entry.filename in seen:
            raise CheckpointError(path, "has entries that overlap, repeat or reach beyond its end; do not use it")
        end = start + entry.file_size
        seen.add(entry.filename)


def _unwrap(path: Path, content: object) -> Mapping:
    """The innermost dict of tensors: `{"state_dict": {...}}`, `{"epoch": 1, "state_dict": {...}}`, `{"anything": {...}}`."""
    for _ in range(4):
        if not isinstance(content, Mapping):
            raise CheckpointError(path, "is a torch file without named tensors; choose a motion adapter")
        inner = content.get("state_dict", next(iter(content.values())) if len(content) == 1 else None)
        if not isinstance(inner, Mapping):
            return content
        content = inner
    return content


def _check_storage(path: Path, key: str, tensor: Tensor) -> None:
    """A tensor must be plain numbers and use every byte of its storage once."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise CheckpointError(path, f"holds {key} in a form other than plain numbers; use a .safetensors version")
    if tensor.storage_offset() != 0 or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.itemsize:
        raise CheckpointError(path, f"holds {key}, whose shape does not match its bytes; download it again or use a .safetensors version")
    if not tensor.is_contiguous() and not tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True)).is_contiguous():
        raise CheckpointError(path, f"holds {key}, whose elements share their bytes; use a .safetensors version")
