"""What one evaluation costs in operations and bytes, counted without running it: python benchmarks/counters.py [--ade FOLDER]

Deterministic, unlike a clock. Needs a ComfyUI (COMFYUI_PATH or ~/comfy/ComfyUI) for the whole UNet; weights and activations are fakes
without memory (torch's FakeTensorMode), in float16 at the published widths.
"""

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode

LAYOUT = {"aten.clone", "aten.copy_", "aten._to_copy", "aten.contiguous", "aten.copy"}
"""Operations that only move elements (a cast counts as one of them)."""
FREE = {"aten.empty", "aten.empty_strided", "aten.empty_like", "aten.new_empty", "aten.detach", "aten.lift_fresh", "aten._unsafe_view", "aten.empty_permuted"}
"""Operations that launch nothing."""


def _tensors(values: object) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    return [tensor for value in values for tensor in _tensors(value)] if isinstance(values, (list, tuple)) else []


def _bytes(tensor: torch.Tensor) -> int:
    """Those of its elements; an expanded one is read once."""
    sides = (side for side, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or side < 2)
    return torch.Size(sides).numel() * tensor.itemsize


def _is_view(operation: torch._ops.OpOverload) -> bool:
    outputs = operation._schema.returns
    return bool(outputs) and all(each.alias_info is not None and not each.alias_info.is_write for each in outputs)


@dataclass
class Counters(TorchDispatchMode):
    """Counts what runs while it is entered; views and allocations are free.

    operations: aten operations by name. layout_copies: those of `LAYOUT`. bytes: read and written by operations, every argument once.
    """

    operations: Counter = field(default_factory=Counter)
    by_bytes: Counter = field(default_factory=Counter)

    def __post_init__(self):
        super().__init__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = str(func).rpartition(".")[0]
        if name.startswith("aten.") and name not in FREE and not _is_view(func):
            self.operations[name] += 1
            given = _tensors(list(args)) + _tensors(list((kwargs or {}).values()))
            self.by_bytes[name] += sum(map(_bytes, given)) + sum(_bytes(each) for each in _tensors(result) if not any(each is one for one in given))
        return result

    @property
    def total(self) -> int:
        """All operations."""
        return self.operations.total()

    @property
    def layout_copies(self) -> int:
        """Operations that only move elements."""
        return sum(count for name, count in self.operations.items() if name in LAYOUT)

    @property
    def bytes(self) -> int:
        """All bytes read and written."""
        return self.by_bytes.total()
