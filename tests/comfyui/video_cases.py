"""Combine Video and Load Video Frames inside this process, interrupted at a certain moment: python video_cases.py COMFYUI FOLDER; one JSON line at the end.

Runs in ComfyUI's Python. Not a test by itself: test_video_nodes.py judges what it prints.
"""

import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

comfyui, base = sys.argv[1], Path(sys.argv[2])
sys.path.insert(0, comfyui)
sys.argv[1:] = ["--cpu", "--disable-metadata", "--base-directory", str(base)]
for folder in ("input", "output", "temp"):
    (base / folder).mkdir(parents=True, exist_ok=True)

import comfy.options

comfy.options.enable_args_parsing()
import utils.extra_config  # noqa: F401, I001 (before ComfyUI's nodes put another utils on the path)
import comfy.model_management
import comfy.utils
import torch

from animatediff_turbo.nodes import video
from animatediff_turbo.video.decode import decode
from animatediff_turbo.video.encode import encode

torch.set_num_threads(1)
OPTIONS = {"fps": 8.0, "format": "mp4", "quality": 80, "pingpong": False, "loop_count": 0, "filename_prefix": "case", "save": True}
NOISE = torch.rand(60, 64, 64, 3, generator=torch.Generator().manual_seed(0))
SOUND = {"waveform": torch.zeros(1, 1, 48_000 * 8), "sample_rate": 48_000}
LOAD = {"fps": 0.0, "first_n_seconds": 0.0, "skip_seconds": 0.0, "max_frames": 0}


def files():
    return [file for folder in ("output", "temp") for file in (base / folder).iterdir()]


def run(node, last=None, **inputs):
    """What the node says, what it leaves, and what core's progress bar shows, whose first report of `last` or more makes somebody interrupt."""
    for file in files():
        file.unlink()
    threads, bar, said, result = set(threading.enumerate()), [], "", None

    def hook(value, total, preview, prompt_id=None, node_id=None):
        bar.append((value, total))
        if last is not None and value >= last:
            comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        result = node.execute(**inputs).result
    except (comfy.model_management.InterruptProcessingException, ValueError) as error:
        said = type(error).__name__
    asked = comfy.model_management.processing_interrupted()
    comfy.model_management.interrupt_current_processing(False)
    return {"said": said, "left": sorted(file.name for file in files()), "bar": [bar[0], bar[-1]] if bar else [], "threads": len(set(threading.enumerate()) - threads), "asked": asked}, result


def combined(last=None, images=NOISE, **options):
    return run(video.CombineVideo, last, images=images, **OPTIONS | options)[0]


def loaded(last=None, **options):
    found, result = run(video.LoadVideoFrames, last, file="noise.mp4", **LOAD | options)
    return found | ({"frames": len(result[0])} if result else {})


def video_of(format, channels):
    """The VIDEO of pictures with so many channels, as Save Video takes it."""
    result = run(video.CombineVideo, images=NOISE[:4, ..., :1].repeat(1, 1, 1, channels), **OPTIONS | {"format": format})[1]
    path = base / f"saved {format} {channels}.mp4"
    result[0].save_to(str(path))
    return [list(result[0].get_components().images.shape), len(decode(path).frames)]


def named(prefix):
    """The length of a file's name in bytes for a graph with a long prompt."""
    prompt = {"3": {"class_type": "CLIPTextEncode", "inputs": {"text": "ein schöner Kater, " * 50}}}
    place = video.target(prefix, "webm", True, 64, 64, SimpleNamespace(prompt=prompt, extra_pnginfo=None))
    return len(encode(NOISE[:2], place.path, 8, "webm").path.name.encode())


encode(NOISE, base / "input" / "noise.mp4", 8, "mp4", audio=SOUND)
with torch.inference_mode():
    cases = {
        "combined": combined(),
        "looped": combined(pingpong=True, loop_count=1),
        "webp": combined(format="webp", loop_count=2),
        "interrupted": combined(1, quality=100),
        "interrupted webm": combined(1, format="webm"),
        "interrupted webp": combined(0, format="webp"),
        "interrupted webp later": combined(3, format="webp", quality=100),
        "interrupted preview": combined(1, save=False, quality=100),
        "loaded": loaded(),
        "loaded part": loaded(first_n_seconds=1.0, skip_seconds=2.0),
        "interrupted load": loaded(0),
        "interrupted sound": loaded(98),
        "videos": {f"{format} {channels}": video_of(format, channels) for format in ("mp4", "webp") for channels in (1, 3, 4)},
        "name": named("%CLIPTextEncode.text%"),
    }
print(json.dumps(cases))
