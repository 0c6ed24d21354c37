"""Key names against diffusers' own, and there and back."""

import pytest
import stacks
import torch

from animatediff_turbo.motion_modules import convert
from animatediff_turbo.motion_modules.config import Layout

LAYOUTS = {"mid block": stacks.NARROW, "no mid block": Layout(stacks.NARROW.widths, 2, False), "one layer": Layout((32, 32, 64, 32), 1, True)}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def layout(request):
    return request.param


@pytest.mark.parametrize("frames", [24, 32])
def test_names_shapes_and_encodings_are_those_of_diffusers(layout, frames):
    diffusers = pytest.importorskip("diffusers")
    adapter = diffusers.MotionAdapter(
        block_out_channels=layout.widths,
        motion_layers_per_block=layout.layers,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=8,
        motion_max_seq_length=frames,
        use_motion_mid_block=layout.mid_block,
    )
    expected = adapter.state_dict()
    found = convert.to_diffusers(stacks.motion_weights(layout), frames)
    assert {key: tensor.shape for key, tensor in found.items()} == {key: tensor.shape for key, tensor in expected.items()}
    encodings = [key for key in expected if key.endswith(".pos_embed.pe")]
    assert len(encodings) == len(layout.channels())
    assert all(torch.equal(found[key], expected[key]) for key in encodings)


@pytest.mark.parametrize("frames", [None, 32])
@pytest.mark.parametrize("there", [convert.to_original, convert.to_diffusers])
def test_there_and_back_are_the_same_tensors(layout, there, frames):
    weights = stacks.motion_weights(layout)
    published = there(weights, frames)
    keys = convert.to_ours(published)
    assert keys.keys() == weights.keys()
    assert all(published[key] is weights[name] for name, key in keys.items())
    assert set(published) - set(keys.values()) == set(convert.position_keys(published))


def test_the_original_names_are_the_published_ones():
    published = convert.to_original(stacks.motion_weights())
    module = "down_blocks.0.motion_modules.0.temporal_transformer."
    attention = [f"transformer_blocks.0.attention_blocks.{i}.{part}" for i in (0, 1) for part in ("to_q.weight", "to_out.0.bias", "pos_encoder.pe")]
    block = ["transformer_blocks.0.norms.1.weight", "transformer_blocks.0.ff.net.0.proj.weight", "transformer_blocks.0.ff_norm.bias"]
    assert {module + name for name in ("norm.weight", "proj_in.bias", "proj_out.weight", *attention, *block)} <= published.keys()
    assert len(published) == 546 + 2 * 21 and published[module + attention[2]].shape == (1, 32, 32)


def test_an_encoding_is_known_by_its_module_in_every_layout():
    weights = stacks.motion_weights()
    modules = {name.partition(".transformer_blocks.")[0] for name in weights if ".transformer_blocks." in name}
    for published in (convert.to_original(weights), convert.to_diffusers(weights), {"module." + k: v for k, v in convert.to_original(weights).items()}):
        assert set(convert.position_keys(published).values()) == modules
    assert not convert.position_keys(["text_model.pos_embed.pe", "down_blocks.0.attentions.0.pos_embed.pe"])


def test_two_keys_of_one_tensor_are_an_error_that_names_both():
    keys = [*convert.to_original(stacks.motion_weights(), None), "unet.mid_block.motion_modules.0.norm.weight"]
    with pytest.raises(ValueError, match=r"mid_block.motion_modules.0.temporal_transformer.norm.weight.*unet.mid_block"):
        convert.to_ours(keys)
