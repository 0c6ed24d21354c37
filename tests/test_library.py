"""An adapter's bytes are read once, however often it is loaded."""

import gc
import os
import weakref
from collections import Counter

import pytest
import stacks
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from animatediff_turbo.motion_modules import convert
from animatediff_turbo.motion_modules.checkpoint import CheckpointError
from animatediff_turbo.motion_modules.library import Library

LAYOUT = stacks.Layout((32, 64, 64, 64), 1, True)


class Reads(TorchDispatchMode):
    """How many numbers operations have read at each address."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not all(each.alias_info for each in function._schema.returns):  # a view reads nothing, nor does giving a tensor its storage
            for each in args:
                if isinstance(each, torch.Tensor):
                    self.counts[each.data_ptr()] += each.numel()
        return result


def write(path, seed=0, dtype=torch.float16):
    save_file(convert.to_original(stacks.motion_weights(LAYOUT, seed=seed, dtype=dtype)), path)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "adapter_v2.safetensors")


def test_the_first_load_reads_every_tensor_once_and_a_later_one_reads_none(path):
    library = Library()
    with Reads() as reads:
        weights = library.load(path).state_dict
    # safetensors looks at one byte of each
    assert len(weights) == 13 * 26 and {reads.counts[tensor.data_ptr()] - tensor.numel() for tensor in weights.values()} == {1}
    del weights
    gc.collect()
    with Reads() as reads:
        again = library.load(path)
    assert {reads.counts[tensor.data_ptr()] for tensor in again.state_dict.values()} == {1}
    assert all(torch.equal(again.state_dict[name], tensor) for name, tensor in stacks.motion_weights(LAYOUT, dtype=torch.float16).items())
    assert again.positions == 32


def test_who_loads_a_file_in_use_gets_the_same_and_nobody_keeps_it(path):
    library = Library()
    first = library.load(path)
    assert library.load(path) is first and library.load(path, copy=True) is not first
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None


def test_a_replaced_file_is_another_one(path):
    library = Library()
    first = library.load(path, copy=True)
    stat = path.stat()
    write(path, seed=1)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    second = library.load(path, copy=True)
    name = next(name for name, tensor in second.state_dict.items() if tensor.ndim == 2)
    assert second is not first and not torch.equal(first.state_dict[name], second.state_dict[name])
    broken = stacks.motion_weights(LAYOUT, seed=2)
    broken[name][0, 0] = float("nan")
    save_file(convert.to_original(broken), path)
    with pytest.raises(CheckpointError, match="NaN"):
        library.load(path)


def test_a_refused_file_is_refused_again_and_a_missing_one_has_its_sentence(path, tmp_path):
    library = Library()
    broken = stacks.motion_weights(LAYOUT)
    next(tensor for tensor in broken.values() if tensor.ndim == 2)[3, 3] = float("inf")
    save_file(convert.to_original(broken), path)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="NaN or infinite"):
            library.load(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        library.load(tmp_path / "none.safetensors")


def test_large_numbers_whose_sum_overflows_are_no_fault(path):
    weights = stacks.motion_weights(LAYOUT, dtype=torch.float16)
    next(tensor for tensor in weights.values() if tensor.ndim == 2).fill_(60000.0)
    save_file(convert.to_original(weights), path)
    assert Library().load(path).layout == LAYOUT
