"""Our motion module on diffusers' UNet by hooks, against diffusers' own UNetMotionModel."""

import narrow
import pytest
import stacks
import torch
from diffusers import UNet2DConditionModel

from animatediff_turbo.headless.diffusion import clean, predict
from animatediff_turbo.headless.motion import attached, places
from animatediff_turbo.motion_modules.model import MotionModel

FRAMES = 8


@pytest.fixture(scope="module")
def both():
    """diffusers' motion UNet, its spatial half as a plain UNet, and its motion half as ours."""
    reference = narrow.build_unet()
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=narrow.WIDTHS, layers_per_block=2, cross_attention_dim=narrow.CONTEXT, attention_head_dim=8
    ).eval()
    unet.load_state_dict({key: tensor for key, tensor in reference.state_dict().items() if "motion_modules" not in key})
    motion = MotionModel(stacks.NARROW).eval()
    motion.load_state_dict(narrow.motion_state_dict(reference))
    return reference, unet.requires_grad_(False), motion.requires_grad_(False)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2 * FRAMES, 4, 8, 8, generator=generator), torch.randn(2 * FRAMES, 5, narrow.CONTEXT, generator=generator)


def test_hooks_equal_diffusers_motion_unet(both, inputs):
    reference, unet, motion = both
    x, text = inputs
    video = x.unflatten(0, (2, FRAMES)).transpose(1, 2)
    expected = reference(video, 321, text).sample.transpose(1, 2).flatten(0, 1)
    with attached(unet, motion, FRAMES, pooled_norm=True):
        found = unet(x, 321, text).sample
    assert stacks.relative(found, expected) <= 1e-5
    assert stacks.relative(unet(x, 321, text).sample, expected) > 0.3  # the hooks are gone, and they acted


def test_strength_0_is_the_plain_unet_bit_for_bit(both, inputs):
    _, unet, motion = both
    x, text = inputs
    with attached(unet, motion, FRAMES, strength=0.0):
        found = unet(x, 321, text).sample
    assert torch.equal(found, unet(x, 321, text).sample)


def test_hooks_leave_with_an_exception(both, inputs):
    _, unet, motion = both
    with pytest.raises(ZeroDivisionError), attached(unet, motion, FRAMES):
        raise ZeroDivisionError
    assert not any(layer._forward_hooks for layer in unet.modules())


def test_a_motion_module_for_another_topology_is_refused(both):
    _, unet, _ = both
    with pytest.raises(ValueError, match="21 places but this UNet has 16"), attached(_short(unet), both[2], FRAMES):
        pass


def _short(unet):
    return UNet2DConditionModel(
        block_out_channels=(32, 64, 64), down_block_types=unet.config.down_block_types[1:], up_block_types=unet.config.up_block_types[:3],
        layers_per_block=2, cross_attention_dim=64, attention_head_dim=8,
    )  # fmt: skip


def test_there_is_a_place_for_every_transformer(both):
    _, unet, motion = both
    assert len(places(unet, True)) == len(motion.transformers()) == 21 and len(places(unet, False)) == 20


def test_predictions_give_the_picture_back():
    generator = torch.Generator().manual_seed(0)
    picture, noise = torch.randn(3, 4, 2, 2, generator=generator), torch.randn(3, 4, 2, 2, generator=generator)
    sigma = torch.tensor([0.1, 1.0, 25.0])
    wide = sigma[:, None, None, None]
    x, scale = picture + wide * noise, (1 + wide**2).sqrt()
    velocity = noise / scale - wide * picture / scale  # sqrt(a) noise - sqrt(1 - a) picture, arXiv 2202.00512
    assert torch.allclose(clean("epsilon", x, sigma, noise), picture, atol=1e-5)
    assert torch.allclose(clean("v_prediction", x, sigma, velocity), picture, atol=1e-5)


def test_the_unet_sees_unit_deviation(both):
    _, unet, _ = both
    seen = []
    handle = unet.conv_in.register_forward_pre_hook(lambda layer, arguments: seen.append(arguments[0]))
    predict(unet, torch.full((1, 4, 8, 8), 2.0), torch.tensor([3.0**0.5]), torch.tensor([5]), torch.zeros(1, 2, narrow.CONTEXT))
    handle.remove()
    assert torch.allclose(seen[0], torch.ones(1, 4, 8, 8))
