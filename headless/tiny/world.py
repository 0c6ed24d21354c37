"""The world of the tiny model: one shape with a soft trail, moving steadily over a plain background, and the words for it.

Pictures are float32 RGB, 0 to 1, (f, h, w, 3); places are pixels, x to the right and y down.
"""

import itertools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

SIDE, FRAMES, FPS = 128, 16, 8
SPEED = 3.0
"""Pixels per frame."""

COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (230, 30, 40),
        "green": (30, 180, 60),
        "blue": (50, 90, 255),
        "yellow": (250, 225, 40),
        "cyan": (40, 220, 235),
        "magenta": (230, 50, 215),
        "orange": (255, 130, 20),
        "white": (250, 250, 250),
    }
)
BACKGROUNDS: Mapping[str, tuple[int, int, int]] = MappingProxyType({"black": (5, 5, 5), "grey": (100, 100, 100), "navy": (15, 25, 85)})
DIRECTIONS: Mapping[str, tuple[int, int]] = MappingProxyType({"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)})

ANYWHERE, CROSSING = (math.inf, math.inf), (6.0, 28.0)
"""Where shapes are, see `place`. Stills are of ways anywhere, clips of ways across the middle: there the words and a frame's number tell where the shape
is, in which noise is no help, and a motion module learns it within hundreds of steps."""
REACH = 24
"""No shape reaches farther than this many pixels from its centre."""
TRAIL_LENGTH, TRAIL_OPACITY = 30, 0.45


def _polygon(x: Tensor, y: Tensor, corners: list[tuple[float, float]]) -> Tensor:
    """Signed distance to a polygon, negative inside (crossing number for the sign)."""
    nearest, sign = torch.full_like(x, math.inf), torch.ones_like(x)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
        along = ((px * ex + py * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(nearest, (px - along * ex) ** 2 + (py - along * ey) ** 2)
        above, below, left = y >= ay, y < by, ex * py > ey * px
        sign = torch.where((above & below & left) | (~above & ~below & ~left), -sign, sign)
    return sign * nearest.sqrt()


def _ring(count: int, *radii: float) -> list[tuple[float, float]]:
    """Corners at even angles from the top, their radii taken in turn."""
    angles = [2 * math.pi * i / count for i in range(count)]
    return [(radii[i % len(radii)] * math.sin(a), -radii[i % len(radii)] * math.cos(a)) for i, a in enumerate(angles)]


SHAPES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "circle": lambda x, y: torch.hypot(x, y) - 18,
        "square": lambda x, y: _polygon(x, y, [(-16, -16), (16, -16), (16, 16), (-16, 16)]),
        "triangle": lambda x, y: _polygon(x, y, _ring(3, REACH)),
        "star": lambda x, y: _polygon(x, y, _ring(10, REACH, 10.5)),
    }
)
"""Signed distance from the outline in pixels, the centroid at 0."""


@dataclass(frozen=True)
class Scene:
    """One clip of the world: what is seen, and where its shape is in the middle of the clip, in pixels."""

    shape: str
    colour: str
    direction: str
    background: str
    x: float = SIDE / 2
    y: float = SIDE / 2

    @property
    def prompt(self) -> str:
        """The plain sentence."""
        article = "an" if self.colour[0] in "aeiou" else "a"
        return f"{article} {self.colour} {self.shape} moving {self.direction} on a {self.background} background"

    def centres(self, frames: int = FRAMES) -> Tensor:
        """(frames, 2): x and y of the shape's centroid in each frame."""
        steps = (torch.arange(frames) - (frames - 1) / 2)[:, None] * SPEED
        return torch.tensor([self.x, self.y]) + steps * torch.tensor(DIRECTIONS[self.direction])


COMBINATIONS: tuple[Scene, ...] = tuple(itertools.starmap(Scene, itertools.product(SHAPES, COLOURS, DIRECTIONS, BACKGROUNDS)))


def _is_held_out(scene: Scene) -> bool:
    # every shape, direction and background meets exactly one unseen colour, so that all attributes are tested equally
    shape, colour, direction, background = (
        list(table).index(name)
        for table, name in ((SHAPES, scene.shape), (COLOURS, scene.colour), (DIRECTIONS, scene.direction), (BACKGROUNDS, scene.background))
    )
    return colour == (2 * shape + direction + 3 * background + 1) % len(COLOURS)


HELD_OUT: tuple[Scene, ...] = tuple(scene for scene in COMBINATIONS if _is_held_out(scene))
"""The 48 combinations that no training stage of the diffusion model sees."""
TRAINED: tuple[Scene, ...] = tuple(scene for scene in COMBINATIONS if not _is_held_out(scene))
TEST_SEEDS = (1, 2)
TEST_PAIRS: tuple[tuple[Scene, int], ...] = tuple(itertools.product(HELD_OUT, TEST_SEEDS))
"""The 96 (scene, seed) pairs by which the model is judged."""


def some_pairs(count: int) -> list[tuple[Scene, int]]:
    """A fixed choice of so many of them, the same in every program."""
    return random.Random(0).sample(TEST_PAIRS, count)


def place(scene: Scene, rng: random.Random, spread: tuple[float, float] = ANYWHERE, frames: int = FRAMES) -> Scene:
    """The scene at a random place from where the shape stays in the picture during all frames.

    Args:
        spread: how far from the middle of the picture the middle of the way may lie, in pixels, along the way and across it.
    """
    along, across = spread
    low = []
    for moves in map(abs, DIRECTIONS[scene.direction]):
        farthest = along if moves else across
        low.append(max(REACH + SPEED * (frames - 1) / 2 * moves, SIDE / 2 - farthest))
    x, y = (rng.uniform(margin, SIDE - margin) for margin in low)
    return Scene(scene.shape, scene.colour, scene.direction, scene.background, x, y)


def masks(shape: str, centres: Tensor, side: int = SIDE) -> Tensor:
    """How much of each pixel the shape covers, (f, side, side) from 0 to 1, for centres (f, 2)."""
    axis = torch.arange(side) + 0.5
    distance = SHAPES[shape](axis[None, None, :] - centres[:, 0, None, None], axis[None, :, None] - centres[:, 1, None, None])
    return (0.5 - distance).clamp(0, 1)


def opacity(scene: Scene, centres: Tensor, side: int = SIDE) -> Tensor:
    """How much of each pixel shape and trail cover, (f, side, side) from 0 to 1, for centres (f, 2)."""
    shape = masks(scene.shape, centres, side)
    dx, dy = DIRECTIONS[scene.direction]
    both, padded = shape, torch.nn.functional.pad(shape, (TRAIL_LENGTH,) * 4)
    for step in range(1, TRAIL_LENGTH + 1):
        left, top = TRAIL_LENGTH + dx * step, TRAIL_LENGTH + dy * step
        fading = TRAIL_OPACITY * (1 - step / (TRAIL_LENGTH + 1))
        both = torch.maximum(both, fading * padded[:, top : top + side, left : left + side])
    return both


def render(scene: Scene, centres: Tensor | None = None, side: int = SIDE) -> Tensor:
    """The pictures of a scene, (f, side, side, 3), with the shape at centres, (f, 2); its own 16 when None."""
    covered = opacity(scene, scene.centres() if centres is None else centres, side)[..., None]
    colour, background = rgb(COLOURS[scene.colour]), rgb(BACKGROUNDS[scene.background])
    return background + covered * (colour - background)


def rgb(colour: tuple[int, int, int]) -> Tensor:
    """(3,), 0 to 1."""
    return torch.tensor(colour) / 255
