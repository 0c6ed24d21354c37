"""What is timed: one row each. The contestants of a row get the same weights, noise, sigmas and embeddings."""

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Scenario:
    """A clip. side: pixels of width and height. tail: whether it is decoded and written as mp4 after sampling."""

    name: str
    frames: int
    steps: int
    guidance: float
    side: int = 512
    tail: bool = True

    @property
    def conds(self) -> int:
        """How many conds a step evaluates."""
        return 2 if self.guidance > 1 else 1

    @property
    def cond_frames(self) -> int:
        """Frames that the UNet sees in the whole run, each cond counted."""
        return self.conds * self.frames * self.steps

    @property
    def shape(self) -> tuple[int, int, int]:
        """What a compiled UNet is compiled for: conds, frames, and pixels of a side."""
        return self.conds, self.frames, self.side

    @property
    def share(self) -> float:
        """About how much longer than another one it takes; the constant is for warm-ups and waiting."""
        return (self.side / 512) ** 2 * (self.cond_frames + 3 * self.frames * self.tail) + 40

    def one_step(self) -> "Scenario":
        """The cheapest run with the same tensors."""
        return replace(self, steps=1)

    def fields(self) -> dict:
        """For JSON."""
        return asdict(self)


def _clip(frames: int, steps: int, guidance: float, side: int = 512, tail: bool = False) -> Scenario:
    return Scenario(f"{frames} frames, {steps} step{'s' * (steps != 1)}, guidance {guidance:g}, {side} px", frames, steps, guidance, side, tail)


HEADLINE = tuple(_clip(*row, tail=True) for row in ((16, 8, 2.0), (16, 4, 1.0), (16, 1, 1.0), (32, 8, 2.0)))
EVALUATION = tuple(_clip(frames, 1, 1.0, side) for frames, side in ((16, 128), (16, 256), (4, 512)))
"""One UNet call each: all that two cores can do of the full size."""
HOST = (Scenario("host: 8 frames, 8 steps, guidance 1, 64 px", 8, 8, 1.0, 64, False),)
"""So little work for the device that a step takes as long as Python and the dispatcher need."""
SWEEPS = {
    "frames": tuple(_clip(frames, 4, 1.0) for frames in (8, 16, 24, 32)),
    "size": tuple(_clip(16, 4, 1.0, side) for side in (256, 384, 512, 768, 1024)),
    "steps": tuple(_clip(16, steps, 2.0) for steps in (1, 2, 4, 8, 12)),
}
SETS = {"headline": HEADLINE, "evaluation": EVALUATION, "host": HOST} | {f"sweep-{name}": rows for name, rows in SWEEPS.items()}
GATE = {
    "cuda": Scenario("gate: 16 frames, 4 steps, guidance 2, 512 px", 16, 4, 2.0, 512, False),
    "cpu": Scenario("gate: 8 frames, 2 steps, guidance 2, 64 px", 8, 2, 2.0, 64, False),
}


def chosen(names: list[str], device: str) -> list[Scenario]:
    """The scenarios of the named sets, or of "frames,steps,guidance[,side]"; without names the device's own."""
    result = []
    for name in names or (["host", "headline"] if device == "cuda" else ["evaluation"]):
        if name in SETS:
            result += SETS[name]
            continue
        numbers = name.split(",")
        if len(numbers) not in (3, 4):
            raise SystemExit(f"The scenario {name!r} is unknown; use {', '.join(SETS)} or frames,steps,guidance[,side].")
        result.append(_clip(int(numbers[0]), int(numbers[1]), float(numbers[2]), int(numbers[3]) if len(numbers) == 4 else 512, tail=True))
    return result
