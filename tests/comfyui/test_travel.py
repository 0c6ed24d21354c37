"""Prompts and strength that change over the frames and the picture, judged on the tiny model."""


import pytest
import stacks
import torch
from graphs import context_windows, node, sampled, saved, stack_graph, turbo
from safetensors.torch import load_file
from test_tiny import tiny_graph

from animatediff_turbo.headless.tiny import score
from animatediff_turbo.headless.tiny.world import COLOURS, rgb

RED, BLUE = ("a red circle moving right on a black background", "a blue circle moving right on a black background")
FILE, FAMILY = "narrow_v2.safetensors", "AnimateDiff-Lightning 4 step"


def frames(comfy, graph, path):
    run = comfy.run(graph)
    assert not run.error, run.error
    return load_file(path)["frames"]


def travelling(path, prompts, num_frames=16, count=16):
    graph = tiny_graph(RED, "", path, 11)
    graph["2"] = turbo("PromptTravel", clip=["1", 1], prompts=prompts, num_frames=num_frames)
    graph["5"]["inputs"]["num_frames"] = count
    return graph


def test_what_was_read_stands_under_the_node(comfy, tmp_path):
    run = comfy.run(travelling(tmp_path / "x.safetensors", f"8: {BLUE} | 0: {RED}\n8 lines"))
    assert not run.error and run.texts["2"] == [f"0: {RED}\n8 lines\n8: {BLUE}"]


def colours(clip):
    """The colour of each frame's shape: the nearest of red and blue."""
    picture = clip.flatten(1, 2)
    brightest = picture.norm(dim=-1).argmax(1)
    found = picture[torch.arange(len(clip)), brightest]
    distance = torch.stack([(found - rgb(COLOURS[name])).norm(dim=-1) for name in ("red", "blue")])
    return distance.argmin(0).tolist()


@pytest.mark.parametrize("change", [5, 8, 11])
def test_the_colour_changes_at_its_frame(comfy, tmp_path, change):
    path = tmp_path / "frames.safetensors"
    clip = frames(comfy, travelling(path, f"0: {RED} | {change - 1}: {RED} | {change}: {BLUE}"), path)
    seen = colours(clip)
    assert seen == sorted(seen) and abs(seen.count(0) - change) <= 2, seen
    assert score.judge(clip).r2 > 0.9


def test_one_prompt_at_every_frame_is_the_prompt(comfy, tmp_path):
    path = tmp_path / "frames.safetensors"
    plain = frames(comfy, tiny_graph(RED, "", path, 11), path)
    for prompts in (f"0: {RED}", f"3: {RED} | 9: {RED}"):
        assert float((frames(comfy, travelling(path, prompts), path) - plain).abs().max()) <= 1e-5


def test_context_windows_get_the_rows_of_their_frames(comfy, tmp_path):
    path = tmp_path / "frames.safetensors"
    graph = travelling(path, f"0: {RED}\n23: {RED}\n24: {BLUE}", 48, 48)
    graph["20"] = context_windows(comfy)
    graph["6"]["inputs"]["model"] = ["20", 0]
    seen = colours(frames(comfy, graph, path))
    assert seen == sorted(seen) and abs(seen.count(0) - 24) <= 4, seen


def test_prompts_of_different_lengths_are_mixed(comfy, tmp_path):
    path = tmp_path / "frames.safetensors"
    clip = frames(comfy, travelling(path, f"0: {RED} | 15: " + "a blue circle moving right on a black background " * 5), path)
    assert clip.isfinite().all() and colours(clip)[0] == 0


def test_what_is_wrong_is_one_sentence(comfy, tmp_path):
    path = tmp_path / "frames.safetensors"
    assert "'red' is no list of keyframes" in comfy.run(travelling(path, "red")).error
    run = comfy.run(travelling(path, f"0: {RED} | 8: {BLUE}", num_frames=16, count=20))
    assert not run.error
    sentence = "A prompt was made for 16 frames and this clip has 20; set frames in Prompt Travel to 20."
    assert run.texts["6"][-1].splitlines()[1:] == [sentence] and sentence in comfy.log


def strengthened(stack, path=None, **inputs):
    graph = stack_graph(stack, FILE, FAMILY)
    graph["4"]["inputs"] |= inputs
    return graph


def test_a_curve_and_a_mask_of_ones_and_zeros_are_what_they_say(comfy, stack):
    def latents(**inputs):
        graph = strengthened(stack, **inputs) | {"40": node("SolidMask", value=1.0, width=64, height=64), "41": node("SolidMask", value=0.0, width=64, height=64)}
        run = comfy.run(sampled(graph))
        assert not run.error, run.error
        return saved(comfy, run)

    one, half, still = latents(), latents(strength=0.5), latents(strength=0.0)
    assert stacks.relative(latents(strength_over_time="0: 1"), one) <= 1e-6 and stacks.relative(latents(mask=["40", 0]), one) <= 1e-6
    assert stacks.relative(latents(strength_over_time="0: 0.5 | 7: 0.5"), half) <= 1e-6
    assert stacks.relative(latents(strength=0.5, mask=["40", 0]), half) <= 1e-6
    assert torch.equal(latents(mask=["41", 0]), still) and torch.equal(latents(strength_over_time="0: 0"), still)
    assert stacks.relative(latents(strength_over_time="0: 0 | 7: 1"), half) > 0.01


def test_a_bad_curve_and_a_mask_of_another_clip_are_one_sentence(comfy, stack):
    assert "'fast' at frame 0 is no number" in comfy.run(sampled(strengthened(stack, strength_over_time="0: fast"))).error
    graph = strengthened(stack, mask=["42", 0])
    graph |= {"40": node("SolidMask", value=1.0, width=64, height=64), "41": node("MaskToImage", mask=["40", 0])}
    graph |= {"43": node("RepeatImageBatch", image=["41", 0], amount=3), "42": node("ImageToMask", image=["43", 0], channel="red")}
    assert "The mask of Apply Motion Adapter has 3 frames and the clip 8; give one mask, or one for each frame" in comfy.run(sampled(graph)).error


@pytest.mark.parametrize("seed", [4, 6, 7])
def test_a_mask_moves_one_half_only(comfy, tmp_path, seed):
    """At one step, before the halves have grown together: the white one is nearer to the moving clip, the black one to frames that know nothing of each other."""
    path = tmp_path / "frames.safetensors"

    def clip(strength=1.0, **mask):
        graph = tiny_graph("an orange square moving up on a grey background", "", path, seed, steps=1, strength=strength)
        graph["30"] = node("SolidMask", value=0.0, width=128, height=128)
        graph["31"] = node("SolidMask", value=1.0, width=64, height=128)
        graph["32"] = node("MaskComposite", destination=["30", 0], source=["31", 0], x=0, y=0, operation="add")
        graph["4"]["inputs"] |= mask
        return frames(comfy, graph, path)

    masked, moving, still = clip(mask=["32", 0]), clip(), clip(0.0)
    for half, near, far in ((slice(0, 48), moving, still), (slice(80, 128), still, moving)):
        distances = [float((masked - other).abs()[:, :, half].mean()) for other in (near, far)]
        assert distances[0] < 0.85 * distances[1], distances
