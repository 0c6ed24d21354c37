"""Every published form of a motion adapter loads to the same tensors, mapped from the file."""

import functools
import json
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import stacks
import torch
from safetensors.torch import save_file

from animatediff_turbo.motion_modules import checkpoint, config, convert
from animatediff_turbo.motion_modules.config import Layout

SMALL = Layout((32, 64, 32, 64), 1, True)
WITHOUT_MID = Layout((32, 64, 32, 64), 1, False)
motion_weights = functools.cache(stacks.motion_weights)
PE, ENCODING = ".pos_encoder.pe", ".pos_encoder.pos_encoding"
CONFIG = {"motion_module_type": "Vanilla", "zero_initialize": True, "frames": [16, 24], "rate": 0.5, "none": None, "size": (8, 8)}


def prefixed(prefix, state_dict):
    return {prefix + key: tensor for key, tensor in state_dict.items()}


def renamed(state_dict):
    """AnimateLCM's own name of the encoding."""
    return {key.replace(PE, ENCODING): tensor for key, tensor in state_dict.items()}


def unet(state_dict):
    """The motion module among spatial weights, as a training checkpoint holds it."""
    spatial = ("conv_in.weight", "conv_in.bias", "time_embedding.linear_1.weight", "down_blocks.0.resnets.0.conv1.weight", "conv_out.bias")
    spatial += ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight", "mid_block.resnets.0.norm1.weight", "up_blocks.3.resnets.2.norm2.bias")
    return {name: torch.ones(4, 4) for name in spatial} | state_dict


def training(state_dict):
    return {"epoch": 3, "global_step": 100000, "state_dict": OrderedDict(prefixed("module.", unet(state_dict)))}


def parameters(state_dict):
    return OrderedDict((key, torch.nn.Parameter(tensor)) for key, tensor in state_dict.items())


def original(weights, positions=32):
    return convert.to_original(weights, positions)


def diffusers(weights, positions=32):
    return convert.to_diffusers(weights, positions)


# name: content of the file from our weights, frames that it must be found to store
FLAT = {
    "A, v2": (original, 32),
    "A, 24 frames": (lambda w: original(w, 24), 24),
    "B, AnimateLCM": (lambda w: original(w, None), None),
    "B', AnimateLCM's UNet": (lambda w: renamed(original(w, 64)), 64),
    "C, diffusers": (diffusers, 32),
    "C, without encoding": (lambda w: diffusers(w, None), None),
    "C, 128 frames": (lambda w: diffusers(w, 128), 128),
    "A, among a UNet": (lambda w: unet(original(w)), 32),
    "C, among a UNet": (lambda w: unet(diffusers(w)), 32),
    "A, module.": (lambda w: prefixed("module.", original(w)), 32),
    "A, unet.": (lambda w: prefixed("unet.", original(w)), 32),
    "C, model.": (lambda w: prefixed("model.", diffusers(w)), 32),
    "C, model.unet.module.": (lambda w: prefixed("model.unet.module.", diffusers(w)), 32),
}
NESTED = {
    "D, training": (lambda w: training(original(w)), 32),
    "D, training of AnimateLCM": (lambda w: training(renamed(original(w, 64))), 64),
    "A, state_dict": (lambda w: {"state_dict": original(w)}, 32),
    "A, one arbitrary key": (lambda w: {"motion": original(w)}, 32),
    "A, two levels": (lambda w: {"checkpoint": {"state_dict": original(w)}}, 32),
    "A, animatediff_config beside the tensors": (lambda w: original(w) | {"animatediff_config": CONFIG}, 32),
    "A, animatediff_config beside state_dict": (lambda w: {"state_dict": original(w), "animatediff_config": CONFIG, "epoch": 1}, 32),
    "A, dates and large numbers": (lambda w: original(w) | {"date": "2024", "seed": 2**60, 7: "seven"}, 32),
    "A, a module's state_dict with parameters": (lambda w: parameters(original(w)), 32),
}
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def write(path, content):
    """By extension: .safetensors, else as torch.save does it."""
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in content.items()}, path, metadata={"format": "pt"})
    else:
        torch.save(content, path)
    return path


def assert_same(found, weights, layout, positions):
    assert (found.layout, found.positions) == (layout, positions)
    assert found.state_dict.keys() == weights.keys()
    assert all(torch.equal(found.state_dict[name], tensor) and found.state_dict[name].dtype == tensor.dtype for name, tensor in weights.items())


@pytest.mark.parametrize("layout", [SMALL, WITHOUT_MID], ids=["mid block", "no mid block"])
@pytest.mark.parametrize("suffix, form", [(".safetensors", form) for form in FLAT] + [(".ckpt", form) for form in FLAT | NESTED])
def test_every_form_loads_to_the_same_tensors(tmp_path, suffix, form, layout):
    weights = motion_weights(layout)
    content, positions = (FLAT | NESTED)[form]
    assert_same(checkpoint.load(write(tmp_path / f"adapter{suffix}", content(weights))), weights, layout, positions)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("content", [original, diffusers])
def test_every_dtype_loads_as_it_is_stored(tmp_path, dtype, suffix, content):
    weights = motion_weights(SMALL, dtype=dtype)
    assert_same(checkpoint.load(write(tmp_path / f"adapter{suffix}", content(weights))), weights, SMALL, 32)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_other_widths_and_layers_load(tmp_path, layers):
    layout = Layout((32, 32, 96, 32), layers, True)
    weights = motion_weights(layout)
    assert_same(checkpoint.load(write(tmp_path / "tiny.safetensors", diffusers(weights))), weights, layout, 32)


def test_the_content_decides_and_not_the_extension(tmp_path):
    weights = motion_weights(SMALL)
    write(tmp_path / "a.safetensors", original(weights)).rename(tmp_path / "a.ckpt")
    write(tmp_path / "b.ckpt", original(weights)).rename(tmp_path / "b.safetensors")
    assert_same(checkpoint.load(tmp_path / "a.ckpt"), weights, SMALL, 32)
    with pytest.raises(checkpoint.CheckpointError, match="b.safetensors is a torch file with the ending of another kind; rename it to .ckpt"):
        checkpoint.load(tmp_path / "b.safetensors")


def test_tensors_saved_transposed_keep_their_values(tmp_path):
    weights = motion_weights(SMALL)
    content = {key: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor for key, tensor in original(weights).items()}
    assert_same(checkpoint.load(write(tmp_path / "adapter.ckpt", content)), weights, SMALL, 32)


def test_a_zip_written_by_another_program_loads(tmp_path):
    weights = motion_weights(SMALL)
    with zipfile.ZipFile(write(tmp_path / "a.ckpt", original(weights))) as source, zipfile.ZipFile(tmp_path / "b.ckpt", "w") as copy:
        for name in source.namelist():
            copy.writestr(name, source.read(name))
    assert_same(checkpoint.load(tmp_path / "b.ckpt"), weights, SMALL, 32)


def test_one_line_is_logged_per_adapter(tmp_path, caplog):
    with caplog.at_level("INFO"):
        checkpoint.load(write(tmp_path / "adapter.ckpt", unet(original(motion_weights(SMALL)))))
    assert [record.getMessage() for record in caplog.records] == ["adapter.ckpt: 364 of its 372 tensors are a motion module."]


def test_the_loaded_form_decides_the_family(tmp_path):
    weights = motion_weights(WITHOUT_MID)
    for positions, family in ((24, "AnimateDiff v1"), (32, "AnimateDiff v3")):
        found = checkpoint.load(write(tmp_path / "mm.ckpt", original(weights, positions)))
        assert config.identify("mm.ckpt", found.layout, found.positions)[0].name == family


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_build_shares_the_mapped_tensors_and_casts_on_demand(tmp_path, suffix):
    weights = motion_weights(SMALL, dtype=torch.float16)
    found = checkpoint.load(write(tmp_path / f"adapter{suffix}", original(weights)))
    model = found.build()
    parameters = dict(model.named_parameters())
    expected = convert.fuse(weights)
    assert parameters.keys() == expected.keys() and not model.training and not any(parameter.requires_grad for parameter in parameters.values())
    same = parameters.keys() & weights.keys()  # all but query, key and value, which have been put together
    assert len(same) == len(weights) - 6 * len(found.layout.channels())
    assert all(parameters[name].data_ptr() == found.state_dict[name].data_ptr() for name in same)
    cast = dict(found.build(dtype=torch.float32).named_parameters())
    assert all(torch.equal(cast[name], tensor.float()) for name, tensor in expected.items())
    assert all(layer.device.type == "cpu" for layer in cast.values())


def test_build_writes_nothing_into_the_file(tmp_path):
    path = write(tmp_path / "adapter.ckpt", original(motion_weights(SMALL)))
    before = path.read_bytes()
    model = checkpoint.load(path).build()
    for parameter in model.parameters():
        parameter.data.zero_()
    assert path.read_bytes() == before


# VmHWM, not ru_maxrss: that one starts at the parent's size, which hides what is smaller.
MEMORY = """
import json, sys
from animatediff_turbo.motion_modules import checkpoint

def resident(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))

checkpoint.load(sys.argv[1]).build()
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
whole, private = resident("VmRSS"), resident("RssAnon")
model = checkpoint.load(sys.argv[2]).build()
print(json.dumps([resident("VmHWM") - whole, resident("RssAnon") - private]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_loading_maps_the_file_and_copies_query_key_and_value_only(tmp_path, suffix):
    layout = Layout((320, 320, 320, 320), 1, True)
    warm = write(tmp_path / f"warm{suffix}", original(motion_weights(SMALL)))
    path = write(tmp_path / f"adapter{suffix}", original(motion_weights(layout, dtype=torch.float16)))
    size = path.stat().st_size
    assert size > 50e6
    package = Path(checkpoint.__file__).parents[1]
    command = [sys.executable, "-c", MEMORY, str(warm), str(path)]
    root = tmp_path / "root"
    root.mkdir()
    (root / "animatediff_turbo").symlink_to(package)
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    peak, private = json.loads(result.stdout)
    assert 0.5 * size < peak <= 2 * size
    assert private <= (6 / 22 + 0.05) * size  # in c * c a module: 2 attentions of 3 and 1, 12 of feed-forward, 2 of projections


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_copies_outlive_the_file(tmp_path, suffix):
    weights = motion_weights(SMALL)
    path = write(tmp_path / f"adapter{suffix}", original(weights))
    loaded = checkpoint.load(path, copy=True)
    path.write_bytes(b"")  # of a mapped file every later read would end the process
    assert_same(loaded, weights, SMALL, 32)
