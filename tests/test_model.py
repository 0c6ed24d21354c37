"""The motion module against the original's arithmetic in float64."""

import functools
import weakref

import pytest
import reference
import stacks
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from animatediff_turbo.motion_modules import convert
from animatediff_turbo.motion_modules.config import Layout
from animatediff_turbo.motion_modules.layers import Operations, TemporalTransformer, positional_encoding
from animatediff_turbo.motion_modules.model import MotionModel, names, shapes

FRAMES = (1, 8, 16, 24, 32)


FUSED = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
SIDES = pytest.mark.parametrize("side", [2, 7], ids=["few pixels", "many"])  # of FEW_PIXELS


def build(layout=stacks.NARROW, fused=True, **options):
    weights = stacks.motion_weights(layout, **options)
    model = MotionModel(layout, fused=fused, device="meta")
    model.load_state_dict(convert.fuse(weights) if fused else weights, assign=True)
    original = {name: tensor.double() for name, tensor in convert.to_original(weights, None).items()}
    return model, original


@functools.cache
def transformers(channels, dtype=torch.float32):
    """One module in both forms and its weights under the original's names in float64, all of the same numbers."""
    weights = stacks.motion_weights(Layout((channels,) * 4, 1, True), only="mid_block.", dtype=dtype)
    original = {name: tensor.double() for name, tensor in convert.to_original(weights, None).items()}
    forms = []
    for fused in (False, True):
        forms.append(TemporalTransformer(channels, fused=fused, device="meta").eval())
        tensors = convert.fuse(weights) if fused else weights
        forms[-1].load_state_dict({name.removeprefix("mid_block.motion_modules.0."): tensor for name, tensor in tensors.items()}, assign=True)
    return *forms, original


def expected(original, x, frames, pooled=False):
    videos = [reference.branch(original, "mid_block.motion_modules.0", video, pooled) for video in x.double().split(frames)]
    return torch.cat(videos)


@torch.no_grad()
@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize(("channels", "height", "width"), [(32, 2, 3), (320, 2, 3), (1280, 2, 3), (32, 6, 7), (320, 6, 7)])
@pytest.mark.parametrize("pooled", [False, True], ids=["per frame", "pooled"])
def test_branch_equals_the_original_in_float64(frames, channels, height, width, pooled):
    plain, fused, original = transformers(channels)
    x = torch.randn(2 * frames, channels, height, width, generator=torch.Generator().manual_seed(frames)) * 2 + 0.5
    right = expected(original, x, frames, pooled)
    for form in (plain, fused):
        assert stacks.relative(form.branch(x, frames, pooled), right) <= 1e-6
        assert stacks.relative(form.branch(x.contiguous(memory_format=torch.channels_last), frames, pooled), right) <= 1e-6


GRID = [(320, frames) for frames in (1, 2, 4, 8, 12, 16, 17, 24, 32, 64)] + [(channels, frames) for channels in (640, 1280) for frames in (1, 16, 32)]


@torch.no_grad()
@pytest.mark.parametrize(("channels", "frames"), GRID)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_fused_forms_error_is_that_of_the_plain_one(dtype, channels, frames):
    plain, fused, original = transformers(channels, dtype)
    side = 8 if frames < 4 else 7 if channels < 1280 else 2  # enough numbers for a fair comparison of two errors, and both sides of FEW_PIXELS
    x = (torch.randn(2 * frames, channels, side, side, generator=torch.Generator().manual_seed(frames)) * 2 + 0.5).to(dtype)
    right = expected(original, x, frames)
    assert stacks.relative(fused.branch(x, frames), right) <= 1.25 * stacks.relative(plain.branch(x, frames), right)


@torch.no_grad()
@FUSED
@SIDES
def test_inputs_far_from_the_usual_and_constant_ones_stay_exact(side, fused):
    form, original = transformers(320)[fused], transformers(320)[2]
    x = torch.randn(16, 320, side, side, generator=torch.Generator().manual_seed(0)) * 30
    x[:, :, 0, 0] = 7.0
    assert stacks.relative(form.branch(x, 8), expected(original, x, 8)) <= 1e-6


@SIDES
def test_the_fused_form_passes_gradients_as_the_plain_one_does(side):
    plain, fused, _ = transformers(64)
    gradients = []
    for form in (plain, fused):
        x = torch.randn(8, 64, side, side, generator=torch.Generator().manual_seed(0), requires_grad=True)
        form(x, 8).square().sum().backward()
        gradients.append(x.grad)
    assert stacks.relative(gradients[1], gradients[0]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("frames", FRAMES)
@SIDES
def test_chain_of_21_equals_the_original_in_float64(side, frames):
    model, original = build()
    modules = model.transformers()
    assert len(modules) == 21
    generator = torch.Generator().manual_seed(1)
    found = {c: torch.randn(frames, c, side, side, generator=generator) for c in stacks.NARROW.widths}
    right = {c: x.double() for c, x in found.items()}
    for (name, transformer), channels in zip(modules.items(), stacks.NARROW.channels(), strict=True):
        found[channels] = transformer(found[channels], frames)
        right[channels] = right[channels] + reference.branch(original, name, right[channels])
    for channels, x in found.items():
        assert stacks.relative(x, right[channels]) <= 1e-6


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
    class Injected:
        Linear = type("Linear", (torch.nn.Linear,), {})
        LayerNorm = type("LayerNorm", (torch.nn.LayerNorm,), {})
        GroupNorm = type("GroupNorm", (torch.nn.GroupNorm,), {})
        TokensIn = type("TokensIn", (Operations.TokensIn,), {})
        TokensOut = type("TokensOut", (Operations.TokensOut,), {})
        PositionedNorm = type("PositionedNorm", (Operations.PositionedNorm,), {})
        PictureNorm = type("PictureNorm", (Operations.PictureNorm,), {})

    plain = {Injected.Linear, Injected.LayerNorm, Injected.GroupNorm}
    for fused, expected in ((False, plain), (True, {Injected.Linear, Injected.TokensIn, Injected.TokensOut, Injected.PositionedNorm, Injected.PictureNorm})):
        modules = TemporalTransformer(32, Injected, fused).modules()
        leaves = {type(module) for module in modules if next(module.parameters(recurse=False), None) is not None}
        assert leaves == expected


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


@torch.no_grad()
@pytest.mark.parametrize("pooled", [False, True], ids=["per frame", "pooled"])
def test_activations_stay_below_those_of_the_unet_layer_before_it(pooled):
    """ComfyUI's memory estimate of SD1.5 covers a SpatialTransformer; a motion module that needs no more is in that estimate too."""
    diffusers = pytest.importorskip("diffusers.models.transformers.transformer_2d")
    spatial = diffusers.Transformer2DModel(8, 40, 320, norm_num_groups=32, cross_attention_dim=768).requires_grad_(False)
    temporal = TemporalTransformer(320, fused=True).requires_grad_(False)
    x, context = torch.randn(2 * 16, 320, 16, 16), torch.randn(2 * 16, 77, 768)
    peaks = []
    for run in (lambda: spatial(x, context).sample, lambda: temporal(x, 16, pooled_norm=pooled)):
        with Peak([x, context, *spatial.parameters(), *temporal.parameters()]) as peak:
            run()
        peaks.append(peak.highest / x.nbytes)
    assert peaks[1] <= peaks[0] * 1.02, peaks
    assert peaks[1] <= 21  # in multiples of x
