"""Trains the tiny model from nothing: python -m animatediff_turbo.headless.tiny.train --out FOLDER

Stages, each on what the ones before left in FOLDER: VAE, text encoder, image model on stills, motion module on clips with all else frozen
(arXiv 2307.04725), consistency distillation of the motion module (arXiv 2402.00769). Killed at any moment, the same command goes on.
With --base the first three are taken from a diffusers folder, as they are for everybody who trains a motion module for a published model.
"""

import argparse
import functools
import json
import logging
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from ...motion_modules import schedule
from ...motion_modules.config import TINY
from ...motion_modules.model import MotionModel
from ...weights import TINY_BASE, TINY_MOTION
from ..base import load as load_base
from ..render import working_device
from . import autoencoder, evaluate, export, latents, networks, report, stages, start, text, tokenizer, world
from .loop import Budget, Dice, train, whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How much of everything.

    clips, crossings: latents that are encoded once for the image and for the later stages; stills, videos: batch sizes of these.
    guidance, substeps: of the teacher, see `stages.Teacher`.
    """

    vae: Budget
    text: Budget
    image: Budget
    motion: Budget
    distillation: Budget
    clips: int
    crossings: int
    stills: int
    videos: int
    guidance: float
    substeps: int


PUBLISHED = Recipe(
    vae=Budget(1000, 5e-4), text=Budget(500, 2e-3), image=Budget(3000, 1e-3), motion=Budget(1500, 1.5e-3), distillation=Budget(700, 3e-4),
    clips=1008, crossings=480, stills=32, videos=2, guidance=1.0, substeps=2,
)  # fmt: skip
"""What made the weights in the repository, with this seed; the motion module and its distillation on the finished image model (--base):"""
PUBLISHED_SEED = 1


def _seeded(seed: int, build, *arguments) -> nn.Module:
    """A module whose first weights depend on seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(*arguments)


def train_vae(folder: Path, seed: int, recipe: Recipe, device: str) -> AutoencoderKL:
    """The VAE with normalised latents."""
    vae = autoencoder.prepare(_seeded(seed, networks.vae)).to(device, memory_format=torch.channels_last)
    train("vae", vae, functools.partial(autoencoder.loss, vae), recipe.vae, folder, seed)
    vae.requires_grad_(False).eval()
    autoencoder.normalise(vae, latents.sample(vae, seed, recipe.clips))
    return vae


def train_text(folder: Path, seed: int, recipe: Recipe, device: str) -> tuple[PreTrainedTokenizerFast, CLIPTextModel]:
    """The tokenizer and the text encoder, frozen."""
    words = tokenizer.build()
    reader = _seeded(seed, lambda: text.Reader(words, networks.text_encoder(len(words)))).to(device)
    train("text", reader, functools.partial(text.loss, reader), recipe.text, folder, seed)
    return words, reader.text_encoder.requires_grad_(False).eval()


def _unet() -> UNet2DConditionModel:
    unet = networks.unet()
    start.pass_through(unet)
    return unet


def _motion() -> MotionModel:
    motion = networks.motion()
    start.compare_frames(motion)
    return motion


def train_image(folder: Path, seed: int, recipe: Recipe, clips: Tensor, words: PreTrainedTokenizerFast, text_encoder: CLIPTextModel) -> stages.Stack:
    """The stack with a UNet that draws stills, frozen, where the clips are."""
    unet = _seeded(seed, _unet).to(clips.device)
    stack = stages.Stack(words, text_encoder, unet, schedule.sigma_table(TINY.beta_schedule).to(clips.device))
    scenes = [latents.scene(seed, index, world.ANYWHERE) for index in range(len(clips))]
    train("image", unet, lambda dice: stages.image_loss(stack, clips, scenes, recipe.stills, dice), recipe.image, folder, seed)
    unet.requires_grad_(False).eval()
    return stack


def train_motion(folder: Path, seed: int, recipe: Recipe, clips: Tensor, stack: stages.Stack) -> MotionModel:
    """The motion module before distillation, frozen."""
    scenes = _crossings(seed, clips)
    motion = _seeded(seed, _motion).to(clips.device)
    train("motion", motion, lambda dice: stages.motion_loss(stack, motion, clips, scenes, recipe.videos, dice), recipe.motion, folder, seed)
    return motion.requires_grad_(False).eval()


def distil(folder: Path, seed: int, recipe: Recipe, clips: Tensor, stack: stages.Stack, motion: MotionModel) -> MotionModel:
    """The motion module after distillation, frozen; motion stays as it is."""
    scenes = _crossings(seed, clips)
    teacher = stages.Teacher(motion, recipe.guidance, recipe.substeps)
    student = networks.motion().to(clips.device)
    student.load_state_dict(motion.state_dict())

    def loss(dice: Dice) -> Tensor:
        return stages.consistency_loss(stack, student, teacher, TINY, clips, scenes, recipe.videos, dice)

    train("distillation", student, loss, recipe.distillation, folder, seed)
    return student.requires_grad_(False).eval()


def _crossings(seed: int, clips: Tensor) -> list[world.Scene]:
    return [latents.scene(seed, index, world.CROSSING) for index in range(len(clips))]


def train_base(folder: Path, seed: int, recipe: Recipe, device: str) -> tuple[AutoencoderKL, stages.Stack]:
    """VAE, text encoder and image model, from nothing; also as folder/tiny_sd15."""
    vae = train_vae(folder, seed, recipe, device)
    stills = latents.clips(vae, folder / "stills", seed, recipe.clips, world.ANYWHERE)
    stack = train_image(folder, seed, recipe, stills, *train_text(folder, seed, recipe, device))
    export.save_base(folder / TINY_BASE.name, stack, vae, TINY.beta_schedule)
    return vae, stack


def take_base(folder: Path, base: Path, device: str) -> tuple[AutoencoderKL, stages.Stack]:
    """The same from a diffusers folder, with its copy as folder/tiny_sd15, which is what is read: an interrupted run goes on with what it began with."""
    copy = folder / TINY_BASE.name
    if not copy.exists():
        whole(copy, lambda partial: shutil.copytree(base, partial, dirs_exist_ok=True))
    loaded = load_base(copy, device=device)
    return loaded.vae, stages.Stack(loaded.tokenizer, loaded.text_encoder, loaded.unet, schedule.sigma_table(TINY.beta_schedule).to(device))


def _check_base(base: Path) -> None:
    loaded = load_base(base)
    widths = tuple(loaded.unet.config.block_out_channels)
    if widths != networks.WIDTHS:
        raise ValueError(f"{base} is {widths} wide where the tiny motion module is {networks.WIDTHS}; give a tiny base, such as {TINY_BASE}.")
    if loaded.predicts != "epsilon":
        raise ValueError(f"{base} predicts {loaded.predicts!r} and the recipe trains on noise; give a base that predicts 'epsilon'.")


def run(folder: Path, seed: int, recipe: Recipe, device: str = "cpu", base: Path | None = None) -> None:
    """Trains every stage that folder does not hold yet, and writes the weights into it: folder/tiny_sd15 and two motion modules.

    Args:
        base: a diffusers folder of the tiny widths; its VAE, text encoder and image model are used in place of trained ones.
    Raises:
        ValueError: folder holds another seed's or recipe's training, or base is no diffusers folder.
    """
    if base is not None:
        _check_base(base)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / "run.json", seed, recipe, base)
    started = time.monotonic()
    vae, stack = train_base(folder, seed, recipe, device) if base is None else take_base(folder, base, device)
    clips = latents.clips(vae, folder / "clips", seed, recipe.crossings, world.CROSSING)
    motion = train_motion(folder, seed, recipe, clips, stack)
    export.save_motion(folder / evaluate.UNDISTILLED, motion)
    export.save_motion(folder / TINY_MOTION.name, distil(folder, seed, recipe, clips, stack, motion))
    logger.info("%s has its weights after %.0f min.", folder, (time.monotonic() - started) / 60)


def _claim(path: Path, seed: int, recipe: Recipe, base: Path | None) -> None:
    """A folder belongs to one seed, recipe and kind of base; states of two would get mixed."""
    run = json.dumps({"seed": seed} | asdict(recipe) | ({} if base is None else {"base": "given"}), indent=1)
    if not path.exists():
        whole(path, lambda partial: partial.write_text(run, encoding="utf-8"))
    elif path.read_text(encoding="utf-8") != run:
        raise ValueError(f"{path.parent} holds a training with another seed, recipe or base (see {path.name}); give another folder with --out.")


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for states, losses, latents and weights; an interrupted run goes on from it")
    parser.add_argument("--seed", type=int, default=PUBLISHED_SEED, help="of all random numbers (default %(default)s, which made the weights in the package)")
    parser.add_argument("--base", type=Path, help=f"a diffusers folder of the tiny widths, such as {TINY_BASE}: only its motion module is trained")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where it trains (default here: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        device = working_device(arguments.device)
        run(arguments.out, arguments.seed, PUBLISHED, device, arguments.base)
        logger.info("%s is complete.", report.write(arguments.out, arguments.seed, PUBLISHED, device=device))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
