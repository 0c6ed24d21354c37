"""The first weights of the tiny model: every block passes on what it gets."""

import pytest
import torch
from torch.nn import functional

from animatediff_turbo.headless.tiny import networks, start
from animatediff_turbo.motion_modules.layers import HEADS, positional_encoding

TEXT = torch.zeros(2, networks.TEXT_TOKENS, networks.TEXT_WIDTH)


@pytest.fixture
def x():
    return torch.randn(2, networks.WIDTHS[0], 8, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("build", [networks.unet, networks.vae])
def test_blocks_pass_on_halve_and_double(build, x):
    network = build()
    start.pass_through(network)
    down, up = (network.down_blocks, network.up_blocks) if build is networks.unet else (network.encoder.down_blocks, network.decoder.up_blocks)
    time = torch.randn(2, 4 * networks.WIDTHS[0]) if build is networks.unet else None
    assert torch.equal(down[0].resnets[0](x, time), x)
    torch.testing.assert_close(down[0].downsamplers[0](x), functional.avg_pool2d(x, 2))
    assert torch.equal(up[0].upsamplers[0](x), functional.interpolate(x, scale_factor=2))


@torch.no_grad()
def test_attention_adds_nothing_and_skip_connections_add(x):
    unet, vae = networks.unet(), networks.vae()
    start.pass_through(unet)
    start.pass_through(vae)
    assert torch.equal(unet.down_blocks[0].attentions[0](x, TEXT, return_dict=False)[0], x)
    assert torch.equal(vae.decoder.mid_block.attentions[0](x), x)
    skip = x.flip(0)
    found = unet.up_blocks[3].resnets[0](torch.cat((x, skip), 1), torch.zeros(2, 4 * networks.WIDTHS[0]))
    torch.testing.assert_close(found, (x + skip) * 0.5**0.5)


@torch.no_grad()
def test_a_motion_module_starts_as_nothing_and_knows_how_frames_differ(x):
    motion = networks.motion()
    start.compare_frames(motion)
    transformer = next(iter(motion.transformers().values()))
    clip = x.repeat(2, 1, 1, 1)
    assert torch.equal(transformer(clip, 4), clip)
    block, states = transformer.transformer_blocks[0], torch.randn(3, 16, networks.WIDTHS[0], generator=torch.Generator().manual_seed(1))
    states = functional.normalize(states.unflatten(-1, (HEADS, -1)), dim=-1).flatten(-2) * 8
    torch.nn.init.zeros_(block.attn1.to_q.weight)  # every frame looks at all alike
    differing, told = (states + block.attn1(states)).split((networks.WIDTHS[0] - start.TOLD, start.TOLD), -1)
    expected = states - states.mean(1, keepdim=True)
    torch.testing.assert_close(differing, expected[..., : -start.TOLD], atol=1e-5, rtol=1e-4)
    assert torch.equal(told, states[..., -start.TOLD :])
    nothing, itself = block.attn2(states).split((networks.WIDTHS[0] - start.TOLD, start.TOLD), -1)
    assert not nothing.any()
    torch.testing.assert_close(itself, states[..., start.ENCODED : start.ENCODED + start.TOLD], atol=0.05, rtol=0)


@torch.no_grad()
def test_what_the_frames_are_told_tells_them_apart():
    """The part of the positional encoding that is handed on is another for each of the 16 frames, and most of it changes one way over the clip."""
    told = positional_encoding(16, networks.WIDTHS[0], torch.zeros(1))[:, start.ENCODED : start.ENCODED + start.TOLD]
    assert torch.cdist(told, told).add(torch.eye(16)).min() > 0.3
    assert ((told.diff(dim=0) > 0).all(0) | (told.diff(dim=0) < 0).all(0)).float().mean() > 0.4
