"""The motion module against the original's arithmetic in float64."""

import weakref

import pytest
import reference
import stacks
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from animatediff_turbo.motion_modules import convert
from animatediff_turbo.motion_modules.config import Layout
from animatediff_turbo.motion_modules.layers import MAX_SEQUENCES, TemporalTransformer, attend, positional_encoding
from animatediff_turbo.motion_modules.model import MotionModel, names, shapes

FRAMES = (1, 8, 16, 24, 32)


def build(layout=stacks.NARROW, **options):
    weights = stacks.motion_weights(layout, **options)
    model = MotionModel(layout, device="meta")
    model.load_state_dict(weights, assign=True)
    original = {name: tensor.double() for name, tensor in convert.to_original(weights, None).items()}
    return model, original


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("channels", [32, 320, 1280])
@pytest.mark.parametrize("pooled", [False, True], ids=["per frame", "pooled"])
def test_branch_equals_the_original_in_float64(frames, channels, pooled):
    weights = stacks.motion_weights(Layout((channels,) * 4, 1, True), only="mid_block.")
    original = {name: tensor.double() for name, tensor in convert.to_original(weights, None).items()}
    transformer = TemporalTransformer(channels, torch.nn, device="meta")
    transformer.load_state_dict({name.removeprefix("mid_block.motion_modules.0."): tensor for name, tensor in weights.items()}, assign=True)
    x = torch.randn(2 * frames, channels, 2, 3, generator=torch.Generator().manual_seed(frames)) * 2 + 0.5
    videos = [reference.branch(original, "mid_block.motion_modules.0", video, pooled) for video in x.double().split(frames)]
    assert stacks.relative(transformer.branch(x, frames, pooled), torch.cat(videos)) <= 1e-6


@pytest.mark.parametrize("frames", FRAMES)
def test_chain_of_21_equals_the_original_in_float64(frames):
    model, original = build()
    transformers = model.transformers()
    assert len(transformers) == 21
    generator = torch.Generator().manual_seed(1)
    found = {c: torch.randn(frames, c, 4, 4, generator=generator) for c in stacks.NARROW.widths}
    expected = {c: x.double() for c, x in found.items()}
    for (name, transformer), channels in zip(transformers.items(), stacks.NARROW.channels(), strict=True):
        found[channels] = transformer(found[channels], frames)
        expected[channels] = expected[channels] + reference.branch(original, name, expected[channels])
    for channels, x in found.items():
        assert stacks.relative(x, expected[channels]) <= 1e-6


def test_the_two_norms_differ_unless_all_frames_are_equal():
    transformer = build()[0].transformers()["down_blocks.0.motion_modules.0"]
    x = torch.randn(8, 32, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.5, 2, 8)[:, None, None, None]
    assert stacks.relative(transformer.branch(x, 8, True), transformer.branch(x, 8)) > 0.05
    same = x[:1].expand(8, -1, -1, -1)
    assert stacks.relative(transformer.branch(same, 8, True), transformer.branch(same, 8)) < 1e-5


def test_strength_scales_the_branch_and_zero_is_the_identity():
    transformer = build()[0].transformers()["mid_block.motion_modules.0"]
    x = torch.randn(8, 128, 2, 2)
    branch = transformer.branch(x, 8)
    assert torch.equal(transformer(x, 8, strength=0.0), x)
    assert torch.equal(transformer(x, 8), x + branch)
    assert torch.equal(transformer(x, 8, strength=1.5), x + 1.5 * branch)


def test_strength_may_differ_by_frame_and_place_for_every_video_of_a_batch():
    transformer = build()[0].transformers()["mid_block.motion_modules.0"]
    x = torch.randn(2 * 8, 128, 4, 4)
    branch = transformer.branch(x, 8)
    assert torch.equal(transformer(x, 8, strength=torch.ones(1, 1, 1, 1)), x + branch)
    assert torch.equal(transformer(x, 8, strength=torch.zeros(8, 1, 32, 32)), x)
    half = torch.zeros(1, 1, 32, 32)
    half[..., :16] = 1  # on the picture's grid, 8 times finer
    found = transformer(x, 8, strength=half)
    assert torch.equal(found[..., :2], (x + branch)[..., :2]) and torch.equal(found[..., 2:], x[..., 2:])
    frames = torch.arange(8.0)[:, None, None, None]
    torch.testing.assert_close(transformer(x, 8, strength=frames), x + frames.repeat(2, 1, 1, 1) * branch)


def test_videos_of_a_batch_do_not_see_each_other():
    transformer = build()[0].transformers()["down_blocks.1.motion_modules.0"]
    a, b = torch.randn(2, 8, 64, 3, 3, generator=torch.Generator().manual_seed(2))
    assert stacks.relative(transformer(torch.cat([a, b]), 8), torch.cat([transformer(a, 8), transformer(b, 8)])) < 1e-6


def test_frames_see_each_other_and_their_order():
    transformer = build()[0].transformers()["down_blocks.1.motion_modules.0"]
    x = torch.randn(8, 64, 3, 3, generator=torch.Generator().manual_seed(3))
    assert stacks.relative(transformer.branch(x, 1), transformer.branch(x, 8)) > 0.1
    assert stacks.relative(transformer.branch(x.flip(0), 8).flip(0), transformer.branch(x, 8)) > 0.01


def test_a_batch_beyond_the_cuda_grid_is_cut_without_a_difference():
    q, k, v = torch.randn(3, MAX_SEQUENCES + 3, 1, 2, 4, generator=torch.Generator().manual_seed(4))
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(attend(q, k, v), whole, atol=1e-6)


def test_positional_encoding_is_the_published_table_and_follows_dtype():
    assert stacks.relative(positional_encoding(32, 320, torch.empty(0)), reference.encoding(32, 320)) < 1e-6
    assert positional_encoding(32, 320, torch.empty(0, dtype=torch.float16)).dtype == torch.float16


def test_published_sizes():
    def millions(layout):
        return sum(shape.numel() for shape in shapes(layout).values()) / 1e6

    assert round(millions(stacks.PUBLISHED), 3) == 453.209 and len(shapes(stacks.PUBLISHED)) == 546
    without_mid = Layout(stacks.PUBLISHED.widths, 2, False)
    assert round(millions(without_mid), 3) == 417.138 and len(shapes(without_mid)) == 520
    assert len(names(without_mid)) == len(without_mid.channels()) == 20


def test_layers_come_from_the_injected_operations():
    class Operations:
        Linear = type("Linear", (torch.nn.Linear,), {})
        LayerNorm = type("LayerNorm", (torch.nn.LayerNorm,), {})
        GroupNorm = type("GroupNorm", (torch.nn.GroupNorm,), {})

    transformer = TemporalTransformer(32, Operations)
    leaves = [module for module in transformer.modules() if next(module.parameters(recurse=False), None) is not None]
    assert {type(leaf) for leaf in leaves} == {Operations.Linear, Operations.LayerNorm, Operations.GroupNorm}


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, beside those that were there before, and keeps the highest count."""

    def __init__(self, there_before):
        super().__init__()
        self.kept = [tensor.untyped_storage() for tensor in there_before]
        self.sizes = dict.fromkeys((storage._cdata for storage in self.kept), 0)
        self.now = self.highest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata)
        self.highest = max(self.highest, self.now)
        return result

    def _gone(self, key):
        self.now -= self.sizes.pop(key)


@pytest.mark.parametrize("pooled", [False, True], ids=["per frame", "pooled"])
def test_activations_stay_below_those_of_the_unet_layer_before_it(pooled):
    """ComfyUI's memory estimate of SD1.5 covers a SpatialTransformer; a motion module that needs no more is in that estimate too."""
    diffusers = pytest.importorskip("diffusers.models.transformers.transformer_2d")
    spatial = diffusers.Transformer2DModel(8, 40, 320, norm_num_groups=32, cross_attention_dim=768).requires_grad_(False)
    temporal = TemporalTransformer(320, torch.nn).requires_grad_(False)
    x, context = torch.randn(2 * 16, 320, 16, 16), torch.randn(2 * 16, 77, 768)
    peaks = []
    for run in (lambda: spatial(x, context).sample, lambda: temporal(x, 16, pooled_norm=pooled)):
        with Peak([x, context, *spatial.parameters(), *temporal.parameters()]) as peak:
            run()
        peaks.append(peak.highest / x.nbytes)
    assert peaks[1] <= peaks[0] * 1.02, peaks
    assert peaks[1] <= 21  # in multiples of x
