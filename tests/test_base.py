"""Base models, adapters and LoRAs from files, for the headless pipeline."""

import shutil

import pytest
import stacks
import torch
from safetensors.torch import save_file

from animatediff_turbo.headless import base, render
from animatediff_turbo.headless.pipeline import Request
from animatediff_turbo.motion_modules import convert
from animatediff_turbo.weights import TINY_BASE, TINY_MOTION

PROMPT = "a red circle moving right on a black background"


@pytest.fixture(scope="module")
def stack():
    return render.load(render.Models(device="cpu"))


def test_a_copy_of_the_tiny_model_is_loaded_from_its_files(tmp_path, stack):
    shutil.copytree(TINY_BASE, tmp_path / "base")
    shutil.copy(TINY_MOTION, tmp_path / "other.safetensors")
    files = render.Models(tmp_path / "base", adapter=tmp_path / "other.safetensors", family="Tiny Turbo", device="cpu")
    request = Request(PROMPT, "", 64, 64, 2, 1)
    assert torch.equal(render.load(files)(request), stack(request))


def test_an_adapter_of_other_widths_is_refused(tmp_path):
    save_file(convert.to_original(stacks.motion_weights()), tmp_path / "mm_v2.safetensors")
    with pytest.raises(ValueError, match=r"made for a UNet of widths \(32, 64, 128, 128\), but the checkpoint has"):
        render.load(render.Models(TINY_BASE, adapter=tmp_path / "mm_v2.safetensors", device="cpu"))


def test_a_lora_is_merged_with_its_strength(tmp_path, stack):
    """Kohya's names, as AnimateLCM's spatial LoRA has them: weight + strength * alpha / rank * up @ down."""
    name, key = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    weight = stack.base.unet.get_submodule(name).weight
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(4, weight.shape[1], generator=generator), torch.randn(weight.shape[0], 4, generator=generator)
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(2.0)}, tmp_path / "lora.safetensors")
    merged = base.load(loras=(base.Lora(tmp_path / "lora.safetensors", 0.8),))
    assert torch.allclose(merged.unet.get_submodule(name).weight, weight + 0.8 * 2 / 4 * up @ down, atol=1e-5)
    others = [key for key, tensor in stack.base.unet.state_dict().items() if not torch.equal(tensor, merged.unet.state_dict()[key])]
    assert others == [f"{name}.weight"]
