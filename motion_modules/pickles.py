"""Looks through the pickle inside a torch file before torch reads it.

`torch.load` with weights_only refuses code, but follows a pickle of forty bytes that asks for any amount of memory (a
`bytearray` of a given length, an encoding applied again and again); what is allowed here can do neither.
"""

import itertools
import pickletools

# A whole UNet with motion needs a sixth of these. They bound memory: an object is larger than the byte that asks for it.
MAX_OPERATIONS = 400_000

_TYPES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "ComplexFloat", "ComplexDouble")
_OBJECTS = ("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch Size")
# All that tensors and plain values beside them need. Anything else is either code or an object that only its writer has.
_HARMLESS = {f"torch {name}Storage" for name in _TYPES} | set(_OBJECTS)
# The operations that torch.save writes for them.
_WRITTEN = {
    "PROTO", "MARK", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "EMPTY_DICT",
    "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT",
    "BINGET", "LONG_BINGET", "GLOBAL", "REDUCE", "BUILD", "BINPERSID",
}  # fmt: skip


class Forbidden(Exception):
    """The pickle is more than tensors and plain values. The message completes 'the file ...'."""


def inspect(data: bytes) -> None:
    """Returns when a pickle holds nothing but tensors and plain values.

    Raises:
        Forbidden: it names an object or uses an operation that torch.save never needs for tensors, or is far too long.
        ValueError: it is broken.
    """
    for opcode, argument, _ in itertools.islice(pickletools.genops(data), MAX_OPERATIONS):
        if opcode.name in ("GLOBAL", "INST") and argument not in _HARMLESS:
            raise Forbidden(f"needs the Python object {argument.replace(' ', '.')}, so that opening it could run code")
        if opcode.name not in _WRITTEN:
            raise Forbidden(f"is not pickled the way torch.save does it ({opcode.name}), so that opening it could run code")
        if opcode.name == "STOP":
            return
    raise Forbidden("describes far more than a motion adapter")
