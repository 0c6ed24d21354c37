"""One seeded set of random weights of SD1.5's names and shapes for every contestant: python benchmarks/weights.py --weights FOLDER

unet.safetensors and vae.safetensors in diffusers' layout (ComfyUI reads it too), motion_v3.safetensors in AnimateDiff's own,
conds.safetensors. Every layer keeps its input's size, so that half precision neither overflows nor loses anything; the motion modules act.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import pack
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

pack.load()

from animatediff_turbo.motion_modules import config, convert, model

WIDTHS = {"full": (320, 640, 1280, 1280), "narrow": (32, 64, 128, 128)}
CONTEXT = {"full": 768, "narrow": 64}
VAE_WIDTHS = (128, 256, 512, 512)
"""ComfyUI builds the VAE in this size only."""
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
MOTION_GAIN = 3.0
"""Of the motion modules' last layers, so that a missing or wrong module is seen in the latents."""
PICTURE_GAIN = 0.2
"""Of the VAE's last layer: random pictures of full contrast would take an encoder longer than any film does."""
GAINS = {"conv_out.weight": 1.6, "decoder.conv_out.weight": PICTURE_GAIN}


def unet(size: str) -> UNet2DConditionModel:
    """SD1.5's UNet in diffusers, without memory."""
    with torch.device("meta"):
        return UNet2DConditionModel(block_out_channels=WIDTHS[size], cross_attention_dim=CONTEXT[size], attention_head_dim=8)


def vae() -> AutoencoderKL:
    """SD1.5's VAE in diffusers, without memory."""
    with torch.device("meta"):
        return AutoencoderKL(
            block_out_channels=VAE_WIDTHS, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4, layers_per_block=2, sample_size=512,
        )  # fmt: skip


def random(shapes: dict[str, torch.Size], generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    """Matrices and kernels of deviation 1 / sqrt(fan in), norms about 1, biases about 0."""
    result = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator, device=generator.device)
        if len(shape) > 1:
            gain = MOTION_GAIN if ".proj_out." in name and "motion_modules" in name else GAINS.get(name, 1.0)
            noise *= gain * shape[1:].numel() ** -0.5
        elif name.endswith("weight"):
            noise = 1 + 0.1 * noise
        else:
            noise *= 0.1
        result[name] = noise.to(dtype).cpu()
    return result


def write(folder: Path, size: str, dtype: str, device: str) -> None:
    """The files, unless the folder has them already; the last one, unet.json, says that all are there."""
    about = {"size": size, "dtype": dtype, "device": device, "widths": WIDTHS[size], "context": CONTEXT[size]}
    done = folder / "unet.json"
    if done.is_file() and json.loads(done.read_text()) == json.loads(json.dumps(about)):
        return
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(device).manual_seed(0)
    networks = {"unet": unet(size), "vae": vae()}
    for name, network in networks.items():
        shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
        save_file(random(shapes, generator, DTYPES[dtype]), folder / f"{name}.safetensors")
    motion = random(model.shapes(config.Layout(WIDTHS[size], 2, False)), generator, DTYPES[dtype])
    save_file({key: tensor.contiguous() for key, tensor in convert.to_original(motion).items()}, folder / "motion_v3.safetensors")
    conds = {name: torch.randn(1, 77, CONTEXT[size], generator=generator, device=device).cpu() for name in ("positive", "negative")}
    save_file(conds, folder / "conds.safetensors")
    done.write_text(json.dumps(about))


def motion_for_diffusers(folder: Path, positions: int = 32) -> dict[str, Tensor]:
    """The motion module under diffusers' names."""
    tensors = load_file(folder / "motion_v3.safetensors")
    return convert.to_diffusers({name: tensors[key] for name, key in convert.to_ours(tensors).items()}, positions)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--size", choices=WIDTHS, default="full")
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    started = time.monotonic()
    write(given.weights, given.size, given.dtype, given.device)
    sys.stdout.write(f"{given.weights}: {given.size}, {given.dtype}, {time.monotonic() - started:.1f} s\n")


if __name__ == "__main__":
    main()
