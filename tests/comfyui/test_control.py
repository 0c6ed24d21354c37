"""A ControlNet under Context Windows: every window is shown the pictures of its own frames."""

import json

import pytest
import torch
from graphs import context_windows, node, sampled, saved, stack_graph

FILE, FAMILY = "narrow_v2.safetensors", "AnimateDiff-Lightning 4 step"
FRAMES = 32


@pytest.fixture
def latents(comfy, stack):
    def run(changed=(), pictures=FRAMES, frames=FRAMES, windows=None, steps=1, text=False):
        graph = stack_graph(stack, FILE, FAMILY, frames=frames)
        graph["30"] = node("Testing_ControlNet", model=["1", 0], seed=1)
        graph["31"] = node("Testing_Pictures", count=pictures, changed=json.dumps(list(changed)))
        options = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
        graph["32"] = node("ControlNetApplyAdvanced", positive=["2", 0], negative=["2", 1], control_net=["30", 0], image=["31", 0], **options)
        model = ("4", 0)
        if windows is not None:
            graph["33"], model = context_windows(comfy, **windows), ("33", 0)
        graph = sampled(graph, model=model, steps=steps, guidance=1.0)
        graph["10"]["inputs"] |= {"positive": ["32", 0], "negative": ["32", 1]}
        found = comfy.run(graph)
        assert not found.error, found.error
        return found.texts["10"][-1].splitlines() if text else saved(comfy, found)

    return run


def changed_frames(first, second):
    return [number for number in range(len(first)) if not torch.allclose(first[number], second[number], atol=1e-5)]


def test_without_windows_every_frame_has_its_picture(latents):
    assert changed_frames(latents(), latents([20])) != []


def test_a_window_is_shown_its_own_pictures_and_no_others(latents):
    batched = {"context_schedule": "batched", "causal_window_fix": False}  # frames 0 to 15 and 16 to 31, nothing shared
    plain = latents(windows=batched)
    assert changed_frames(plain, latents([20], windows=batched)) == list(range(16, 32))
    assert changed_frames(plain, latents([4], windows=batched)) == list(range(16))
    assert changed_frames(plain, latents(range(32), windows=batched)) == list(range(32))


def test_the_frame_that_the_causal_fix_adds_brings_its_picture(latents):
    batched = {"context_schedule": "batched", "causal_window_fix": True}
    plain = latents(windows=batched)
    assert changed_frames(plain, latents([15], windows=batched)) == list(range(32))
    assert changed_frames(plain, latents([14], windows=batched)) == list(range(16))


def test_nothing_stays_behind_in_the_nodes(latents):
    """The same ControlNet, conditioning and windows node, from the cache, in a run of another length and back."""
    static = {"context_schedule": "standard_static", "causal_window_fix": False}
    first = latents(windows=static, steps=2)
    latents(windows=static, frames=24, pictures=24, steps=2)
    assert torch.equal(latents(windows=static, steps=2), first)


def test_a_controlnet_with_another_number_of_pictures_is_said(latents):
    sentence = "A ControlNet has 8 pictures and this clip 16 frames; give it one, or one for each frame."
    assert latents(pictures=8, frames=16, steps=4, text=True)[1:] == [sentence]
    assert latents(pictures=16, frames=16, steps=4, text=True)[1:] == latents(pictures=1, frames=16, steps=4, text=True)[1:] == []
