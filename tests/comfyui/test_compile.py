"""Core's Torch Compile behind Apply Motion Adapter: the same picture as without it, whatever was compiled for the run before."""

import pytest
import server as comfy_server
import torch
from graphs import context_windows, node
from safetensors.torch import load_file
from test_tiny import tiny_graph

PROMPT = "a red circle moving right on a black background"


def clip(comfy, path, compiled, frames=16, windows=None, guidance=1.0, **apply):
    """The frames; one Testing_Compile stays in ComfyUI's cache as long as the MODEL in front of it does."""
    graph = tiny_graph(PROMPT, "a blue star", path, 11, steps=2, guidance=guidance)
    graph["5"]["inputs"] |= {"width": 64, "height": 64, "num_frames": frames}
    graph["4"]["inputs"] |= apply
    model = ["4", 0]
    if "mask" in apply:
        graph |= {"30": node("SolidMask", value=0.5, width=64, height=64)}
    if compiled:
        graph["20"], model = node("Testing_Compile", model=model), ["20", 0]
    if windows is not None:
        graph["21"], model = context_windows(comfy, model, **windows), ["21", 0]
    graph["6"]["inputs"]["model"] = model
    run = comfy.run(graph)
    assert not run.error, run.error
    return load_file(path)["frames"]


RUNS = {
    "16 frames": {},
    "8 frames": {"frames": 8},
    "16 frames again": {},
    "guidance, which doubles the batch of 8 frames": {"frames": 8, "guidance": 2.0},
    "windows of 16 frames, and of 17 where core adds one (by default, from 0.25 on)": {"frames": 24, "windows": {"context_schedule": "standard_static"}},
    "another strength": {"strength": 0.5},
    "none": {"strength": 0.0},
    "a strength by frame": {"strength_over_time": "0: 0 | 15: 1"},
    "a strength by place": {"mask": ["30", 0]},
    "as at first": {},
}


@pytest.fixture(scope="module")
def both(comfy, tmp_path_factory):
    """Every run compiled, in this order, and then not compiled."""
    path = tmp_path_factory.mktemp("compiled") / "frames.safetensors"
    return [{name: clip(comfy, path, compiled, **options) for name, options in RUNS.items()} for compiled in (True, False)]


@pytest.mark.parametrize("name", RUNS)
def test_it_changes_no_picture(both, name):
    compiled, plain = both
    # compiled, ComfyUI's own layers run between the motion modules, which sum in another order
    assert compiled[name].shape == plain[name].shape and float((compiled[name] - plain[name]).abs().max()) <= 1e-4


def test_the_runs_differ_from_each_other(both):
    """Otherwise a graph that was compiled for another of them would not be noticed."""
    plain = {name: clip for name, clip in both[1].items() if len(clip) == 16}
    one = plain.pop("16 frames")
    assert torch.equal(plain.pop("16 frames again"), one) and torch.equal(plain.pop("as at first"), one)
    assert all(float((each - one).abs().max()) > 0.05 for each in plain.values())


def test_a_model_that_ran_without_motion_and_compiled_moves(tmp_path):
    """On a server of its own, which has compiled nothing else: what core's guards leave out must not be what the motion hangs on."""
    path = comfy_server.find()
    if path is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI")
    server = comfy_server.Server(path, tmp_path)
    try:
        still, moving = (_in_front(server, tmp_path / "frames.safetensors", True, motion) for motion in (False, True))
        plain = _in_front(server, tmp_path / "frames.safetensors", False, True)
    finally:
        server.stop()
    assert float((moving - plain).abs().max()) <= 1e-4 and float((moving - still).abs().max()) > 0.05


def _in_front(server, path, compiled, motion):
    graph = tiny_graph(PROMPT, "", path, 11, steps=2, guidance=1.0)
    graph["5"]["inputs"] |= {"width": 64, "height": 64}
    base = ["1", 0]
    if compiled:
        graph["20"], base = node("Testing_Compile", model=base), ["20", 0]
    graph["4"]["inputs"]["model"] = base
    options = {"seed": 11, "steps": 2, "cfg": 1.0, "sampler_name": "lcm", "scheduler": "simple", "denoise": 1.0}
    graph["6"] = node("KSampler", model=["4", 0] if motion else base, positive=["2", 0], negative=["3", 0], latent_image=["5", 0], **options)
    run = server.run(graph)
    assert not run.error, run.error
    return load_file(path)["frames"]
