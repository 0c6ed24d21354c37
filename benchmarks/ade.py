"""Final latents beside ComfyUI-AnimateDiff-Evolved's, on the same weights, noise and sigmas: python benchmarks/ade.py --ade FOLDER

Needs a ComfyUI (COMFYUI_PATH or ~/comfy/ComfyUI), a checkout of github.com/Kosinkadink/ComfyUI-AnimateDiff-Evolved, the test requirements,
16 GB of memory and some minutes: its motion model has SD1.5's full widths only. Random weights; writes the table to benchmarks/ADE.md.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "comfyui")]

import narrow
import server as comfy_server
import stacks
from graphs import context_windows, node, saved, stack_graph, turbo

from animatediff_turbo.motion_modules import convert

LINEAR, SCALED = "sqrt_linear (AnimateDiff)", "linear (HotshotXL/default)"
"""ADE's names for the betas of AnimateDiff, and of SD1.5."""
FRAMES = 12


@dataclass(frozen=True)
class Case:
    """One line of the table. file: without its ending. betas: ADE's beta_schedule. lora: strength of a motion LoRA."""

    family: str
    file: str
    steps: int
    guidance: float
    betas: str = LINEAR
    lora: float = 0.0
    frames: int = FRAMES
    windows: bool = False


CASES = (
    Case("AnimateDiff v2", "full_v2", 8, 7.5),
    Case("AnimateDiff v3", "full_v3", 8, 7.5),
    Case("AnimateDiff-Lightning 4 step", "full_v2", 4, 1.0),
    Case("AnimateDiff-Lightning 8 step", "full_v2", 8, 2.0),
    Case("AnimateLCM", "full_lcm", 8, 2.0),
    Case("AnimateLCM", "full_lcm", 4, 1.0),
    Case("AnimateDiff v2/v3 with LCM-LoRA", "full_v2", 5, 1.25, SCALED),
    Case("AnimateDiff-Lightning 4 step", "full_v2", 4, 1.0, lora=0.8),
    Case("AnimateDiff-Lightning 4 step", "full_v2", 4, 1.0, frames=24, windows=True),
)


def install(base: Path) -> narrow.Stack:
    """Random weights of the published widths and names under base/models."""
    unet = narrow.build_unet(stacks.PUBLISHED.widths, 768)
    stack = narrow.write(base, unet)
    motion = {name: tensor.contiguous() for name, tensor in narrow.motion_state_dict(unet).items()}
    folders = [base / "models" / name for name in ("animatediff_models", "animatediff_motion_lora")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    save_file(convert.to_original(motion), folders[0] / "full_v2.safetensors")
    save_file(convert.to_original(motion, None), folders[0] / "full_lcm.safetensors")
    save_file(convert.to_original({name: tensor for name, tensor in motion.items() if not name.startswith("mid_block")}), folders[0] / "full_v3.safetensors")
    save_file(stacks.lora_file(stacks.motion_lora(stacks.PUBLISHED, gain=0.5)), folders[1] / "zoom_v2.safetensors")
    return stack


def graph(stack: narrow.Stack, case: Case, server: comfy_server.Server) -> dict[str, dict]:
    """Both packs' MODELs from one UNet, sampled alike: ours is saved by "11", ADE's by "51"."""
    file = f"{case.file}.safetensors"
    result = stack_graph(stack, file, case.family, frames=case.frames)
    adapter = {"31": turbo("LoadMotionLora", motion_adapter=["3", 0], file="zoom_v2.safetensors", strength=case.lora)} if case.lora else {}
    if case.lora:
        result["4"]["inputs"]["motion_adapter"] = ["31", 0]
    lora = {"motion_lora": ["42", 0]} if case.lora else {}
    ade = {
        "41": node("ADE_LoadAnimateDiffModel", model_name=file),
        "43": node("ADE_ApplyAnimateDiffModelSimple", motion_model=["41", 0], **lora),
        "44": node("ADE_UseEvolvedSampling", model=["1", 0], beta_schedule=case.betas, m_models=["43", 0]),
    }
    if case.lora:
        ade["42"] = node("ADE_AnimateDiffLoRALoader", name="zoom_v2.safetensors", strength=case.lora)
    shared = {
        "20": turbo("TurboSchedule", model=["4", 0], steps=case.steps, denoise=1.0),
        "21": node("RandomNoise", noise_seed=5),
    }
    result |= adapter | ade | shared
    for model, windows, guider, sampler, save in (("4", "22", "23", "10", "11"), ("44", "45", "46", "50", "51")):
        if case.windows:
            result[windows] = context_windows(server, (model, 0), context_length=12, causal_window_fix=False)
            model = windows
        result[guider] = node("CFGGuider", model=[model, 0], positive=["2", 0], negative=["2", 1], cfg=case.guidance)
        result[sampler] = node("SamplerCustomAdvanced", noise=["21", 0], guider=[guider, 0], sampler=["20", 0], sigmas=["20", 1], latent_image=["5", 0])
        result[save] = node("SaveLatent", samples=[sampler, 0], filename_prefix=f"latents/{save}")
    return result


def line(stack: narrow.Stack, case: Case, server: comfy_server.Server) -> str:
    """One row of the Markdown table."""
    run = server.run(graph(stack, case, server))
    what = f"{case.family}, {case.frames} frames" + (f", motion LoRA {case.lora:g}" if case.lora else "") + (", core Context Windows of 12" if case.windows else "")
    if run.error:
        return f"| {what} | {case.steps} | {case.guidance:g} | {case.betas} | ADE stops: {run.error.splitlines()[0]} |"
    ours, theirs = (saved(server, run, id_) for id_ in ("11", "51"))
    return f"| {what} | {case.steps} | {case.guidance:g} | {case.betas} | {stacks.relative(ours, theirs):.1e} |"


def write(lines: list[str], comfyui: Path, ade: Path) -> Path:
    """benchmarks/ADE.md."""
    import comfyui_version

    commit = subprocess.run(["git", "-C", str(ade), "log", "-1", "--format=%h of %as"], capture_output=True, text=True, check=True).stdout.strip()
    about = (
        f"`python benchmarks/ade.py`: ComfyUI {comfyui_version.__version__}, ADE {commit}, torch {torch.__version__}, CPU, float32. Random weights of the "
        "published names and widths, 64x64 pixels; one UNet, one seed, one list of sigmas and one sampler (Turbo Schedule's) for both. The last column is "
        "the relative L2 distance of the final latents."
    )
    head = ["| adapter | steps | guidance | ADE's beta_schedule | distance |", "|---|---|---|---|---|"]
    text = ["# Beside ComfyUI-AnimateDiff-Evolved", "", about, "", *head, *lines, ""]
    path = Path(__file__).with_name("ADE.md")
    path.write_text("\n".join(text), encoding="utf-8")
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ade", type=Path, required=True, help="the checkout of ComfyUI-AnimateDiff-Evolved")
    arguments = parser.parse_args()
    comfyui = comfy_server.find()
    if comfyui is None:
        raise SystemExit("There is no ComfyUI: set COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI.")
    sys.path.append(str(comfyui))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        stack = install(base)
        (base / "custom_nodes").mkdir()
        (base / "custom_nodes" / "ComfyUI-AnimateDiff-Evolved").symlink_to(arguments.ade.resolve(), target_is_directory=True)
        server = comfy_server.Server(comfyui, base)
        try:
            lines = []
            for case in CASES:
                lines.append(line(stack, case, server))
                sys.stdout.write(f"{lines[-1]}\n")
                sys.stdout.flush()
        finally:
            server.stop()
    sys.stdout.write(f"{write(lines, comfyui, arguments.ade)}\n")


if __name__ == "__main__":
    main()
