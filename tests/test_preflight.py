"""What is said of a run, from numbers alone; in a real ComfyUI: comfyui/test_preflight.py."""

from dataclasses import replace

import pytest
import torch

from animatediff_turbo.motion_modules import preflight, schedule
from animatediff_turbo.motion_modules.config import ADAPTERS

FILE = "adapter.safetensors"
ROWS = [pytest.param(row, id=row.name) for row in ADAPTERS.values()]
LIGHTNING, LCM, V3 = (ADAPTERS[name] for name in ("AnimateDiff-Lightning 4 step", "AnimateLCM", "AnimateDiff v3"))


def own(row, steps=0, denoise=1.0):
    """A run as the row's authors recommend it."""
    return preflight.Run(16, 16, schedule.sigmas(row, steps, denoise), row.guidance, row.sampler, lora=True, empty=False)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("denoise", [1.0, 0.6, 0.1])
def test_nothing_is_said_of_a_recipe(row, denoise):
    assert preflight.warnings(row, FILE, own(row, denoise=denoise)) == []


@pytest.mark.parametrize("row", ROWS)
def test_timesteps_are_read_back_from_sigmas(row):
    assert preflight.timesteps(row, schedule.sigmas(row, 0)) == schedule.timesteps(row, 0)
    table = schedule.sigma_table(row.beta_schedule)
    between = torch.stack([table[500], (table[300] * table[301]).sqrt(), table[0] * 0])
    assert preflight.timesteps(row, between) in ([500, 300.5], [500, 301.5])


@pytest.mark.parametrize("row", [row for row in ADAPTERS.values() if row.step_counts], ids=lambda row: row.name)
def test_lightning_knows_its_own_numbers_of_steps_only(row):
    for steps in (1, 2, 3, 4, 5, 6, 8, 12):
        said = preflight.warnings(row, FILE, own(row, steps))
        tail = steps == 1 and row.steps == 1
        assert (said == []) == (steps in row.step_counts or tail), (steps, said)


def test_three_steps_on_the_two_step_file_are_right_as_its_card_says():
    row = ADAPTERS["AnimateDiff-Lightning 2 step"]
    assert preflight.warnings(row, FILE, own(row, 3)) == []


def test_a_step_that_is_off_by_one_timestep_is_not_worth_a_word():
    """ComfyUI's scheduler simple at 3 steps: 999, 666, 332 where trailing has 999, 666, 332 or 333."""
    row = ADAPTERS["AnimateDiff-Lightning 2 step"]
    table = schedule.sigma_table("linear")
    near = [t + 1 if t < 999 else t for t in schedule.timesteps(row, 3)]
    assert preflight.warnings(row, FILE, replace(own(row), sigmas=torch.cat([table[near], torch.zeros(1)]))) == []


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("denoise", [1.0, 0.3])
def test_an_empty_latent_needs_all_of_the_noise(row, denoise):
    said = preflight.warnings(row, FILE, replace(own(row, denoise=denoise), empty=True))
    part = denoise < 1 and row.steps > 1  # a single step is of the whole noise
    assert [sentence.split("; ")[1] for sentence in said] == (["set denoise to 1 and the scheduler to simple, or encode a video for the latent."] if part else [])


@pytest.mark.parametrize(("steps", "empty", "few"), [(1, True, True), (2, True, True), (8, False, True), (9, True, True), (2, False, False), (10, True, False), (12, True, False)])
def test_an_adapter_that_is_not_distilled_needs_steps(steps, empty, few):
    said = preflight.warnings(V3, FILE, replace(own(V3, steps), empty=empty))
    start = f"{steps} step{'s are' if steps > 1 else ' is'} too few for {FILE}, which is not distilled; use 25, or a turbo adapter, or an LCM-LoRA and the family"
    assert len(said) == few and all(sentence == f"{start} AnimateDiff v2/v3 with LCM-LoRA." for sentence in said)


def test_nothing_is_said_of_few_steps_where_something_else_is_distilled_or_they_are_a_part():
    table = schedule.sigma_table("linear")
    karras = torch.cat([torch.tensor([float(table[-1] ** (1 / 7) * (1 - i / 9) + table[0] ** (1 / 7) * i / 9) ** 7 for i in range(10)]), torch.zeros(1)])
    assert preflight.warnings(V3, FILE, replace(own(V3, 8), sampler="lcm", empty=True)) == []
    for sigmas in (karras, karras[:4], karras[6:], schedule.sigmas(V3, 10, 0.3)):
        assert preflight.warnings(V3, FILE, replace(own(V3), sigmas=sigmas)) == []


def test_windows_that_do_not_cover_the_clip_are_refused():
    preflight.check_windows(16, 4, 0, 40)
    preflight.check_windows(16, 16, 0, 16)
    preflight.check_windows(1, 0, 0, 16)
    for given, words in {(8, 12, 0, 20): "overlap below the length, such as 2", (16, 16, 0, 33): "overlap 16 and context_length 16", (16, 4, 2, 33): "set dim to 0"}.items():
        with pytest.raises(ValueError, match=words):
            preflight.check_windows(*given)


def test_latents_and_prompts_of_other_models_are_refused():
    preflight.check_latent((16, 4, 64, 64), 4)
    preflight.check_width(768, 768)
    for shape in ((1, 4, 5, 16, 16), (1, 64, 43), (1, 16, 64, 64)):
        with pytest.raises(ValueError, match=r"is \(frames, 4, height / 8, width / 8\); use Empty Video Latent"):
            preflight.check_latent(shape, 4)
    with pytest.raises(ValueError, match="64 numbers wide and this model's is 768; connect CLIP"):
        preflight.check_width(64, 768)


def test_plain_adapters_take_any_sampler_steps_and_guidance():
    table = schedule.sigma_table("linear")
    sigmas = torch.linspace(float(table[-1]), float(table[3]), 31)
    assert preflight.warnings(V3, FILE, replace(own(V3), sigmas=sigmas, guidance=12.0, sampler="dpmpp_2m", lora=False)) == []


def test_every_reason_is_said_at_once_each_with_its_fix():
    run = replace(own(LCM), frames=40, window=8, guidance=7.5, sampler="euler", lora=False, foreign=("other",), sigmas=torch.tensor([25.0, 1.3, 0]))
    said = preflight.warnings(LCM, FILE, run)
    assert [sentence.split("; ")[1] for sentence in said] == [
        "use more frames.",
        "use Turbo Sampler, or the scheduler simple.",
        "choose lcm.",
        "use 2, at most 2.",
        "add AnimateLCM_sd15_t2v_lora.safetensors at strength 0.8 with LoraLoaderModelOnly.",
        "remove its nodes from this model, or Apply Motion Adapter.",
    ]
    assert said[0].startswith("Context Windows hand over 8 frames")


def test_a_prompt_for_another_number_of_frames_is_said():
    assert preflight.warnings(V3, FILE, replace(own(V3), prompt_frames=16)) == []
    (said,) = preflight.warnings(V3, FILE, replace(own(V3), prompt_frames=8))
    assert said == "A prompt was made for 8 frames and this clip has 16; set frames in Prompt Travel to 16."


def test_a_controlnet_with_another_number_of_pictures_is_said():
    assert preflight.warnings(V3, FILE, replace(own(V3), hint_frames=frozenset({1, 16}))) == []
    (said,) = preflight.warnings(V3, FILE, replace(own(V3), hint_frames=frozenset({1, 24})))
    assert said == "A ControlNet has 24 pictures and this clip 16 frames; give it one, or one for each frame."


def test_a_replaced_schedule_is_said_instead_of_what_follows_from_it():
    said = preflight.warnings(LIGHTNING, FILE, replace(own(LIGHTNING, 3), foreign_schedule="ModelSamplingAdvanced", sampler="lcm"))
    assert len(said) == 1 and said[0].startswith("ModelSamplingAdvanced has replaced")
    assert "4 steps" in preflight.summary(LIGHTNING, replace(own(LIGHTNING), foreign_schedule="ModelSamplingAdvanced"))


def test_too_many_frames_stop():
    preflight.check_frames(FILE, 32, 32)
    with pytest.raises(ValueError, match=r"33 frames at once, but adapter.safetensors knows 32; use fewer.*up to 31, or 32 with causal_window_fix off"):
        preflight.check_frames(FILE, 32, 33)
