"""Reads the pickle inside a torch file with an interpreter that imports nothing and calls nothing.

`torch.load` is not used: its safe mode could be made to run code before torch 2.6 (CVE-2025-32434), and in every
version a pickle of forty bytes can ask it for any amount of memory.
"""

import itertools
import pickletools
from dataclasses import dataclass

import torch

# A whole UNet with motion needs a sixth of these. They bound memory: an object is larger than the byte that asks for it.
MAX_OPERATIONS = 400_000

STORAGES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
    "torch ComplexFloatStorage": torch.complex64,
    "torch ComplexDoubleStorage": torch.complex128,
}
_DICT, _TENSOR, _PARAMETER = "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
# All that tensors and plain values beside them need. Anything else is either code or an object that only its writer has.
_HARMLESS = {*STORAGES, _DICT, _TENSOR, _PARAMETER, "torch Size", "_codecs encode"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class Forbidden(Exception):
    """The pickle is more than tensors and plain values. The message completes 'the file ...'."""


@dataclass(frozen=True)
class Storage:
    """The numbers of one entry of the zip."""

    dtype: torch.dtype
    entry: str
    length: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the pickle describes it; nothing of it but the storage's type is verified."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def interpret(data: bytes) -> object:
    """What a pickle says, with a `StoredTensor` for every tensor.

    Lists come back empty and dict keys other than text are dropped: no tensor of a model lies there.

    Raises:
        Forbidden: it names an object or uses an operation that torch.save never needs for tensors, or is far too long.
        ArithmeticError, LookupError, TypeError, ValueError: it is broken.
    """
    machine = _Machine()
    for opcode, argument, _ in itertools.islice(pickletools.genops(data), MAX_OPERATIONS):
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.step(opcode.name, argument)
    raise Forbidden("describes far more than a motion adapter")


class _Machine:
    """The stack and the memo of a running pickle, and the operations that torch.save writes."""

    def __init__(self):
        self.stack: list = []
        self.below: list[list] = []
        self.memo: dict[int, object] = {}

    def step(self, operation: str, argument: object) -> None:
        """Executes one operation, named as in `pickletools`."""
        match operation:
            case "PROTO":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINSTRING":
                self.stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                self.stack.append(_CONSTANTS[operation])
            case "EMPTY_DICT" | "EMPTY_LIST":
                self.stack.append({} if operation == "EMPTY_DICT" else [])
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "TUPLE":
                items = tuple(self._marked())
                self.stack.append(items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(self._pop(int(operation[-1])))
            case "APPENDS":
                self._marked()
            case "APPEND" | "BUILD":
                self.stack.pop()
            case "SETITEM":
                _update(self.stack, self._pop(2))
            case "SETITEMS":
                items = self._marked()
                _update(self.stack, items)
            case "GLOBAL" if argument in _HARMLESS:
                self.stack.append(argument)
            case "GLOBAL" | "INST":
                raise Forbidden(f"needs the Python object {argument.replace(' ', '.')}, so that opening it could run code")
            case "BINPERSID":
                _, kind, entry, _, length = self.stack.pop()
                self.stack.append(Storage(STORAGES[kind], entry, length))
            case "REDUCE":
                self.stack.append(_reduce(*self._pop(2)))
            case _:
                raise Forbidden(f"is not pickled the way torch.save does it ({operation}), so that opening it could run code")

    def _marked(self) -> list:
        """Takes everything above the last mark; `stack` is another list afterwards."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def _pop(self, count: int) -> tuple:
        return tuple(reversed([self.stack.pop() for _ in range(count)]))


def _update(stack: list, items: list | tuple) -> None:
    if type(stack[-1]) is not dict:
        raise TypeError("items for something other than a dict")
    stack[-1].update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if type(key) is str)


def _reduce(function: object, arguments: tuple) -> object:
    """The value of a harmless call. A text in place of the function does no harm, since nothing is called."""
    if function == _DICT:
        return {}
    if function == _PARAMETER:
        return arguments[0]
    if function != _TENSOR:
        return None
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return StoredTensor(storage, offset, shape, stride)
