"""The command line: a prompt in, a video out. `python -m animatediff_turbo --help` shows how."""

import argparse
import logging
import os
import sys
from pathlib import Path

from . import schema

HELP = """Renders a short clip from a prompt.

With nothing else it uses the tiny model in this package: no download, a few seconds on any computer. It knows circles, squares, triangles and
stars in red, green, blue, yellow, cyan, magenta, orange and white, moving left, right, up or down on black, grey or navy:

  python -m animatediff_turbo "a red circle moving right on a black background" -o out.mp4

With your own SD1.5 model and a turbo motion adapter:

  python -m animatediff_turbo "a sailing boat, sunset" -o boat.mp4 --checkpoint stable-diffusion-v1-5/ \\
      --adapter animatediff_lightning_4step_diffusers.safetensors
  python -m animatediff_turbo "a sailing boat, sunset" -o boat.mp4 --checkpoint dreamshaper_8.safetensors --config stable-diffusion-v1-5/ \\
      --adapter AnimateLCM_sd15_t2v.ckpt --lora AnimateLCM_sd15_t2v_lora.safetensors:0.8

A video in another look, its motion and sound kept (video to video):

  python -m animatediff_turbo "a blue circle moving right on a black background" --video out.mp4 --strength 0.7 -o blue.mp4

At fal.ai instead of here, with a key in the environment variable FAL_KEY; may cost money, and equal requests are never paid for twice:

  python -m animatediff_turbo "a sailing boat, sunset" -o boat.mp4 --remote

Many clips, one JSON object on each line; run it again to go on after an interruption:

  {"prompt": "a red circle moving right on a black background", "seed": 7}
  {"prompt": "a white star moving up on navy", "num_inference_steps": 8}

  python -m animatediff_turbo --prompts list.jsonl -o clips/

For others, over HTTP, with fal's own protocol; `serve --help` shows how:

  python -m animatediff_turbo serve"""


def parser() -> argparse.ArgumentParser:
    """Every flag; the names are those of the endpoint, see `schema`."""
    result = argparse.ArgumentParser(prog="python -m animatediff_turbo", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("prompt", nargs="?", help="what the clip should show; (words:1.2) weighs words as in ComfyUI")
    result.add_argument("-o", "--output", type=Path, metavar="FILE", help="a file ending in .mp4, .webm or .webp (default out.mp4); with --prompts a folder")
    result.add_argument("--prompts", type=Path, metavar="FILE.jsonl", help="render every line of this file")

    clip = result.add_argument_group("the clip")
    clip.add_argument("--negative-prompt", default=schema.NEGATIVE_PROMPT, help="what it should not show; works with a guidance scale above 1 only")
    clip.add_argument("--video-size", choices=list(schema.VIDEO_SIZES), help="a preset, such as square (512x512); the model's own size without")
    clip.add_argument("--width", type=int, help="pixels, a multiple of 8")
    clip.add_argument("--height", type=int, help="pixels, a multiple of 8")
    frames = int(schema.NUM_FRAMES.default)
    clip.add_argument("--num-frames", type=int, help=f"length in frames (default {frames}, what adapters are trained on); of a --video no more than this")
    clip.add_argument("--num-inference-steps", type=int, default=0, metavar="STEPS", help="UNet evaluations; 0, the default, is the adapter's own number")
    clip.add_argument("--guidance-scale", type=float, metavar="SCALE", help="how strongly the prompts pull; 1 costs about half; the adapter's own without")
    clip.add_argument("--seed", type=int, help="the same seed gives the same clip; a random one without (with --prompts: 0, plus the number of the line)")
    clip.add_argument("--fps", type=float, default=schema.FPS.default, help="frames per second (default %(default)g)")
    clip.add_argument("--quality", type=int, default=80, help="of the file, 0 (small) to 100 (default %(default)s)")

    video = result.add_argument_group("a video to start from")
    video.add_argument("--video", type=Path, metavar="FILE", help="any common format; it is read at --fps and scaled to the model's size in its own shape")
    video.add_argument("--strength", type=float, help=f"how much of it is replaced, above 0 up to 1 (default {schema.STRENGTH.default}); lower keeps more")
    seconds = schema.FIRST_N_SECONDS.default
    video.add_argument("--first-n-seconds", type=float, metavar="SECONDS", help=f"how much of it is used (default {seconds:g}); 0 is all")
    video.add_argument("--skip-seconds", type=float, metavar="SECONDS", help="what is left out at its start (default 0)")

    models = result.add_argument_group("your own models (without: the tiny one)")
    models.add_argument("--checkpoint", type=Path, metavar="PATH", help="an SD1.5 model: a diffusers folder, or a .safetensors or .ckpt file")
    models.add_argument("--config", type=Path, metavar="FOLDER", help="for a single file: a diffusers folder of SD1.5 with tokenizer and configurations")
    models.add_argument("--adapter", type=Path, metavar="FILE", help="a motion adapter: Lightning, AnimateLCM, v1-v3")
    models.add_argument("--family", default="auto", metavar="NAME", help="which adapter the file is, when its name does not say; a wrong name lists all")
    models.add_argument("--lora", action="append", default=[], metavar="FILE[:STRENGTH]", help="a LoRA for the checkpoint; may be given more than once")
    models.add_argument("--download", action="store_true", help="allow fetching what a single file needs besides; nothing is fetched otherwise")

    machine = result.add_argument_group("the machine")
    machine.add_argument("--remote", action="store_true", help="render at fal.ai, with its defaults (8 steps, guidance 2, 512x512); mp4 only")
    machine.add_argument("--if-lost", choices=["stop", "submit again"], default="stop", help="with --remote, where an answer was lost: submit again may pay twice")
    machine.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    machine.add_argument("--dtype", default="auto", choices=["auto", "fp32", "fp16", "bf16"], help="fp32 on the CPU and fp16 elsewhere by default")
    machine.add_argument("--quiet", action="store_true", help="print nothing but errors and the files' paths")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["serve"]:
        return _serve(arguments[1:])
    command = parser()
    options = command.parse_args(arguments)
    if (options.prompt is None) == (options.prompts is None):
        command.error("give a prompt, or --prompts with a file of them (--help shows examples)")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger(__package__).setLevel(logging.ERROR if options.quiet else logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of image processors, which nothing here uses, as soon as it is imported
    try:
        return _run(options)
    except ModuleNotFoundError as error:
        return _stop(f'{error.name} is missing; install the command line with: pip install "animatediff-turbo[headless]"')
    except ImportError as error:
        return _stop(f'{error}; update what the command line needs with: pip install -U "animatediff-turbo[headless]"')
    except KeyboardInterrupt as stop:
        return _stop(str(stop) or "Interrupted; what is finished is kept.", 130)


def _run(options: argparse.Namespace) -> int:
    if options.remote:
        from .fal.command import ERRORS, run
    else:
        from .headless.command import ERRORS, run

    try:
        for path in run(options):
            print(path, flush=True)
    except ERRORS as error:
        return _stop(str(error))
    return 0


def _serve(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger(__package__).setLevel(logging.INFO)
    try:
        from .serve.command import ERRORS, run
    except ImportError as error:
        return _stop(f'{error}; install the server with: pip install -U "animatediff-turbo[serve]"')
    try:
        if key := run(arguments):
            print(key)
    except ERRORS as error:
        return _stop(str(error))
    except KeyboardInterrupt:
        return _stop("Interrupted; what is queued is kept.", 130)
    return 0


def _stop(sentence: str, status: int = 1) -> int:
    print(sentence, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
