"""API graphs for the tests, and reading what they saved."""

import pytest
from safetensors.torch import load_file

LATENT_SCALE = 0.18215


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def turbo(kind, **inputs):
    return node(f"AnimateDiffTurbo_{kind}", **inputs)


def stack_graph(stack, file, family="auto", frames=8, side=64, apply="AnimateDiffTurbo_ApplyMotionAdapter", **options):
    """Nodes 1 to 6: UNet, conds, adapter, apply, latent. The MODEL is ["4", 0]."""
    strength = {} if apply.startswith("Testing") else {"strength": options.get("strength", 1.0)}
    return {
        "1": node("Testing_UNet", path=stack.unet_file),
        "2": node("Testing_Conditioning", path=stack.conds_file),
        "3": turbo("LoadMotionAdapter", file=file, family=family),
        "4": node(apply, model=options.get("model", ["1", 0]), motion_adapter=["3", 0], **strength),
        "5": turbo("EmptyVideoLatent", video_size="custom", width=side, height=side, num_frames=frames),
    }


def sampled(graph, model=("4", 0), seed=5, steps=0, guidance=-1.0, guidance_steps=0, denoise=1.0, latent=("5", 0)):
    """graph with Turbo Sampler as node 10 and its latent saved by node 11."""
    sampler = turbo(
        "TurboSampler", model=list(model), positive=["2", 0], negative=["2", 1], latent=list(latent), seed=seed, steps=steps, guidance=guidance,
        guidance_steps=guidance_steps, denoise=denoise,
    )  # fmt: skip
    return graph | {"10": sampler, "11": node("SaveLatent", samples=["10", 0], filename_prefix="latents/turbo")}


def context_windows(server, model=("4", 0), **options):
    """Core's Context Windows (Manual), length 16 and overlap 4; an option that this ComfyUI has not may only be switched off."""
    spec = server.get("/object_info/ContextWindowsManual")["ContextWindowsManual"]["input"]["required"]
    inputs = {name: each[1].get("default", each[1].get("options", [None])[0]) for name, each in spec.items() if name != "model"}
    if missing := [name for name, value in options.items() if name not in inputs and value]:
        pytest.skip(f"this ComfyUI has no {', '.join(missing)}")
    known = {name: value for name, value in options.items() if name in inputs}
    return node("ContextWindowsManual", model=list(model), **inputs | {"context_length": 16, "context_overlap": 4} | known)


def saved(server, run, id_="11"):
    """The latents that SaveLatent wrote, in the UNet's scale (ComfyUI divides them by 0.18215)."""
    (entry,) = run.output(id_)["latents"]
    return load_file(server.base / "output" / entry["subfolder"] / entry["filename"])["latent_tensor"] * LATENT_SCALE
