"""Who runs: one row each."""

from dataclasses import dataclass

STOCK_FLAGS = ("--disable-dynamic-vram", "--fast")
"""ComfyUI's own switches with which a run is fastest; --fast allows float16 accumulation and turns its cudaMallocAsync off."""


@dataclass(frozen=True)
class Contestant:
    """One process.

    host: a module of this folder, "comfy_host" or "diffusers_host".
    pack: "ours" or "ade"; empty for diffusers.
    flags: ComfyUI's command line.
    compiled: torch.compile, by core's TorchCompileModel in ComfyUI.
    tail: how frames become a file, a key of `tails.TAILS`.
    peer: whose rounding bounds this one's; empty where the gate asks only for finite latents of the right shape.
    baseline: what its ratio is taken against.
    dtype: another one than the run's.
    label: what its ratio may be called.
    """

    name: str
    host: str
    pack: str = ""
    flags: tuple[str, ...] = ()
    compiled: bool = False
    tail: str = "save_video"
    peer: str = ""
    baseline: str = "ADE"
    dtype: str = ""
    label: str = "exact"


ADE, ADE_STOCK, DIFFUSERS = "ADE", "ADE, stock flags", "diffusers"
FLOAT32 = ("--force-fp32",)

CONTESTANTS = (
    Contestant(ADE, "comfy_host", "ade"),
    Contestant(ADE_STOCK, "comfy_host", "ade", STOCK_FLAGS, label="other precision"),
    Contestant(DIFFUSERS, "diffusers_host", tail="diffusers", label="other maths (pooled GroupNorm)"),
    Contestant("diffusers, compiled", "diffusers_host", compiled=True, tail="diffusers", label="other maths (pooled GroupNorm)"),
    Contestant("ours", "comfy_host", "ours", tail="best", peer=ADE),
    Contestant("ours, stock flags", "comfy_host", "ours", STOCK_FLAGS, tail="best", peer=ADE_STOCK, baseline=ADE_STOCK),
    Contestant("ours, compiled", "comfy_host", "ours", STOCK_FLAGS, True, tail="best", peer=ADE_STOCK, baseline=ADE_STOCK),
)
REFERENCES = (
    Contestant("ADE, float32", "comfy_host", "ade", FLOAT32, dtype="float32"),
    Contestant("diffusers, float32", "diffusers_host", dtype="float32"),
)
"""What half precision is measured against, in the gate alone."""


def by_name(names: list[str]) -> list[Contestant]:
    """The rows of these names, all without names."""
    known = {row.name: row for row in CONTESTANTS}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"There is no contestant {unknown[0]!r}; choose among: {'; '.join(known)}.")
    return [known[name] for name in names] if names else list(CONTESTANTS)
