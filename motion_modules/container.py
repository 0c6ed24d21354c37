"""Opens .safetensors and .ckpt files as mapped tensors without trusting a byte of them."""

import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# What parsers of hostile bytes were seen to raise; anything else is a defect of ours and must show as one.
UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, RecursionError,
    RuntimeError, SafetensorError, TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
)  # fmt: skip

# What a pickle of tensors needs. Everything else is either code or an object that only its writer has.
_HARMLESS = re.compile(r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage|torch Size|torch\.storage \w+")
_BEGINNINGS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; download the file from its page"),
    (b"<", "is a web page, not a model; download the file itself, while logged in where its site asks for it"),
    (b"\x80", "is a pickle from before torch 1.6, which can't be read safely; use a .safetensors version of it"),
)


class CheckpointError(ValueError):
    """A file that can't be used. The message is one sentence: the file, what it is, what to do."""

    def __init__(self, path: Path, what: str):
        super().__init__(f"{path.name} {what}.")


@dataclass(frozen=True)
class Tensors:
    """What an open file holds: the shape of every tensor by key, and a way to read one (mapped, not copied)."""

    shapes: Mapping[str, torch.Size]
    read: Callable[[str], Tensor]


def open_tensors(path: Path) -> Tensors:
    """Opens a model file by its content, whatever its extension.

    Memory: the pages that are read, no copies.
    Raises:
        CheckpointError: the file can't be opened, is truncated, compressed, larger inside than outside, or would run code.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            beginning = file.read(24)
    except OSError as error:
        raise CheckpointError(path, f"can't be read ({error.strerror}); check the path and its permissions") from error
    for magic, sentence in _BEGINNINGS:
        if beginning.startswith(magic):
            raise CheckpointError(path, sentence)
    if beginning.startswith(b"PK\x03\x04"):
        return _torch_zip(path, size)
    if beginning[8:9] == b"{":
        return _safetensors(path)
    raise CheckpointError(path, f"({size} bytes) is neither a .safetensors nor a torch file; download it again")


def _safetensors(path: Path) -> Tensors:
    try:
        file = safe_open(path, framework="pt", device="cpu")
        shapes = {key: torch.Size(file.get_slice(key).get_shape()) for key in file.keys()}
    except (OSError, *UNREADABLE) as error:
        raise CheckpointError(path, f"is a truncated or broken .safetensors file ({error}); download it again") from error

    def read(key: str) -> Tensor:
        try:
            return file.get_tensor(key)
        except UNREADABLE as error:
            raise CheckpointError(path, f"has an unreadable tensor {key} ({error}); download it again") from error

    return Tensors(shapes, read)


def _torch_zip(path: Path, size: int) -> Tensors:
    try:
        _inspect_zip(path, size)
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except CheckpointError:
        raise
    except (OSError, *UNREADABLE) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise CheckpointError(path, f"is a truncated or broken torch file ({reason}); download it again or use a .safetensors version") from error
    tensors = {key: value.detach() for key, value in _unwrap(path, content).items() if isinstance(key, str) and isinstance(value, Tensor)}
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(path, f"holds {key} in a form other than plain numbers; use a .safetensors version")
        if tensor.untyped_storage().nbytes() != tensor.numel() * tensor.itemsize:
            raise CheckpointError(path, f"holds {key}, whose shape does not match its bytes; download it again")
    return Tensors({key: tensor.shape for key, tensor in tensors.items()}, tensors.__getitem__)


def _inspect_zip(path: Path, size: int) -> None:
    """Refuses, before torch opens it, a zip that grows when unpacked or whose pickle names anything but tensors."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
            raise CheckpointError(path, "is a compressed zip, which torch never writes; use a .safetensors version")
        if sum(entry.file_size for entry in entries) > size:
            raise CheckpointError(path, "unpacks to more than its own size; do not use it")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                _inspect_pickle(path, archive.read(entry))


def _inspect_pickle(path: Path, data: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("GLOBAL", "INST") and not _HARMLESS.fullmatch(argument):
            raise CheckpointError(path, f"needs the Python object {argument.replace(' ', '.')} to open and could run code; use a .safetensors version")


def _unwrap(path: Path, content: object) -> Mapping:
    """The innermost dict of tensors: `{"state_dict": {...}}`, `{"epoch": 1, "state_dict": {...}}`, `{"anything": {...}}`."""
    for _ in range(4):
        if not isinstance(content, Mapping):
            raise CheckpointError(path, f"holds a {type(content).__name__} instead of named tensors; choose a motion adapter")
        inner = content.get("state_dict", next(iter(content.values())) if len(content) == 1 else None)
        if not isinstance(inner, Mapping):
            return content
        content = inner
    return content
