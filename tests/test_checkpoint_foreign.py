"""What is not a motion adapter is refused with one sentence: the file, what it is, what to use instead."""

import os
import re

import pytest
import stacks
import torch
from safetensors.torch import save_file

from animatediff_turbo.motion_modules import checkpoint, convert
from animatediff_turbo.motion_modules.config import Layout

LAYOUT = Layout((32, 32, 32, 32), 1, True)
ORIGINAL = convert.to_original(stacks.motion_weights(LAYOUT))
DIFFUSERS = convert.to_diffusers(stacks.motion_weights(LAYOUT))
ENCODING = "down_blocks.0.motion_modules.0.transformer_blocks.0.pos_embed.pe"
PAIR = {"down": torch.ones(4, 32), "up": torch.ones(32, 4)}
MODULE = "down_blocks.0.motion_modules.0"
SPATIAL = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def tensors(*keys):
    return {key: torch.ones(32, 32) for key in keys}


def without(content, *texts):
    return {key: tensor for key, tensor in content.items() if not any(text in key for text in texts)}


def lora(name):
    return {f"{name}.{side}.weight": tensor for side, tensor in PAIR.items()}


ATTENTION = f"{MODULE}.temporal_transformer.transformer_blocks.0.attention_blocks.0"
HOTSHOT = "down_blocks.0.temporal_attentions.0.transformer_blocks.0.attention_blocks.0"
STABLE_DIFFUSION = ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight", "cond_stage_model.logit_scale")
# content, then words that the sentence must have
FOREIGN = {
    "SDXL": (without(ORIGINAL, "down_blocks.3", "up_blocks.3", "mid_block"), "SDXL", "SD1.5"),
    "HotShotXL": (tensors(f"{HOTSHOT}.to_q.weight", f"{HOTSHOT}.pos_encoder.positional_encoding"), "HotShotXL", "SDXL", "SD1.5"),
    "SparseCtrl": (without(ORIGINAL, "up_blocks") | tensors("controlnet_cond_embedding.conv_in.weight"), "SparseCtrl", "ControlNet node"),
    "SparseCtrl of a training": ({"module." + k: v for k, v in tensors("controlnet_cond_embedding.conv_in.weight").items()}, "SparseCtrl"),
    "motion LoRA": (lora(f"{ATTENTION}.processor.to_q_lora"), "motion LoRA", "load it with Load Motion LoRA"),
    "motion LoRA of diffusers": (lora(f"unet.{MODULE}.transformer_blocks.0.attn1.processor.to_q_lora"), "motion LoRA", "load it with Load Motion LoRA"),
    "motion LoRA of peft": (tensors(f"unet.{MODULE}.transformer_blocks.0.attn1.to_q.lora_A.weight"), "motion LoRA", "load it with Load Motion LoRA"),
    "LoRA": (tensors("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "lora_te_text.alpha"), "a LoRA", "models/loras", "Load LoRA"),
    "v3's domain adapter": (lora(f"{SPATIAL}.processor.to_q_lora"), "a LoRA", "models/loras", "Load LoRA"),
    "LoRA of peft": (tensors(f"unet.{SPATIAL}.to_q.lora_A.weight"), "a LoRA", "models/loras", "Load LoRA"),
    "AnimateLCM-I2V": (ORIGINAL | tensors("img_encoder.conv_in.weight"), "AnimateLCM-I2V", "not supported", "AnimateLCM_sd15_t2v.ckpt"),
    "PIA": (ORIGINAL | {"conv_in.weight": torch.ones(320, 9, 3, 3)}, "PIA", "not supported", "text to video"),
    "Stable Diffusion": (tensors(*STABLE_DIFFUSION), "Stable Diffusion", "Load Checkpoint"),
    "UNet of diffusers": (tensors("conv_in.weight", f"{SPATIAL}.to_q.weight"), "not a motion adapter", "choose"),
    "VAE": (tensors("encoder.conv_in.weight", "decoder.conv_out.weight"), "not a motion adapter", "choose"),
    "nothing": ({}, "not a motion adapter", "choose"),
    "5 levels": (ORIGINAL | {f"down_blocks.4{key[13:]}": v.clone() for key, v in ORIGINAL.items() if key.startswith("down_blocks.3")}, "down blocks 0, 1, 2, 3, 4, where"),
    "encoding of its own": (DIFFUSERS | {ENCODING: torch.ones(1, 32, 32)}, "positional encoding of its own", "choose another"),
    "all but one of the encodings": (without(DIFFUSERS, ENCODING), "lacks it in others"),
    "one encoding of a pair": (without(ORIGINAL, f"{ATTENTION}.pos_encoder.pe"), "lacks it in others"),
    "encodings of two lengths": (DIFFUSERS | {ENCODING: torch.ones(1, 16, 32)}, "differing or no length"),
    "both layouts at once": (ORIGINAL | DIFFUSERS, "ambiguous", MODULE),
    "one level only": ({k: v for k, v in ORIGINAL.items() if k.startswith("down_blocks.0")}, "down blocks 0, where", "has 0 to 3"),
    "8 bit": ({key: tensor.to(torch.int8) for key, tensor in ORIGINAL.items()}, "torch.int8", "float16"),
}


def refusal(path):
    with pytest.raises(checkpoint.CheckpointError) as caught:
        checkpoint.load(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path.name} ")
    assert re.fullmatch(r"[^\n]{20,450}[^.]\.", sentence) and not re.search(r"[.!?] ", sentence), sentence
    return sentence


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_another_kind_of_model_is_named_with_what_to_do(tmp_path, kind, suffix):
    path = tmp_path / f"model{suffix}"
    content, *words = FOREIGN[kind]
    save_file(content, path) if suffix == ".safetensors" else torch.save({"state_dict": content}, path)
    sentence = refusal(path)
    assert all(word in sentence for word in words), sentence


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 909000000\n"
BYTES = {
    "Git LFS pointer": (LFS, "Git LFS pointer", "download the file"),
    "web page": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page", "logged in"),
    "web page after blank lines": (b"\xef\xbb\xbf\r\n  <html></html>", "web page", "logged in"),
    "empty": (b"", "is empty", "download it again"),
    "text": (b'{"error": "access to this model is restricted"}', "neither a .safetensors nor a torch file", "download it again"),
    "zeros": (bytes(5000), "(5000 bytes) is neither"),
    "zip of pictures": (b"PK\x05\x06" + bytes(18), "neither"),
}


@pytest.mark.parametrize("kind", BYTES)
def test_another_kind_of_file_is_named_with_what_to_do(tmp_path, kind):
    path = tmp_path / "animatediff.safetensors"
    content, *words = BYTES[kind]
    path.write_bytes(content)
    sentence = refusal(path)
    assert all(word in sentence for word in words), sentence


def test_a_pickle_from_before_the_zip_is_refused(tmp_path):
    path = tmp_path / "old.ckpt"
    torch.save(ORIGINAL, path, _use_new_zipfile_serialization=False)
    assert "before torch 1.6" in refusal(path) and ".safetensors" in refusal(path)


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path):
    (tmp_path / "folder").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder")
    assert "does not exist" in refusal(tmp_path / "missing.ckpt")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_names_its_permissions(tmp_path):
    path = tmp_path / "secret.ckpt"
    torch.save(ORIGINAL, path)
    path.chmod(0)
    assert "permissions" in refusal(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("part", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_called_that(tmp_path, suffix, part):
    path = tmp_path / f"partial{suffix}"
    save_file(ORIGINAL, path) if suffix == ".safetensors" else torch.save(ORIGINAL, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert "truncated" in refusal(path) and "download it again" in refusal(path)


def test_an_object_beside_the_tensors_is_named(tmp_path):
    path = tmp_path / "trained.ckpt"
    torch.save({"state_dict": ORIGINAL, "lr": torch.optim.SGD}, path)
    assert "torch.optim.sgd.SGD" in refusal(path) and ".safetensors" in refusal(path)


def test_a_difference_is_counted_and_shown(tmp_path):
    path = tmp_path / "adapter.safetensors"
    key = f"{MODULE}.proj_in.weight"
    save_file(without(DIFFUSERS, key), path)
    assert f"one tensor, for instance {key} is missing" in refusal(path)
    save_file(DIFFUSERS | {key: torch.ones(32, 64), f"{MODULE}.gate.weight": torch.ones(2)}, path)
    assert "2 of its 338 tensors" in refusal(path) and f"{MODULE}.gate.weight is unknown" in refusal(path)
    save_file(DIFFUSERS | {key: torch.ones(32, 64)}, path)
    assert f"{key} is (32, 64) instead of (32, 32)" in refusal(path)
    save_file(without(DIFFUSERS, f"{MODULE}.norm.weight"), path)
    assert f"lacks {MODULE}.norm.weight" in refusal(path)


def test_a_sentence_stays_short_and_printable_whatever_the_keys_are(tmp_path):
    path = tmp_path / "adapter.ckpt"
    for key in ("\x1b[31m\n\x00\ud800", "a" * 10**5):
        torch.save(ORIGINAL | {f"{MODULE}.{key}": torch.ones(2)}, path)
        sentence = refusal(path)
        assert sentence.isprintable() and sentence.endswith("choose another file.")
