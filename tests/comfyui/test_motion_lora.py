"""Load Motion LoRA: ComfyUI's weight patches on the motion module, equal to merged weights; nothing is loaded twice."""

import pytest
import stacks
from graphs import node, sampled, saved, stack_graph, turbo
from safetensors.torch import save_file
from test_numerics import LIGHTNING

from animatediff_turbo.motion_modules import checkpoint, convert, lora

FILE = "narrow_v2.safetensors"
CHANGES = stacks.motion_lora(gain=0.5)


@pytest.fixture(scope="module", autouse=True)
def files(comfy, stack):
    """Two motion LoRAs, one in each layout, and the adapter merged with the first, with both, and with half of the first."""
    folder, adapters = comfy.base / "models" / "animatediff_motion_lora", comfy.base / "models" / "animatediff_models"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(stacks.lora_file(CHANGES), folder / "zoom.safetensors")
    save_file(stacks.lora_file(stacks.motion_lora(rank=2, seed=8, gain=0.5), "diffusers"), folder / "pan.safetensors")
    zoom, pan = (lora.load(folder / name) for name in ("zoom.safetensors", "pan.safetensors"))

    def merge(name, *parts):
        for part, strength in parts:
            save_file(convert.to_original(lora.merged(checkpoint.load(adapters / (FILE if part is parts[0][0] else name)), part, strength)), adapters / name)

    merge("zoomed_v2.safetensors", (zoom, 1.0))
    merge("half_v2.safetensors", (zoom, 0.5))
    merge("both_v2.safetensors", (zoom, 1.0), (pan, -0.7))


def with_loras(stack, *loras):
    graph = stack_graph(stack, FILE, LIGHTNING.name)
    adapter = ["3", 0]
    for number, (name, strength) in enumerate(loras):
        graph[f"7{number}"] = turbo("LoadMotionLora", motion_adapter=adapter, file=name, strength=strength)
        adapter = [f"7{number}", 0]
    graph["4"]["inputs"]["motion_adapter"] = adapter
    return sampled(graph)


def merged(comfy, stack, file):
    return saved(comfy, comfy.run(sampled(stack_graph(stack, file, LIGHTNING.name))))


@pytest.mark.parametrize(
    ("loras", "file"),
    [
        ([("zoom.safetensors", 1.0)], "zoomed_v2.safetensors"),
        ([("zoom.safetensors", 0.5)], "half_v2.safetensors"),
        ([("zoom.safetensors", 1.0), ("pan.safetensors", -0.7)], "both_v2.safetensors"),
    ],
    ids=["full", "half", "two"],
)
def test_it_equals_the_merged_weights(comfy, stack, loras, file):
    found = saved(comfy, comfy.run(with_loras(stack, *loras)))
    expected, plain = merged(comfy, stack, file), merged(comfy, stack, FILE)
    assert stacks.relative(found, expected) <= 1e-6 and stacks.relative(found, plain) > 0.05


def test_it_is_on_what_core_copies_to_another_gpu(comfy, stack):
    if "MultiGPU_WorkUnits" not in comfy.get("/object_info"):
        pytest.skip("this ComfyUI does not copy models to further GPUs")
    graph = with_loras(stack, ("zoom.safetensors", 1.0)) | {"7": node("Testing_Copy", model=["4", 0], path=stack.unet_file, still=False)}
    graph["10"]["inputs"]["model"] = ["7", 0]
    assert stacks.relative(saved(comfy, comfy.run(graph)), merged(comfy, stack, "zoomed_v2.safetensors")) <= 1e-6


def test_strength_zero_is_bit_equal_to_none(comfy, stack):
    run = comfy.run(with_loras(stack, ("zoom.safetensors", 0.0), ("pan.safetensors", 0.0)))
    assert (saved(comfy, run) == merged(comfy, stack, FILE)).all()


def test_a_new_strength_reloads_nothing_and_leaves_no_trace(comfy, stack):
    first = saved(comfy, comfy.run(with_loras(stack, ("zoom.safetensors", 0.3))))
    before = len(comfy.log)
    run = comfy.run(with_loras(stack, ("zoom.safetensors", 0.4)))
    assert "3" not in run.executed and "1" not in run.executed
    assert "motion module built" not in comfy.log[before:] and f"{FILE}:" not in comfy.log[before:]
    assert stacks.relative(saved(comfy, run), first) > 1e-3
    assert (merged(comfy, stack, FILE) == saved(comfy, comfy.run(with_loras(stack)))).all()
    assert (saved(comfy, comfy.run(with_loras(stack, ("zoom.safetensors", 0.3)))) == first).all()


def test_two_strengths_in_one_graph_don_t_mix(comfy, stack):
    graph = with_loras(stack, ("zoom.safetensors", 1.0))
    graph |= {"80": turbo("ApplyMotionAdapter", model=["1", 0], motion_adapter=["3", 0], strength=1.0)}
    graph |= {"81": graph["10"] | {"inputs": graph["10"]["inputs"] | {"model": ["80", 0]}}}
    graph |= {"82": graph["11"] | {"inputs": graph["11"]["inputs"] | {"samples": ["81", 0]}}}
    run = comfy.run(graph)
    assert stacks.relative(saved(comfy, run), merged(comfy, stack, "zoomed_v2.safetensors")) <= 1e-6
    assert (saved(comfy, run, "82") == merged(comfy, stack, FILE)).all()


def test_it_says_what_it_does_and_refuses_other_files(comfy, stack):
    run = comfy.run(with_loras(stack, ("zoom.safetensors", 0.9)))
    assert run.texts["70"][-1] == f"zoom.safetensors: changes 168 weights of {FILE}, strength 0.9."
    save_file(stacks.motion_weights(), comfy.base / "models" / "animatediff_motion_lora" / "adapter.safetensors")
    error = comfy.run(with_loras(stack, ("adapter.safetensors", 1.0))).error
    assert error.startswith("adapter.safetensors ") and "load motion adapters with Load Motion Adapter" in error
