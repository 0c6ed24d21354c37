"""Motion LoRAs: small files that turn an adapter's movement into a zoom, a pan or a roll (guoyww/AnimateDiff, v2_lora_*.ckpt).

weight + strength * scale * up @ down on the projections of temporal attention; scale is alpha / rank, 1 where the file has no alpha.
"""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from . import container, convert
from .checkpoint import Checkpoint, finite
from .config import Layout
from .container import CheckpointError
from .model import shapes

logger = logging.getLogger(__name__)

# AnimateDiff's and diffusers' "processor.to_q_lora.down", kohya's "to_q.lora_down", PEFT's "to_q.lora_A"
_PART = re.compile(r"(.+\.to_(?:q|k|v|out))(?:\.0)?(?:_lora\.|\.lora_|\.lora\.)(down|up|A|B)(?:\.default)?\.weight")
_ALPHA = re.compile(r"(.+\.to_(?:q|k|v|out))(?:\.0)?(?:_lora|\.lora)?\.alpha")
_DOWN = ("down", "A")


@dataclass(frozen=True)
class LowRank:
    """A change of one weight, scale * up @ down. up: (out, rank); down: (rank, in)."""

    up: Tensor
    down: Tensor
    scale: float

    def delta(self) -> Tensor:
        """(out, in), float32."""
        return self.scale * (self.up.float() @ self.down.float())


@dataclass(frozen=True)
class MotionLora:
    """The verified changes of one file, by the name of the weight (see `convert`) that each belongs to."""

    path: Path
    changes: Mapping[str, LowRank]

    def fitting(self, layout: Layout) -> dict[str, LowRank]:
        """The changes for an adapter of this layout; those of a mid block are left out where it has none, with a warning.

        Raises CheckpointError when the widths are others.
        """
        expected = shapes(layout)
        found = {name: change for name, change in self.changes.items() if layout.mid_block or not name.startswith("mid_block.")}
        for name, change in found.items():
            shape = (change.up.shape[0], change.down.shape[1])
            if name not in expected:
                raise CheckpointError(self.path, f"changes {name}, which this motion adapter has not; use a motion LoRA made for it")
            if shape != tuple(expected[name]):
                raise CheckpointError(self.path, f"is made for an adapter whose {name} is {shape}, here it is {tuple(expected[name])}; use another one")
        if len(found) < len(self.changes):
            logger.warning("%s is made for v2 and its like; %d of its %d changes fit this adapter.", self.path.name, len(found), len(self.changes))
        return found


def load(path: str | os.PathLike) -> MotionLora:
    """Reads and verifies a motion LoRA in AnimateDiff's, diffusers', kohya's or PEFT's names, .safetensors or .ckpt, whatever its rank.

    Raises CheckpointError: the file is missing, broken, hostile or something else; one sentence with the fix.
    """
    path = Path(path)
    tensors = container.open_tensors(path)
    names = {key: convert.our_name(key).replace(".processor.", ".") for key in tensors.shapes}
    motion = {key: name for key, name in names.items() if convert.is_motion(name)}
    if not motion:
        raise CheckpointError(path, "is no motion LoRA, none of its tensors belongs to a motion module; load LoRAs for pictures with Load LoRA")
    parts: dict[str, dict[bool, Tensor]] = {}
    alphas = {}
    for key, name in motion.items():
        tensor = finite(path, key, tensors.read(key))
        if part := _PART.fullmatch(name):
            parts.setdefault(_weight(part[1]), {})[part[2] in _DOWN] = tensor
        elif (alpha := _ALPHA.fullmatch(name)) and tensor.numel() == 1:
            alphas[_weight(alpha[1])] = float(tensor)
        else:
            raise CheckpointError(path, f"holds {key}, which no motion LoRA does; load motion adapters with Load Motion Adapter")
    changes = {name: _change(path, name, both, alphas.get(name)) for name, both in parts.items()}
    logger.info("%s: %d weights at rank %s.", path.name, len(changes), "/".join(sorted({str(len(change.down)) for change in changes.values()})))
    return MotionLora(path, changes)


def _weight(projection: str) -> str:
    return f"{projection}.0.weight" if projection.endswith("to_out") else f"{projection}.weight"


def _change(path: Path, name: str, both: Mapping[bool, Tensor], alpha: float | None) -> LowRank:
    up, down = both.get(False), both.get(True)
    if up is None or down is None:
        raise CheckpointError(path, f"has one half only of the change of {name}; download it again")
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != len(down) or not len(down):
        raise CheckpointError(path, f"has halves of {tuple(up.shape)} and {tuple(down.shape)} for {name}, which don't fit; download it again")
    return LowRank(up, down, 1.0 if alpha is None else alpha / len(down))


def merged(checkpoint: Checkpoint, lora: MotionLora, strength: float) -> dict[str, Tensor]:
    """The checkpoint's tensors with lora's changes added; changed ones in float32, the others as they are."""
    changes = {name: strength * change.delta() for name, change in lora.fitting(checkpoint.layout).items()}
    return {name: tensor.float() + changes[name] if name in changes else tensor for name, tensor in checkpoint.state_dict.items()}
