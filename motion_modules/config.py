"""What differs between adapters: one row each, and how a file is matched to its row."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

AUTO = "auto"


@dataclass(frozen=True)
class Layout:
    """The shape of a motion module as its tensors tell it.

    widths: channels of each level, top (largest picture) first, (320, 640, 1280, 1280) in every published SD1.5 file.
    layers: temporal transformers per down level; each up level has one more.
    mid_block: whether there is one in the middle block (v2 and its descendants).
    """

    widths: tuple[int, ...]
    layers: int
    mid_block: bool

    def channels(self) -> list[int]:
        """The width of every temporal transformer, in the order in which the UNet runs them."""
        down = [width for width in self.widths for _ in range(self.layers)]
        up = [width for width in reversed(self.widths) for _ in range(self.layers + 1)]
        return down + [self.widths[-1]] * self.mid_block + up


@dataclass(frozen=True)
class Adapter:
    """How one family of motion modules was trained to be sampled.

    beta_schedule: diffusers' name ("linear", "scaled_linear"); betas run from 0.00085 to 0.012 over 1000 timesteps.
    spacing: how timesteps are chosen, a key of `schedule.SPACINGS`.
    sampler: a key of `sampling.SAMPLERS`.
    steps, guidance: what its authors recommend; guidance 1 evaluates the prompt alone and costs half.
    max_steps: more are refused.
    distilled_steps: size of the timestep table that an LCM was distilled on; 0 where all 1000 timesteps are trained.
    max_frames: cap when the file does not say (it stores no positional encoding).
    side: width and height in pixels that it was trained on.
    mid_block: whether files of this family have one; None where both occur.
    lora: the spatial LoRA that belongs to it, with its strength; empty where none does.
    warning: one sentence shown to the person who loads it; empty where there is nothing to say.
    step_counts: the only numbers of steps that it was distilled for; empty where any works.
    highest_guidance: above it pictures burn out, because guidance is distilled in; no limit where it is not.
    """

    name: str
    beta_schedule: str
    spacing: str
    sampler: str
    steps: int
    guidance: float
    max_steps: int = 50
    distilled_steps: int = 0
    max_frames: int = 32
    side: int = 512
    mid_block: bool | None = None
    lora: str = ""
    warning: str = ""
    step_counts: tuple[int, ...] = ()
    highest_guidance: float = math.inf


DISTILLED_GUIDANCE = 2.0
"""What distilled adapters bear; AnimateLCM's and the endpoint's own is this much."""


def _lightning(steps: int, *more_steps: int, warning: str = "") -> Adapter:
    # model card and arXiv 2403.12706: linear betas, Euler, trailing, guidance 1 (7.5 is distilled in)
    name = f"AnimateDiff-Lightning {steps} step"
    return Adapter(
        name, "linear", "trailing", "euler", steps, 1.0, mid_block=True, warning=warning, step_counts=(steps, *more_steps),
        highest_guidance=DISTILLED_GUIDANCE,
    )  # fmt: skip


def _lcm(name: str, distilled_steps: int) -> Adapter:
    # model card (50) and the repository's inference-t2v.yaml (100); both linear betas, LoRA at 0.8
    lora = "AnimateLCM_sd15_t2v_lora.safetensors at strength 0.8"
    return Adapter(
        name, "linear", "lcm", "lcm", 8, 2.0, distilled_steps, distilled_steps, mid_block=True, lora=lora, highest_guidance=DISTILLED_GUIDANCE
    )


def _plain(version: str, mid_block: bool, max_frames: int = 32, warning: str = "") -> Adapter:
    # the repository's inference yaml: DDIM (Euler at eta 0), leading spacing, steps_offset 1
    name = f"AnimateDiff {version}"
    return Adapter(name, "linear", "leading", "euler", 25, 7.5, max_frames=max_frames, mid_block=mid_block, warning=warning)


LCM_LORA = Adapter(
    "AnimateDiff v2/v3 with LCM-LoRA", "scaled_linear", "lcm", "lcm", 5, 1.25, 50, 50, lora="lcm-lora-sdv1-5 at strength 1",
    highest_guidance=DISTILLED_GUIDANCE,
)  # fmt: skip

TINY = Adapter("Tiny Turbo", "linear", "lcm", "lcm", 4, 1.0, 8, 8, side=128, mid_block=False, highest_guidance=DISTILLED_GUIDANCE)

_ROWS = (
    _lightning(1, warning="The 1 step file is a research preview with visible noise; 2 or 4 steps look better."),
    _lightning(2, 3),  # the card: "3 inference steps on the 2-step model" work too
    _lightning(4),
    _lightning(8),
    _lcm("AnimateLCM", 50),
    _lcm("AnimateLCM (repo)", 100),
    _plain("v1", False, 24, "v1 was trained with GroupNorm pooled over frames in the whole UNet, which no ComfyUI node does; v2 or v3 look better."),
    _plain("v2", True),
    _plain("v3", False),
    LCM_LORA,
    TINY,
)

ADAPTERS: Mapping[str, Adapter] = MappingProxyType({row.name: row for row in _ROWS})
"""Every family by the name that the nodes show."""


def identify(file_name: str, layout: Layout, positions: int | None) -> tuple[Adapter, str]:
    """The row of a file, and a sentence saying how it was found.

    The tensors separate v1, v3 and the v2 family; within the v2 family v2, Lightning and AnimateLCM have the same
    names and shapes, so the file's name decides.

    Args:
        file_name: the file's name without folders.
        layout: what the tensors say.
        positions: rows of the stored positional encoding, None when the file stores none.
    Raises:
        ValueError: the name says Lightning without a step count, or names a family that the tensors exclude.
    """
    name = file_name.lower()
    if "lightning" in name:
        steps = re.search(r"(\d+)[ _-]?steps?", name)
        row = ADAPTERS.get(f"AnimateDiff-Lightning {steps[1]} step") if steps else None
        if row is None:
            raise ValueError(
                f"{file_name}: a Lightning file works at one step count only, 1, 2, 4 or 8, and this name does not say which; choose the family by hand."
            )
        return check(file_name, row, layout), f"{row.name}, by the file's name"
    if "tiny_turbo" in name:
        return check(file_name, TINY, layout), f"{TINY.name}, by the file's name"
    if "lcm" in name and layout.mid_block:
        return ADAPTERS["AnimateLCM"], "AnimateLCM, by the file's name"
    if layout.mid_block and positions is None:
        return ADAPTERS["AnimateLCM"], "AnimateLCM, because the file stores no positional encoding"
    if layout.mid_block:
        certain = re.search(r"v2|v15_2|v1-5-2", name)
        hint = "" if certain else "; if it is a Lightning or AnimateLCM file under another name, choose that family"
        return ADAPTERS["AnimateDiff v2"], f"AnimateDiff v2, by its mid block{hint}"
    if positions == 24:
        return ADAPTERS["AnimateDiff v1"], "AnimateDiff v1, by its 24 frames and no mid block"
    return ADAPTERS["AnimateDiff v3"], "AnimateDiff v3, because it has no mid block"


def check(file_name: str, row: Adapter, layout: Layout) -> Adapter:
    """Returns row; raises ValueError when the tensors exclude that family."""
    if row.mid_block is not None and row.mid_block != layout.mid_block:
        has, needs = ("a", "none") if layout.mid_block else ("no", "one")
        raise ValueError(f"{file_name} has {has} mid block but {row.name} files have {needs}; choose family '{AUTO}' or another one.")
    return row
