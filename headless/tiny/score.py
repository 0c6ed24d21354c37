"""A plain judge of clips of the tiny world: no network, only pixels.

Foreground is what is far from the background; its mean colour, its centroid's path and its overlap with templates are compared with the prompt.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .world import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, TRAIL_LENGTH, Scene, masks, rgb

FOREGROUND = 0.6
"""Share of the largest distance from the background from which a pixel is foreground; the trail stays below half."""
MARGIN = 4
"""Pixels beside shape and trail that count as theirs."""
STILL = 2.0
"""A shape that moves less than this many pixels over the clip has no direction."""


@dataclass(frozen=True)
class Verdict:
    """What is seen in one clip.

    shape, colour, direction, background: the names; "none" for a direction without motion and for a clip without a shape.
    r2: of the centroid's line over time along the axis of motion, 0 to 1.
    flicker: mean change from frame to frame of pixels that shape and trail never come near to, in 255ths.
    area_change: (largest - smallest) / median area over the frames.
    """

    shape: str
    colour: str
    direction: str
    background: str
    r2: float
    flicker: float
    area_change: float


NOTHING = Verdict("none", "none", "none", "none", 0.0, 255.0, float("inf"))


def judge(clip: Tensor) -> Verdict:
    """clip: (f, h, w, 3), 0 to 1."""
    pixels = clip.float().clamp(0, 1)
    background = pixels.flatten(0, 2).median(0).values
    distance = (pixels - background).norm(dim=-1)  # f h w
    foreground = distance > FOREGROUND * distance.max()
    areas = foreground.flatten(1).sum(1).float()
    if distance.max() < 0.1 or areas.min() == 0:
        return NOTHING
    colour = _nearest(pixels[foreground].median(0).values, COLOURS)
    centroids = _centroids(foreground)
    direction, r2 = _direction(centroids)
    away = ~_near(foreground.any(0), direction)
    flicker = float((pixels[1:] - pixels[:-1]).abs()[:, away].mean()) * 255 if away.any() else 255.0
    change = float((areas.max() - areas.min()) / areas.median())
    return Verdict(_shape(foreground, centroids), colour, direction, _nearest(background, BACKGROUNDS), r2, flicker, change)


def _near(mask: Tensor, direction: str) -> Tensor:
    """mask, (h, w), with the pixels around it and, along the axis of motion, those that its trail may reach."""
    dx, dy = DIRECTIONS.get(direction, (1, 1))
    reach = [MARGIN + TRAIL_LENGTH * abs(step) for step in (dy, dx)]
    return torch.nn.functional.max_pool2d(mask[None].float(), [2 * r + 1 for r in reach], 1, reach)[0] > 0


def _nearest(colour: Tensor, table: dict[str, tuple[int, int, int]]) -> str:
    return min(table, key=lambda name: float((colour - rgb(table[name])).norm()))


def _centroids(foreground: Tensor) -> Tensor:
    """(f, 2): x and y in pixels."""
    weights = foreground.float()
    count = weights.sum((1, 2))
    x = (weights.sum(1) * (torch.arange(weights.shape[2]) + 0.5)).sum(1) / count
    y = (weights.sum(2) * (torch.arange(weights.shape[1]) + 0.5)).sum(1) / count
    return torch.stack((x, y), 1)


def _direction(centroids: Tensor) -> tuple[str, float]:
    """The name by sign and axis of the regression line, and the line's R2."""
    time = torch.arange(len(centroids)).float()
    time = time - time.mean()
    centred = centroids - centroids.mean(0)
    slope = (time[:, None] * centred).sum(0) / time.square().sum()  # pixels per frame
    axis = int(slope.abs().argmax())
    if abs(float(slope[axis])) * (len(centroids) - 1) < STILL:
        return "none", 0.0
    residual = (centred[:, axis] - time * slope[axis]).square().sum()
    sign = 1 if slope[axis] > 0 else -1
    step = (sign, 0) if axis == 0 else (0, sign)
    name = next(name for name, vector in DIRECTIONS.items() if vector == step)
    return name, float(1 - residual / centred[:, axis].square().sum())


def _shape(foreground: Tensor, centroids: Tensor) -> str:
    """The shape whose outline, centred on each frame's centroid, has the largest mean intersection over union."""

    def overlap(name: str) -> float:
        template = masks(name, centroids, foreground.shape[1]) > 0.5
        return float(((template & foreground).sum((1, 2)) / (template | foreground).sum((1, 2))).mean())

    return max(SHAPES, key=overlap)


@dataclass(frozen=True)
class Score:
    """Shares of right answers, 0 to 1, and medians over many clips; see `Verdict`."""

    colour: float
    direction: float
    shape: float
    background: float
    r2: float
    flicker: float
    area_change: float


def score(clips: Iterable[tuple[Scene, Tensor]]) -> Score:
    """Judges clips, (f, h, w, 3), against the scenes that they should show."""
    right, verdicts = Counter(), []
    for scene, clip in clips:
        verdict = judge(clip)
        verdicts.append(verdict)
        for attribute in ("colour", "direction", "shape", "background"):
            right[attribute] += getattr(verdict, attribute) == getattr(scene, attribute)
    median = {name: float(torch.tensor([getattr(v, name) for v in verdicts]).median()) for name in ("r2", "flicker", "area_change")}
    return Score(**{name: right[name] / len(verdicts) for name in ("colour", "direction", "shape", "background")}, **median)
