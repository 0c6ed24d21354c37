"""Motion LoRAs: every published layout is read, what doesn't fit is refused with one sentence."""

import logging

import pytest
import stacks
import torch
from safetensors.torch import save_file

from animatediff_turbo.motion_modules import checkpoint, convert, lora
from animatediff_turbo.motion_modules.config import Layout
from animatediff_turbo.motion_modules.container import CheckpointError

CHANGES = stacks.motion_lora()


def write(folder, tensors, name="v2_lora_ZoomIn.safetensors"):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    return folder / name


@pytest.fixture
def adapter(tmp_path):
    return checkpoint.load(write(tmp_path, convert.to_original(stacks.motion_weights()), "adapter_v2.safetensors"))


@pytest.mark.parametrize("style", ["original", "diffusers", "kohya", "peft"])
def test_every_layout_is_the_same_lora(tmp_path, style):
    tensors = stacks.lora_file(CHANGES, style)
    torch.save(tensors, tmp_path / "x.ckpt")
    for path in (write(tmp_path, tensors), tmp_path / "x.ckpt"):
        found = lora.load(path)
        assert found.changes.keys() == CHANGES.keys()
        for name, (up, down) in CHANGES.items():
            assert torch.equal(found.changes[name].up, up) and torch.equal(found.changes[name].down, down) and found.changes[name].scale == 1


def test_the_published_file_has_168_pairs():
    """v2_lora_*.ckpt: 21 motion modules, 2 attentions, 4 projections."""
    assert len(stacks.motion_lora(Layout((32, 64, 128, 128), 2, True))) == 168


def test_merging_adds_up_times_down(tmp_path, adapter):
    found = lora.load(write(tmp_path, stacks.lora_file(CHANGES)))
    merged = lora.merged(adapter, found, 0.5)
    for name, tensor in adapter.state_dict.items():
        expected = tensor.double() + (0.5 * CHANGES[name][0].double() @ CHANGES[name][1].double() if name in CHANGES else 0)
        assert float((merged[name].double() - expected).abs().max()) < 1e-5
    assert all(torch.equal(merged[name], tensor) for name, tensor in adapter.state_dict.items() if name not in CHANGES)


@pytest.mark.parametrize("key", ["{}_lora.alpha", "{}.alpha", "{}.lora.alpha"])
def test_alpha_scales_by_the_rank(tmp_path, key):
    name = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_out.0.weight"
    up, down = CHANGES[name]
    module = name.removesuffix(".0.weight")
    found = lora.load(write(tmp_path, {f"{module}.lora_up.weight": up, f"{module}.lora_down.weight": down, key.format(module): torch.tensor(2.0)}))
    assert found.changes[name].scale == 0.5
    torch.testing.assert_close(found.changes[name].delta(), 0.5 * up @ down)


def test_an_adapter_without_a_mid_block_takes_the_rest_and_it_is_said(tmp_path, caplog):
    found = lora.load(write(tmp_path, stacks.lora_file(CHANGES)))
    layout = Layout(stacks.NARROW.widths, 2, False)
    with caplog.at_level(logging.WARNING):
        fitting = found.fitting(layout)
    assert len(fitting) == 160 and not any(name.startswith("mid_block") for name in fitting)
    assert caplog.messages == ["v2_lora_ZoomIn.safetensors is made for v2 and its like; 160 of its 168 changes fit this adapter."]


FIRST = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.processor.to_q_lora"
REFUSED = {
    "pictures": ({"lora_unet_down_blocks_0_attentions_0.lora_up.weight": torch.ones(4, 4)}, "is no motion LoRA, none of its tensors belongs to a motion module"),
    "adapter": (convert.to_original(stacks.motion_weights(only="down_blocks.0")), "which no motion LoRA does; load motion adapters with Load Motion Adapter"),
    "half": ({f"{FIRST}.down.weight": torch.ones(4, 32)}, "has one half only of the change of down_blocks.0"),
    "ranks": ({f"{FIRST}.down.weight": torch.ones(4, 32), f"{FIRST}.up.weight": torch.ones(32, 8)}, r"has halves of \(32, 8\) and \(4, 32\)"),
    "flat": ({f"{FIRST}.down.weight": torch.ones(32), f"{FIRST}.up.weight": torch.ones(32)}, r"has halves of \(32,\) and \(32,\)"),
    "nan": ({f"{FIRST}.down.weight": torch.full((4, 32), torch.nan), f"{FIRST}.up.weight": torch.ones(32, 4)}, "has NaN or infinite values"),
}


@pytest.mark.parametrize(("tensors", "sentence"), REFUSED.values(), ids=REFUSED)
def test_other_files_are_refused(tmp_path, tensors, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        lora.load(write(tmp_path, tensors))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere.safetensors"):
        lora.load(tmp_path / "nowhere.safetensors")


def test_an_adapter_of_other_widths_is_refused(tmp_path):
    found = lora.load(write(tmp_path, stacks.lora_file(CHANGES)))
    with pytest.raises(CheckpointError, match=r"is made for an adapter whose .* is \(32, 32\), here it is \(320, 320\)"):
        found.fitting(stacks.PUBLISHED)
