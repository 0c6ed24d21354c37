"""The first weights of the tiny model: every block passes on what it gets."""

import pytest
import torch
from torch.nn import functional

from animatediff_turbo.headless.tiny import networks, start

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
    motion = networks.motion(torch.nn)
    start.compare_frames(motion)
    transformer = next(iter(motion.transformers().values()))
    clip = x.repeat(2, 1, 1, 1)
    assert torch.equal(transformer(clip, 4), clip)
    block, states = transformer.transformer_blocks[0], torch.randn(3, 16, networks.WIDTHS[0])
    torch.nn.init.zeros_(block.attn1.to_q.weight)  # every frame looks at all alike
    torch.testing.assert_close(states + block.attn1(states), states - states.mean(1, keepdim=True), atol=1e-5, rtol=1e-4)
    assert not block.attn2(states).any()
