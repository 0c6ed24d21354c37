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
    dtype: another one than the run's.
    label: what its ratio to ADE at the same flags may be called.
    on: the device that it is for, "cuda" or "cpu"; empty for both. Another one has to be asked for by its name.
    """

    name: str
    host: str
    pack: str = ""
    flags: tuple[str, ...] = ()
    compiled: bool = False
    tail: str = "save_video"
    peer: str = ""
    dtype: str = ""
    label: str = "exact"
    on: str = ""


CPU_FLAGS = ("--use-pytorch-cross-attention",)
"""The same on a CPU, where ComfyUI's default attention works piece by piece to save memory; diffusers takes torch's."""
ADE, ADE_STOCK, ADE_CPU, DIFFUSERS = "ADE", "ADE, stock flags", "ADE, torch's attention", "diffusers"
FLOAT32 = ("--force-fp32",)

OTHER_MATHS = "other maths (pooled GroupNorm)"

CONTESTANTS = (
    Contestant(ADE, "comfy_host", "ade"),
    Contestant(ADE_STOCK, "comfy_host", "ade", STOCK_FLAGS, label="other precision", on="cuda"),
    Contestant(DIFFUSERS, "diffusers_host", tail="diffusers", label=OTHER_MATHS),
    Contestant("diffusers, compiled", "diffusers_host", compiled=True, tail="diffusers", label=OTHER_MATHS, on="cuda"),
    Contestant("ours", "comfy_host", "ours", tail="best", peer=ADE),
    Contestant("ours, stock flags", "comfy_host", "ours", STOCK_FLAGS, tail="best", peer=ADE_STOCK, on="cuda"),
    Contestant(ADE_CPU, "comfy_host", "ade", CPU_FLAGS, on="cpu"),
    Contestant("ours, torch's attention", "comfy_host", "ours", CPU_FLAGS, tail="best", peer=ADE_CPU, on="cpu"),
    Contestant("ours, compiled", "comfy_host", "ours", STOCK_FLAGS, True, tail="best", peer=ADE_STOCK, on="cuda"),
)
ROWS = {row.name: row for row in CONTESTANTS}
"""By name."""
REFERENCES = (
    Contestant("ADE, float32", "comfy_host", "ade", FLOAT32, dtype="float32"),
    Contestant("diffusers, float32", "diffusers_host", dtype="float32"),
)
"""What half precision is measured against, in the gate alone."""


def label(row: Contestant, baseline: Contestant) -> str:
    """What the ratio of two may be called; empty where none is taken: this pack is measured against everybody else, the others against ADE's defaults."""
    if baseline.pack == "ours" or row.name == baseline.name or (row.pack != "ours" and baseline.name != ADE):
        return ""
    if not baseline.pack:
        return OTHER_MATHS
    return row.label if row.flags == baseline.flags or not row.pack else f"{row.label}; other flags"


def by_name(names: list[str]) -> list[Contestant]:
    """The rows of these names, all without names."""
    if unknown := [name for name in names if name not in ROWS]:
        raise SystemExit(f"There is no contestant {unknown[0]!r}; choose among: {'; '.join(ROWS)}.")
    return [ROWS[name] for name in names] if names else list(CONTESTANTS)
