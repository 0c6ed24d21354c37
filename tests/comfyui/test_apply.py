"""Apply Motion Adapter leaves the MODEL alone, lives under ComfyUI's memory management, and refuses what it can't do."""

import json
import os

import narrow
import pytest
import stacks
import torch
from graphs import context_windows, node, sampled, saved, stack_graph, turbo
from safetensors.torch import save_file

from animatediff_turbo.motion_modules import convert

FILE, FAMILY = "narrow_v2.safetensors", "AnimateDiff-Lightning 4 step"


def ksampler(model, seed=5):
    return node(
        "KSampler", model=model, positive=["2", 0], negative=["2", 1], latent_image=["5", 0], seed=seed, steps=3, cfg=1.5, sampler_name="euler",
        scheduler="simple", denoise=1.0,
    )  # fmt: skip


def look(graph, id_, model, after=None):
    return graph | {id_: node("Testing_Look", model=model, moment=id_, **({"after": after} if after else {}))}


def report(run, id_):
    return json.loads(run.output(id_)["report"][0])


def without_motion(graph):
    """graph with the untouched MODEL sampled by node 20, its latent saved by 21."""
    return graph | {"20": ksampler(["1", 0]), "21": node("SaveLatent", samples=["20", 0], filename_prefix="latents/still")}


def test_the_model_without_motion_is_bit_identical_before_during_and_after(comfy, stack):
    plain = {key: value for key, value in without_motion(stack_graph(stack, FILE, FAMILY)).items() if key not in ("3", "4")}
    before = comfy.run(look(plain, "50", ["1", 0], ["20", 0]))
    still = saved(comfy, before, "21")
    moving = comfy.run(look(sampled(stack_graph(stack, FILE, FAMILY)), "51", ["1", 0], ["10", 0]))
    # both branches of one checkpoint in one graph, another seed so that nothing comes from the cache
    both = look(sampled(without_motion(stack_graph(stack, FILE, FAMILY)), seed=6), "52", ["1", 0], ["10", 0])
    both["20"] = ksampler(["1", 0], seed=6)
    comfy.run(both)
    comfy.post("/free", {"unload_models": True, "free_memory": True})
    after = comfy.run(look(plain, "53", ["1", 0], ["20", 0]))
    assert torch.equal(saved(comfy, after, "21"), still)
    looks = [report(before, "50"), report(moving, "51"), report(after, "53")]
    assert len({entry["hash"] for entry in looks}) == 1
    for entry in looks:
        assert entry["patches"] == entry["object_patches"] == entry["additional"] == entry["attachments"] == []


def test_strength_zero_is_bit_equal_to_no_adapter_on_the_same_schedule(comfy, stack):
    still = saved(comfy, comfy.run(sampled(stack_graph(stack, FILE, FAMILY, strength=0.0))))
    moving = saved(comfy, comfy.run(sampled(stack_graph(stack, FILE, FAMILY, strength=1.0))))
    half = saved(comfy, comfy.run(sampled(stack_graph(stack, FILE, FAMILY, strength=0.5))))
    assert stacks.relative(still, moving) > 0.1 and stacks.relative(half, moving) > 0.01 and stacks.relative(half, still) > 0.01
    graph = {key: value for key, value in stack_graph(stack, FILE, FAMILY).items() if key not in ("3", "4")}
    graph["6"] = node("Testing_Schedule", model=["1", 0], row=FAMILY)
    graph["20"] = ksampler(["6", 0]) | {"inputs": ksampler(["6", 0])["inputs"] | {"steps": 4, "cfg": 1.0}}
    graph["21"] = node("SaveLatent", samples=["20", 0], filename_prefix="latents/scheduled")
    assert torch.equal(saved(comfy, comfy.run(graph), "21"), still)


def test_motion_weights_are_loaded_with_the_model_and_freed_with_it(comfy, stack):
    run = comfy.run(look(sampled(stack_graph(stack, FILE, FAMILY), seed=91), "50", ["4", 0], ["10", 0]))
    assert "MotionModel" in report(run, "50")["loaded"] and report(run, "50")["additional"] == ["animatediff_turbo"]
    assert report(run, "50")["object_patches"] == ["model_sampling"]
    comfy.post("/free", {"unload_models": True, "free_memory": False})
    plain = {key: value for key, value in without_motion(stack_graph(stack, FILE, FAMILY)).items() if key not in ("3", "4")}
    plain["20"] = ksampler(["1", 0], seed=92)
    run = comfy.run(look(plain, "51", ["1", 0], ["20", 0]))
    assert "MotionModel" not in report(run, "51")["loaded"]


def test_a_new_strength_builds_no_second_module(comfy, stack):
    built = comfy.log.count("motion module built")
    comfy.run(sampled(stack_graph(stack, FILE, FAMILY, strength=0.9)))
    comfy.run(sampled(stack_graph(stack, FILE, FAMILY, strength=0.8)))
    assert comfy.log.count("motion module built") <= built + 1


def test_a_replaced_file_is_noticed_and_an_unchanged_graph_runs_nothing(comfy, stack):
    folder = comfy.base / "models" / "animatediff_models"
    motion = narrow.motion_state_dict(stack.unet)
    save_file(convert.to_original(motion), folder / "replaced_v2.safetensors")
    graph = sampled(stack_graph(stack, "replaced_v2.safetensors", FAMILY))
    first = saved(comfy, comfy.run(graph))
    assert comfy.run(graph).executed == []
    save_file(convert.to_original({name: tensor * 0.9 for name, tensor in motion.items()}, None), folder / "replaced_v2.safetensors")
    run = comfy.run(graph)
    assert "3" in run.executed and not torch.equal(saved(comfy, run), first)


def test_a_lora_before_and_after_gives_the_same(comfy, stack):
    generator = torch.Generator().manual_seed(3)
    lora = {}
    for name in ("down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "up_blocks_3_attentions_1_transformer_blocks_0_attn2_to_out_0"):
        lora[f"lora_unet_{name}.lora_down.weight"] = torch.randn(4, 32, generator=generator)
        lora[f"lora_unet_{name}.lora_up.weight"] = torch.randn(32, 4, generator=generator)
        lora[f"lora_unet_{name}.alpha"] = torch.tensor(4.0)
    (comfy.base / "models" / "loras").mkdir(parents=True, exist_ok=True)
    save_file(lora, comfy.base / "models" / "loras" / "narrow_lora.safetensors")
    plain = saved(comfy, comfy.run(sampled(stack_graph(stack, FILE, FAMILY))))
    before = stack_graph(stack, FILE, FAMILY, model=["60", 0]) | {"60": load_lora(["1", 0])}
    after = stack_graph(stack, FILE, FAMILY) | {"60": load_lora(["4", 0])}
    one = saved(comfy, comfy.run(sampled(before)))
    two = saved(comfy, comfy.run(sampled(after, model=("60", 0))))
    assert torch.equal(one, two) and stacks.relative(one, plain) > 1e-3
    assert "NOT LOADED" not in comfy.log


def load_lora(model):
    return node("LoraLoaderModelOnly", model=model, lora_name="narrow_lora.safetensors", strength_model=1.0)


@pytest.mark.parametrize(("options", "dtype"), [({"dtype": "bfloat16"}, "torch.bfloat16"), ({"dtype": "float16", "manual_cast": "float32"}, "torch.float32")])
def test_motion_runs_in_the_dtype_that_the_model_computes_in(comfy, stack, tmp_path, options, dtype):
    low = narrow.write(tmp_path, stack.unet, **options)
    log = tmp_path / "calls.log"
    graph = stack_graph(low, FILE, FAMILY) | {"6": node("Testing_Watch", model=["4", 0], log=str(log), block_at=-1)}
    run = comfy.run(sampled(graph, model=("6", 0)))
    assert not run.error and {json.loads(line)["dtype"] for line in log.read_text().splitlines()} == {dtype}
    assert f"motion module built in {dtype.removeprefix('torch.')}" in comfy.log
    full = saved(comfy, comfy.run(sampled(stack_graph(stack, FILE, FAMILY))))
    assert stacks.relative(saved(comfy, run), full) < (0.2 if dtype == "torch.bfloat16" else 0.01)


@pytest.mark.parametrize("causal", [True, False])
def test_core_context_windows_see_motion_and_a_window_that_is_too_long_names_the_switch(comfy, stack, causal):
    def windows(length):
        graph = stack_graph(stack, FILE, FAMILY, frames=40) | {"6": context_windows(comfy, context_length=length, causal_window_fix=causal)}
        return comfy.run(sampled(graph, model=("6", 0), steps=1))

    assert not windows(16).error
    error = windows(32).error
    assert ("33 frames at once" in error and "causal_window_fix off" in error) if causal else not error


def refusal(comfy, graph):
    return comfy.run(graph).error


def test_impossible_graphs_are_refused_with_one_sentence(comfy, stack, tmp_path):
    graph = stack_graph(stack, FILE, FAMILY)
    twice = graph | {"7": turbo("ApplyMotionAdapter", model=["4", 0], motion_adapter=["3", 0], strength=1.0)}
    assert f"already has the motion adapter {FILE}" in refusal(comfy, sampled(twice, model=("7", 0)))
    foreign = stack_graph(stack, FILE, FAMILY, model=["7", 0]) | {"7": node("Testing_Foreign", model=["1", 0])}
    assert "connect Apply Motion Adapter in front of its node" in refusal(comfy, sampled(foreign))
    assert "connect Apply Motion Adapter between the checkpoint and this node" in refusal(comfy, sampled(graph, model=("1", 0)))
    assert "40 frames at once, but narrow_v2.safetensors knows 32" in refusal(comfy, sampled(stack_graph(stack, FILE, FAMILY, frames=40)))
    assert "steps is 51, but AnimateLCM was distilled on 50" in refusal(comfy, sampled(stack_graph(stack, FILE, "AnimateLCM"), steps=51))
    for kind in ("SDXL", "SD20"):
        (tmp_path / kind).mkdir()
        other = narrow.write(tmp_path / kind, stack.unet, kind=kind)
        assert f"made for SD1.5, but the connected model is {kind}" in refusal(comfy, sampled(stack_graph(other, FILE, FAMILY)))
    wide = {key: tensor for key, tensor in stacks.motion_weights(stacks.Layout((64, 128, 256, 256), 2, True)).items()}
    save_file(convert.to_original(wide), comfy.base / "models" / "animatediff_models" / "wide_v2.safetensors")
    assert "is made for a UNet of widths [64, 128, 256]" in refusal(comfy, sampled(stack_graph(stack, "wide_v2.safetensors", FAMILY)))


def others(motion):
    """Files that are not motion adapters for SD1.5, by name: tensors, and what their sentence must say."""
    one = {"weight": torch.ones(2)}
    return {
        "sdxl": ({key: value for key, value in motion.items() if "blocks.3" not in key}, "is a motion module for SDXL; use one for SD1.5"),
        "hotshot": ({"down_blocks.0.temporal_attentions.0.weight": torch.ones(2)}, "is HotShotXL, a motion module for SDXL; use one for SD1.5"),
        "sparsectrl": (motion | {"controlnet_cond_embedding.conv_in.weight": torch.ones(2)}, "is a SparseCtrl ControlNet"),
        "motion_lora": ({"down_blocks.0.motion_modules.0.attn1.to_q_lora.down.weight": torch.ones(2)}, "is a motion LoRA, not a motion adapter"),
        "lora": ({"lora_unet_conv.lora_down.weight": torch.ones(2)}, "is a LoRA, not a motion adapter"),
        "i2v": (motion | {"img_encoder.weight": torch.ones(2)}, "is AnimateLCM-I2V"),
        "pia": (motion | {"conv_in.weight": torch.ones(4, 9, 3, 3)}, "is PIA"),
        "nothing": (one, "is not a motion adapter, none of its tensors belongs to one"),
        "nan": (motion | {key: value * float("nan") for key, value in motion.items() if key.endswith("proj_in.bias")}, "NaN or infinite values"),
    }


def test_refused_files_and_families_show_their_sentence(comfy, stack):
    folder = comfy.base / "models" / "animatediff_models"
    motion = convert.to_original(narrow.motion_state_dict(stack.unet))
    for name, (tensors, sentence) in others(motion).items():
        save_file(tensors, folder / f"{name}.safetensors")
        error = refusal(comfy, sampled(stack_graph(stack, f"{name}.safetensors")))
        assert error.startswith(f"{name}.safetensors ") and sentence in error and error.count(". ") == 0, error
    save_file(motion, folder / "animatediff_lightning.safetensors")
    assert "choose the family by hand" in refusal(comfy, sampled(stack_graph(stack, "animatediff_lightning.safetensors")))
    assert "has a mid block but AnimateDiff v3 files have none" in refusal(comfy, sampled(stack_graph(stack, FILE, "AnimateDiff v3")))


def test_truncated_and_hostile_files_are_refused_and_run_nothing(comfy, stack, tmp_path):
    folder, marker = comfy.base / "models" / "animatediff_models", tmp_path / "marker"
    whole = (folder / FILE).read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    torch.save({"state_dict": {"down_blocks.0.motion_modules.0.norm.weight": torch.ones(32), "x": Hostile()}}, folder / "hostile.ckpt")
    (folder / "broken.ckpt").write_bytes(b"PK\x03\x04broken")
    for name, words in {"cut.safetensors": "truncated", "hostile.ckpt": "could run code", "broken.ckpt": "truncated or broken"}.items():
        error = refusal(comfy, sampled(stack_graph(stack, name)))
        assert error.startswith(f"{name} ") and words in error, error
    assert not marker.exists()


def test_what_was_found_in_a_file_is_shown_and_logged(comfy, stack):
    folder = comfy.base / "models" / "animatediff_models"
    (folder / "shown_v2.safetensors").write_bytes((folder / FILE).read_bytes())
    run = comfy.run(sampled(stack_graph(stack, "shown_v2.safetensors"), steps=2))
    assert not run.error
    sentence = "shown_v2.safetensors: AnimateDiff v2, by its mid block. 25 steps, guidance 7.5, up to 32 frames."
    assert run.texts["3"] == [sentence] and sentence in comfy.log


def test_a_copy_for_another_gpu_runs_with_a_motion_module_of_its_own(comfy, stack):
    if "MultiGPU_WorkUnits" not in comfy.get("/object_info"):
        pytest.skip("this ComfyUI does not copy models to further GPUs")
    graph = stack_graph(stack, FILE, FAMILY)
    moving = saved(comfy, comfy.run(sampled(graph)))
    copied = graph | {"7": node("Testing_Copy", model=["4", 0], path=stack.unet_file, still=False)}
    assert torch.equal(saved(comfy, comfy.run(sampled(copied, model=("7", 0)))), moving)
    copied["7"]["inputs"]["still"] = True
    still = saved(comfy, comfy.run(sampled(stack_graph(stack, FILE, FAMILY, strength=0.0))))
    assert stacks.relative(saved(comfy, comfy.run(sampled(copied, model=("7", 0)))), still) < 1e-5, "the copy's module runs, not the one it was copied from"
    assert torch.equal(saved(comfy, comfy.run(sampled(graph))), moving)
