"""Prints, as JSON, how exact nodes/_host/spatial.py and operations.py are beside ComfyUI's layers, and where they leave the work to those. Started by test_spatial.py."""

import copy
import functools
import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import pack

pack.load()  # this checkout, in a Python that need not have it installed
sys.path.insert(0, os.environ["COMFYUI_PATH"])
importlib.import_module("utils")  # before nodes.py puts ComfyUI's folder "comfy" in front, which has one too
import comfy.cli_args

comfy.cli_args.args.cpu, comfy.cli_args.args.use_pytorch_cross_attention = True, "--default-attention" not in sys.argv
import comfy.ops
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, Upsample
from counters import Counters
from torch._subclasses.fake_tensor import FakeTensorMode

from animatediff_turbo.motion_modules.layers import TemporalTransformer
from animatediff_turbo.nodes._host import operations, spatial, strength


def mask_on_a_gpu():
    """Where the strength of a mask that a node left on a GPU is, with a curve and without. The tensors are torch's fake ones: they have a device and no data."""
    with FakeTensorMode():
        mask = torch.empty(1, 1, 16, 16, device="cuda", dtype=torch.float16)
        return [str(strength.Strength.of(0.5, curve, mask).at(range(8), 8).device) for curve in ({}, {0: 0.5, 7: 1.0})]


def relative(found, right):
    return float((found.double() - right.double()).norm() / right.double().norm())


def filled(layer):
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5)
    return layer


def transformer(dtype=torch.float32, operations=comfy.ops.disable_weight_init, **options):
    return SpatialTransformer(64, 8, 8, depth=1, context_dim=32, operations=operations, dtype=dtype, **options)


def upsampling(dtype=torch.float32, **options):
    return Upsample(64, True, operations=comfy.ops.disable_weight_init, dtype=dtype, **options)


class Packed(comfy.ops.manual_cast):
    """Layers whose weights are stored in a form of their own, as in GGUF files: half of what they stand for."""

    class Conv2d(comfy.ops.manual_cast.Conv2d):
        def forward_comfy_cast_weights(self, x):
            return self._conv_forward(x, 2 * self.weight, 2 * self.bias)


def errors(dtype):
    """(fast, ComfyUI's) against float64."""
    x, text = torch.randn(6, 64, 8, 12).to(dtype), torch.randn(6, 7, 32).to(dtype)
    layer = filled(transformer(dtype))
    exact = transformer(torch.float64)
    exact.load_state_dict({name: tensor.double() for name, tensor in layer.state_dict().items()})
    right = exact(x.double(), text.double(), {}) - x
    result = {f"transformer {dtype}": [relative(each - x, right) for each in (spatial.spatial_transformer(layer, x, text, {}), layer(x, text, {}))]}
    for channels in (64, 96):  # with and without a skip connection of its own
        block, exact = (ResBlock(64, 48, 0, channels, dtype=kind, operations=comfy.ops.disable_weight_init) for kind in (dtype, torch.float64))
        exact.load_state_dict({name: tensor.double() for name, tensor in filled(block).state_dict().items()})
        emb = torch.randn(6, 48).to(dtype)
        right = exact(x.double(), emb.double())
        result[f"resblock {channels} {dtype}"] = [relative(each, right) for each in (spatial.resblock_by_kernels(block, x, emb), block(x, emb))]
    layer, picture = filled(upsampling(dtype)), torch.randn(24, 64, 8, 12).to(dtype)
    weight, bias = layer.conv.weight, layer.conv.bias
    right = torch.nn.functional.conv2d(torch.nn.functional.interpolate(picture.double(), scale_factor=2), weight.double(), bias.double(), padding=1)
    plain = relative(layer(picture), right)
    result[f"four {dtype}"] = [relative(spatial.four(picture, weight, bias), right), plain]
    result[f"transposed {dtype}"] = [relative(spatial.transposed(picture, weight, bias), right), plain]
    return result


def upsampling_left_alone():
    """The same for the upsampling."""
    result, calls = {}, []
    up, picture = filled(upsampling()), torch.randn(24, 64, 8, 12)
    odd = torch.Size((24, 64, 15, 23))
    result["odd size"] = torch.equal(spatial.upsample(up, picture, odd), up(picture, odd))
    result["few pixels of an upsampling"] = torch.equal(spatial.upsample(up, picture[:1], None), up(picture[:1]))
    handle = up.conv.register_forward_hook(lambda *_: calls.append(1))
    calls.clear()
    spatial.upsample(up, picture, None)
    result["hook on the convolution"] = len(calls) == 1
    handle.remove()
    calls.clear()
    conv_forward = up.conv._conv_forward
    up.conv._conv_forward = lambda *given: (calls.append(1), conv_forward(*given))[1]  # as seamless tiling does
    spatial.upsample(up, picture, None)
    result["another _conv_forward"] = len(calls) == 1
    del up.conv._conv_forward
    packed = filled(Upsample(64, True, operations=Packed))
    result["an upsampling in a form of its own"] = torch.equal(spatial.upsample(packed, picture, None), packed(picture))
    return result


def left_alone():
    """Cases in which ComfyUI's own layer must have run: whether the result is its to the last bit, and whether what hangs on it was called."""
    x, text, calls = torch.randn(6, 64, 8, 12), torch.randn(6, 7, 32), []
    patch = lambda n, context, value, options: (calls.append(1), (n * 1.5, context, value))[1]
    replace = lambda q, k, v, options: (calls.append(1), q)[1]
    cases = {
        "attn1_patch": {"patches": {"attn1_patch": [patch]}}, "attn2_patch": {"patches": {"attn2_patch": [patch]}},
        "attn1_output_patch": {"patches": {"attn1_output_patch": [lambda n, options: (calls.append(1), n * 2)[1]]}},
        "attn2_output_patch": {"patches": {"attn2_output_patch": [lambda n, options: (calls.append(1), n * 2)[1]]}},
        "middle_patch": {"patches": {"middle_patch": [lambda n, options: (calls.append(1), n * 2)[1]]}},
        "patches_replace": {"block": ("input", 1), "patches_replace": {"attn1": {("input", 1): replace}}},
    }  # fmt: skip
    result = {}
    layer = filled(transformer())
    for name, options in cases.items():
        calls.clear()
        found = spatial.spatial_transformer(layer, x, text, dict(options))
        result[name] = bool(calls) and torch.equal(found, layer(x, text, dict(options)))
    for name, place in (("hook on the layer", layer), ("hook on a block", layer.transformer_blocks[0]), ("hook on the GEGLU", layer.transformer_blocks[0].ff.net[0])):
        calls.clear()
        handle = place.register_forward_hook(lambda *_: calls.append(1))
        spatial.spatial_transformer(layer, x, text, {})
        result[name] = len(calls) == 1
        handle.remove()
    for name, place in (("another forward of a projection", layer.proj_in), ("another forward of the GEGLU", layer.transformer_blocks[0].ff.net[0])):
        calls.clear()
        forward = place.forward
        place.forward = lambda *given, forward=forward: (calls.append(1), forward(*given))[1]
        spatial.spatial_transformer(layer, x, text, {})
        result[name] = len(calls) == 1
        del place.forward
    linear = filled(transformer(use_linear=True))
    result["linear projections"] = torch.equal(spatial.spatial_transformer(linear, x, text, {}), linear(x, text, {}))
    packed = filled(transformer(operations=Packed))
    result["weights in a form of their own"] = torch.equal(spatial.spatial_transformer(packed, x, text, {}), packed(x, text, {}))
    wrapped = functools.wraps(SpatialTransformer.forward)(lambda *given: None)
    result["a class's forward that somebody has wrapped"] = spatial._is_genuine(SpatialTransformer.forward) and not spatial._is_genuine(wrapped)
    with torch.inference_mode(False), torch.enable_grad():
        layer, x, text = filled_outside(transformer()), torch.randn(6, 64, 8, 12), torch.randn(6, 7, 32)
        result["training"] = torch.equal(spatial.spatial_transformer(layer, x, text, {}), layer(x, text, {}))
    return result


def filled_outside(layer):
    with torch.no_grad():
        return filled(layer)


def attention():
    """What is put in place of the attention that ComfyUI takes by default on a CPU, and when."""
    cpu, mine = torch.device("cpu"), {spatial.OVERRIDE: "mine", "block_index": 1}
    x, text = torch.randn(6, 64, 8, 12), torch.randn(6, 7, 32)
    layer, options = filled(transformer()), spatial.with_fast_attention({"block_index": 1}, cpu)
    report = {"replaced": set(options) == {spatial.OVERRIDE, "block_index"}, "another's stays": spatial.with_fast_attention(mine, cpu) == mine}
    report["on a GPU"] = spatial.OVERRIDE in spatial.with_fast_attention({}, torch.device("cuda"))
    exact = filled(transformer(torch.float64))
    exact.load_state_dict({name: tensor.double() for name, tensor in layer.state_dict().items()})
    right = exact(x.double(), text.double(), {}) - x
    found = [layer(x, text, dict(each)) for each in (options, {})]
    report |= {"errors": [relative(each - x, right) for each in found], "another result": not torch.equal(*found)}
    comfy.cli_args.args.use_quad_cross_attention = True
    return report | {"when it was chosen": spatial.OVERRIDE in spatial.with_fast_attention({}, cpu)}


def by_pixels():
    """Whether the projections of pictures of 6x6 and of 7x7 pixels are one product for each picture: around attention, as never in ComfyUI's, and around motion."""
    layer, motion, text, found = filled(transformer()), filled(TemporalTransformer(64, operations.Operations, fused=True)), torch.randn(6, 7, 32), []
    for run in (lambda x: spatial.spatial_transformer(layer, x, text, {}), lambda x: motion(x, 6)):
        for side in (6, 7):
            with Counters() as counters:
                run(torch.randn(6, 64, side, side))
            found.append(counters.operations["aten.baddbmm"] == 2)
    return found


MOTION_LAYERS = {
    "Linear": ((64, 64), (5, 64)), "TokensIn": ((64, 64), (3, 64, 5)), "TokensOut": ((64, 64), (5, 3, 64)),
    "PositionedNorm": ((64,), (5, 3, 64)), "PictureNorm": ((8, 64), (3, 64, 5, 5)),
}  # fmt: skip


def motion_layers():
    """By layer: whether weights at hand are taken as they are, and others as ComfyUI casts and patches them, to the last bit."""
    result = {}
    for name, (arguments, size) in MOTION_LAYERS.items():
        layer, x = filled(getattr(operations.Operations, name)(*arguments, dtype=torch.float32)), torch.randn(size)
        taken = operations.at_hand(layer, x)
        checks = {"at hand": taken[0] is layer.weight and taken[1] is layer.bias, "as ComfyUI casts": torch.equal(layer(x), layer.forward_comfy_cast_weights(x))}
        half = copy.deepcopy(layer).half()
        checks["cast"] = operations.at_hand(layer, x.half()) is None and torch.equal(layer(x.half()), half(x.half()))
        for each in ("weight", "bias"):
            patched, doubled = copy.deepcopy(layer), copy.deepcopy(layer)
            setattr(patched, f"{each}_function", [lambda tensor: tensor * 2])
            getattr(doubled, each).mul_(2)
            checks[f"patched {each}"] = operations.at_hand(patched, x) is None and torch.equal(patched(x), doubled(x)) and not torch.equal(patched(x), layer(x))
        paged = copy.deepcopy(layer)
        paged._v = object()  # as ComfyUI's dynamic VRAM marks what it pages in
        checks["paged"] = operations.at_hand(paged, x) is None
        result[name] = checks
    return result


def main():
    torch.manual_seed(0)
    if "--default-attention" in sys.argv:
        with torch.inference_mode():
            sys.stdout.write(json.dumps(attention()))
        return
    with torch.inference_mode():
        report = {"errors": {}, "left_alone": left_alone() | upsampling_left_alone()}
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            report["errors"] |= errors(dtype)
        cast, x, text = filled(transformer(torch.float16, comfy.ops.manual_cast)), torch.randn(6, 64, 8, 12), torch.randn(6, 7, 32)
        cast.proj_in.weight_function = [lambda weight: weight * 2]  # as a LoRA that is not baked into the weights
        report["weights that are cast and patched"] = relative(spatial.spatial_transformer(cast, x, text, {}), cast(x, text, {}))
        options = [{}, {}]
        layer = filled(transformer())
        spatial.spatial_transformer(layer, x, text, options[0])
        layer(x, text, options[1])
        report["same traces in the options"] = options[0] == options[1]
        up, picture = filled(upsampling()), torch.randn(24, 64, 8, 12)
        report["a product for each picture, by pixels"] = by_pixels()
        report["motion layers"] = motion_layers()
        report["mask on a GPU"] = mask_on_a_gpu()
        report["folds"] = not torch.equal(spatial.upsample(up, picture, None), up(picture))
        report["attention that was chosen"] = spatial.OVERRIDE in spatial.with_fast_attention({}, torch.device("cpu"))
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
