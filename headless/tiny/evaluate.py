"""Scores the tiny model on the held-out pairs: python -m animatediff_turbo.headless.tiny.evaluate

The table has the model as it is used, and what shows each part's share: without its motion module, before distillation
(as such modules are sampled, and as the distilled one is), on another noise schedule.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor
from tqdm import tqdm

from ...motion_modules import checkpoint
from ...motion_modules.config import ADAPTERS, TINY, Adapter
from ...weights import TINY_BASE, TINY_MOTION
from .. import base
from ..pipeline import Request, TextToVideo
from .score import Score, score
from .world import FRAMES, SIDE, TEST_PAIRS, Scene, some_pairs

UNDISTILLED = "undistilled_motion.safetensors"


@dataclass(frozen=True)
class Row:
    """One line of the table. distilled: which of the two motion modules; strength: of the motion module."""

    steps: int = TINY.steps
    adapter: Adapter = TINY
    distilled: bool = True
    strength: float = 1.0


WRONG_BETAS = replace(TINY, beta_schedule="scaled_linear")
"""SD1.5's own, which is what a motion module is sampled with when nobody sets its betas."""

ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "4 steps": Row(),
        "1 step": Row(1),
        "2 steps": Row(2),
        "8 steps": Row(8),
        "no motion module": Row(strength=0.0),
        "before distillation, 25 steps as v3": Row(25, ADAPTERS["AnimateDiff v3"], distilled=False),
        "before distillation, 4 steps as v3": Row(4, ADAPTERS["AnimateDiff v3"], distilled=False),
        "before distillation, 4 steps": Row(distilled=False),
        "before distillation, 2 steps": Row(2, distilled=False),
        "before distillation, 1 step": Row(1, distilled=False),
        "wrong betas (scaled_linear)": Row(adapter=WRONG_BETAS),
        "wrong betas, 1 step": Row(1, WRONG_BETAS),
        "wrong spacing (leading)": Row(adapter=replace(TINY, spacing="leading")),
    }
)


def stacks(folder: Path, device: str = "cpu") -> Callable[[Row], TextToVideo]:
    """From a row to what it samples with, on the weights in folder (`tiny_sd15` and the motion modules)."""
    loaded = base.load(folder / TINY_BASE.name, device=device)
    built = {}

    def stack(row: Row) -> TextToVideo:
        name = TINY_MOTION.name if row.distilled else UNDISTILLED
        if name not in built:
            built[name] = checkpoint.load(folder / name).build(dtype=torch.float32).to(device)
        return TextToVideo(loaded, built[name], row.adapter, FRAMES, row.strength)

    return stack


def clips(stack: TextToVideo, pairs: Iterable[tuple[Scene, int]], steps: int) -> Iterator[tuple[Scene, Tensor]]:
    """Every scene with its clip, (16, 128, 128, 3), from the plain prompt and its seed."""
    for scene, seed in pairs:
        yield scene, stack(Request(scene.prompt, "", SIDE, SIDE, FRAMES, steps, 1.0, seed))


def line(name: str, result: Score) -> str:
    """One row of the Markdown table."""
    shares = (result.colour, result.direction, result.shape, result.background)
    return f"| {name} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + f" | {result.r2:.4f} | {result.flicker:.2f} | {100 * result.area_change:.1f} |"


HEAD = "| | colour % | direction % | shape % | background % | median R2 | flicker /255 | area change % |\n|---|---|---|---|---|---|---|---|"


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=TINY_BASE.parent, help=f"a training folder; the weights of the package without (no {UNDISTILLED} there)")
    counts = range(1, len(TEST_PAIRS) + 1)
    parser.add_argument("--pairs", type=int, default=len(TEST_PAIRS), choices=counts, metavar="N", help="how many of the %(default)s held-out pairs")
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=["4 steps"], metavar="ROW", help=f"any of: {', '.join(ROWS)} (default: 4 steps)")
    arguments = parser.parse_args()
    try:
        _print(arguments.weights, arguments.rows, some_pairs(arguments.pairs))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _print(weights: Path, rows: Iterable[str], pairs: list[tuple[Scene, int]]) -> None:
    stack = stacks(weights)
    sys.stdout.write(f"{HEAD}\n")
    for name in rows:
        row = ROWS[name]
        found = score(clips(stack(row), tqdm(pairs, desc=name, unit="clip", leave=False), row.steps))
        sys.stdout.write(f"{line(name, found)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
