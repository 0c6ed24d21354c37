"""What has to hold before a time counts: equal work, and latents that differ by rounding alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

ROUNDING = 1.25
"""How much larger than its peer's rounding error a contestant's may be, both against the peer in float32."""
FLOAT32 = 1e-4
"""The largest distance of two float32 runs."""


@dataclass(frozen=True)
class Verdict:
    """One line of the gate. names: the contestants that it is about."""

    names: tuple[str, ...]
    passed: bool
    text: str


def relative(found: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())


def counted(evaluations: list[list[int]]) -> tuple[int, int]:
    """UNet calls, and frames in them with every cond counted. evaluations: conds and rows of each call."""
    return len(evaluations), sum(rows for _, rows in evaluations)


def same_work(evaluations: Mapping[str, list[list[int]]], cond_frames: int, calls: int) -> list[Verdict]:
    """Fails every contestant whose UNet saw another number of frames than the scenario has. A split cond and uncond is said."""
    verdicts = []
    for name, made in evaluations.items():
        found_calls, found = counted(made)
        split = "" if found_calls == calls else f"; cond and uncond were not one batch, {calls} calls were expected"
        verdicts.append(Verdict((name,), found == cond_frames, f"{found_calls} UNet calls, {found} of {cond_frames} cond-frames{split}"))
    return verdicts


def sound(name: str, latents: Tensor, shape: tuple[int, ...]) -> Verdict:
    """Finite and of the right shape."""
    finite = bool(latents.isfinite().all())
    return Verdict((name,), finite and tuple(latents.shape) == shape, f"latents {tuple(latents.shape)}, {'finite' if finite else 'NOT finite'}")


def rounding(name: str, found: Tensor, peer_name: str, peer: Tensor, half: bool, exact: Tensor | None = None) -> Verdict:
    """In half precision: no further from exact, the peer in float32, than ROUNDING times the peer is. In float32: FLOAT32 from the peer."""
    direct = relative(found, peer)
    if not half:
        return Verdict((name, peer_name), direct <= FLOAT32, f"{direct:.1e} from {peer_name}, at most {FLOAT32:.0e}")
    if exact is None:
        return Verdict((name, peer_name), False, f"{direct:.2e} from {peer_name}, whose float32 is not there to compare with")
    own, theirs = relative(found, exact), relative(peer, exact)
    text = f"{own:.2e} from float32, {peer_name} {theirs:.2e}, at most {ROUNDING:g} times it; {direct:.2e} from {peer_name}"
    return Verdict((name, peer_name), own <= ROUNDING * theirs, text)
