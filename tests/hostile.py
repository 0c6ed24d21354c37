"""Checkpoints that are broken or made to do harm, from a fixed seed: name and bytes, none of which may load."""

import functools
import io
import pickle
import random
import struct
import zipfile

import stacks
import torch
from safetensors.torch import save

from animatediff_turbo.motion_modules import convert
from animatediff_turbo.motion_modules.config import Layout

WEIGHTS = stacks.motion_weights(Layout((32, 32, 32, 32), 1, True), dtype=torch.float16)
ORIGINAL = convert.to_original(WEIGHTS)
MOTION = [key for key in ORIGINAL if not key.endswith(".pe")]
EMPTY_DICT = b"}q\x00("


def zipped(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def both(content):
    return (save({key: tensor.contiguous() for key, tensor in content.items()}), zipped(content))


@functools.cache
def entries():
    """Name and bytes of all that lies in a legal torch file."""
    with zipfile.ZipFile(io.BytesIO(zipped(ORIGINAL))) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def rezipped(change, compression=zipfile.ZIP_STORED):
    """A legal torch file, its entries passed through change(name, bytes) and written by another program."""
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", compression) as target:
        for name, content in entries():
            target.writestr(name, change(name, content))
    return result.getvalue()


def repickled(change):
    """A legal torch file with another pickle, its checksum right."""
    return rezipped(lambda name, content: change(content) if name.endswith("data.pkl") else content)


def truncated(rng):
    for index in range(24):
        content = both(ORIGINAL)[index % 2]
        yield f"{index}", content[: rng.randrange(len(content))]


def shapes(rng):
    changes = (lambda t: t[1:].clone(), lambda t: t[None], lambda t: torch.cat([t, t]), lambda t: t.flatten()[None], lambda t: t.flatten()[:0])
    for index in range(24):
        key = rng.choice(MOTION)
        yield f"{key} {index}", both(ORIGINAL | {key: changes[index % 5](ORIGINAL[key])})[index % 2]


def missing(rng):
    for index in range(24):
        gone = set(rng.sample(MOTION, 1 + index % 3))
        yield f"{gone}", both({key: tensor for key, tensor in ORIGINAL.items() if key not in gone})[index % 2]


def extra(rng):
    texts = ("gate", "attn3", "motion_modules.9.norm", "norms.2", "pos_encoder.pe2", "")
    for index in range(24):
        key = f"{rng.choice(MOTION).rpartition('.')[0]}.{texts[index % 6]}.weight"
        yield key, both(ORIGINAL | {key: torch.ones(1 + index)})[index % 2]


def infinite(rng):
    for index in range(24):
        key = rng.choice(list(ORIGINAL))
        dtype = (torch.float16, torch.bfloat16, torch.float32, torch.float64)[index % 4]
        tensor = ORIGINAL[key].to(dtype, copy=True)
        tensor.view(-1)[rng.randrange(tensor.numel())] = (float("nan"), float("inf"), float("-inf"))[index % 3]
        yield f"{key} {dtype} {index}", both(ORIGINAL | {key: tensor})[index // 2 % 2]


def compressed(rng):
    bomb = bytes(8 * 2**20)
    for index, method in enumerate((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, *[zipfile.ZIP_DEFLATED] * 20)):
        grown = f"/data/{rng.randrange(100)}" if index % 2 else "/data.pkl"
        yield f"{index}", rezipped(lambda name, content, end=grown: bomb if name.endswith(end) else content, method)


def aliased(rng):
    squares = [key for key in MOTION if ORIGINAL[key].dim() == 2]
    for index in range(32):
        key = rng.choice(squares)
        rows, columns = ORIGINAL[key].shape
        tensor = (
            torch.ones(1).half().expand(rows, columns),
            torch.ones(1, columns).half().expand(rows, columns),
            torch.ones(2 * rows, columns).half()[:rows],
            torch.ones(rows * columns + 7).half()[7:].view(rows, columns),
            torch.ones(rows + columns).half().as_strided((rows, columns), (1, 1)),
            torch.ones(rows * columns).half().as_strided((rows, columns), (0, 1)),
        )[index % 6]
        yield f"{key} {index}", zipped(ORIGINAL | {key: tensor})
    shared = {key: torch.ones(ORIGINAL[key].shape).half() for key in squares}
    one = {tensor.shape: tensor for tensor in shared.values()}
    yield "all tensors of a shape in the same bytes", zipped(ORIGINAL | {key: one[tensor.shape] for key, tensor in shared.items()})
    for index in range(8):
        # (32, 32) and its 1024 numbers, as BININT1 and BININT2
        found, instead = ((b"K K \x86", b"K K@\x86"), (b"M\x00\x04t", b"M\x00\x08t"), (b"K K\x01\x86", b"K\x00K\x01\x86"), (b"QK\x00", b"QK\x01"))[index % 4]
        yield f"{found} {index}", repickled(lambda content, a=found, b=instead, n=1 + index: content.replace(a, b, n))


def dtypes(rng):
    others = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
    for index in range(24):
        keys = MOTION if index >= 16 else [rng.choice(MOTION)]
        yield f"{others[index % 8]} {index}", both(ORIGINAL | {key: ORIGINAL[key].to(others[index % 8]) for key in keys})[index // 8 % 2]


def flipped(rng):
    def flip(content, position):
        return content[:position] + bytes([content[position] ^ 1 << rng.randrange(8)]) + content[position + 1 :]

    tensors, archive = both(ORIGINAL)
    header = 8 + int.from_bytes(tensors[:8], "little")
    start = archive.index(EMPTY_DICT)
    end = archive.index(b"PK", start) - 4
    for index in range(30):
        yield f"header {index}", flip(tensors, rng.randrange(header))
    for index in range(20):
        yield f"pickle {index}", flip(archive, rng.randrange(start, end))
    for index in range(20):
        key = rng.choice(MOTION).encode()
        yield f"pickled name {index}", repickled(lambda content, k=key: flip(content, content.index(k) + rng.randrange(len(k))))


def roots(rng):
    deep, nested = ORIGINAL, []
    for _ in range(100):
        deep = {"state_dict": deep}
    for _ in range(300):
        nested = [nested]
    circle = {}
    circle["state_dict"] = circle
    tensors = list(ORIGINAL.values())
    values = [None, 1, 1.5, "text", True, b"bytes", (), [], {}, set(), tensors, tuple(tensors), tensors[0], deep, nested, circle]
    values += [
        {"state_dict": tensors},
        {"state_dict": None} | {"x": 1},
        {1: ORIGINAL, 2: 3},
        {key: 1.0 for key in ORIGINAL},
        {key: [tensor] for key, tensor in ORIGINAL.items()},
    ]
    for index, value in enumerate(values):
        yield f"{index}", zipped(value)
    for opening, closing in ((b"]", b"a"), (b"(", b"t"), (b"", b"\x85"), (b"}X\x01\0\0\0a", b"s")):
        yield f"a million deep {opening}", repickled(lambda content, o=opening, c=closing: b"\x80\x02" + o * 10**6 + b"N" + c * 10**6 + b".")


def zips(rng):
    archive = zipped(ORIGINAL)
    directory = archive.index(b"PK\x01\x02")
    records = [at for at in range(directory, len(archive) - 98) if archive[at : at + 4] == b"PK\x01\x02"]

    def patched(position, form, value):
        return archive[:position] + struct.pack(form, value) + archive[position + struct.calcsize(form) :]

    for index in range(5):
        first, second = rng.sample(records[5:], 2)
        yield f"overlap {index}", patched(first + 42, "<L", struct.unpack("<L", archive[second + 42 : second + 46])[0])
        yield f"size {index}", patched(first + 24, "<L", rng.choice((0, 1, 10**6, 2**32 - 2)))
        yield f"both sizes {index}", patched(first + 20, "<Q", (10**6 << 32) + 10**6)
        yield f"place {index}", patched(first + 42, "<L", rng.randrange(1, 2**31))
        yield f"contents {index}", patched(len(archive) - 10, "<L", rng.randrange(2**31)) if index else patched(len(archive) - 58, "<Q", 2**40)
    names = [name for name, _ in entries()]
    for name in (names[0], names[9], names[-1]):
        twice = io.BytesIO(archive)
        with zipfile.ZipFile(twice, "a") as target:
            target.writestr(name, b"other")
        yield f"{name} twice", twice.getvalue()
    yield "itself inside", rezipped(lambda name, content: archive if name.endswith("data.pkl") else content)
    yield "bytes after", archive + bytes(1000)
    yield "bytes before", b"PK\x03\x04" + bytes(1000) + archive
    yield "two archives", archive + archive
    yield "no pickle", rezipped(lambda name, content: content).replace(b"data.pkl", b"data.pkx")
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as target:
        for index in range(70_000):
            target.writestr(f"a/{index}", b"")
    yield "70000 entries", many.getvalue()


def code(rng, marker):
    """Pickles that create the marker when what they name is called, in every way that pickle has to call it, or that exhaust memory."""
    shell, python = f"touch {marker}".encode(), f"open({str(marker)!r}, 'w')".encode()
    calls = [("posix", "system", shell), ("os", "system", shell), ("nt", "system", shell), ("subprocess", "getoutput", shell), ("os", "popen", shell)]
    calls += [(module, name, python) for module in ("builtins", "__builtin__") for name in ("eval", "exec")]
    calls += [("pathlib", "Path.touch", shell), ("torch", "load", shell), ("torch.storage", "_load_from_bytes", pickle.dumps(print))]
    for module, name, argument in calls:
        text = b"X" + struct.pack("<L", len(argument)) + argument
        m, n = (b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
        path = f"{module}\n{name}\n".encode()
        forms = {"REDUCE": b"c" + path + text + b"\x85R", "INST": b"(" + text + b"i" + path, "OBJ": b"(c" + path + text + b"o"}
        forms |= {"NEWOBJ": b"c" + path + text + b"\x85\x81", "STACK_GLOBAL": m + n + b"\x93" + text + b"\x85R", "BUILD": b"c" + path + text + b"b"}
        for form, payload in forms.items():
            yield f"{module}.{name} {form}", repickled(lambda content, p=payload: content.replace(EMPTY_DICT, EMPTY_DICT + b"X\x01\0\0\0z" + p, 1))
        yield f"{module}.{name} alone", repickled(lambda content, p=forms["REDUCE"]: b"\x80\x02" + p + b".")

    def number(value):
        return b"\x8a\x08" + struct.pack("<q", value)

    bombs = {
        "bytearray": b"c__builtin__\nbytearray\n" + number(10**11) + b"\x85R",
        "storage": b"ctorch.storage\nUntypedStorage\n" + number(10**11) + b"\x85R",
        "tensor": b"ctorch\nFloatTensor\n" + number(10**10) + b"\x85R",
        "extension": b"\x82\x01",
        "memo": b"Nr\xff\xff\xff\xff",
        "long string": b"X\xff\xff\xff\xff",
        "long bytes": b"\x8e" + struct.pack("<Q", 10**12),
        "empty dicts": b"}" * 3_000_000,
        "marks": b"(" * 3_000_000,
        "copies": b"ccollections\nOrderedDict\n(" + b"".join(b"X\x01\0\0\0%c]" % (97 + n % 26) for n in range(100)) + b"d\x85R" * 1000,
        "wide text": b"X" + struct.pack("<L", 3_000_004) + "\U0001f600".encode() + b"a" * 3_000_000,
        "many dimensions": b"(" + b"\x8a\xff" + b"\x7f" * 255 + b"2" * 4 + b"\x86" * 1000,
        "shared tuples": b"K\x01" + b"q\x01h\x01\x86" * 60 + b"Ns",
    }
    for name, payload in bombs.items():
        yield f"bomb: {name}", repickled(lambda content, p=payload: b"\x80\x02" + p + b".")
        yield f"bomb among tensors: {name}", repickled(lambda content, p=payload: content.replace(EMPTY_DICT, EMPTY_DICT + p, 1))


CLASSES = (truncated, shapes, missing, extra, infinite, compressed, aliased, dtypes, flipped, roots, zips)


def cases(marker):
    """Class, name and bytes of every mutation, one at a time."""
    for make in CLASSES:
        for name, content in make(random.Random(make.__name__)):
            yield make.__name__, name, content
    for name, content in code(random.Random("code"), marker):
        yield "code", name, content
