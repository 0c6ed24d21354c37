"""Decode and Combine inside this process, where a VAE can be made to fail on purpose: python tail_cases.py COMFYUI FOLDER; one JSON line at the end.

Runs in ComfyUI's Python. Not a test by itself: test_decode_and_combine.py judges what it prints.
"""

import gc
import json
import resource
import sys
import threading
import weakref
from pathlib import Path

comfyui, base = sys.argv[1], Path(sys.argv[2])
sys.path.insert(0, comfyui)
sys.argv[1:] = ["--cpu", "--disable-metadata", "--base-directory", str(base)]
for folder in ("output", "temp"):
    (base / folder).mkdir(parents=True, exist_ok=True)

import comfy.options

comfy.options.enable_args_parsing()
import utils.extra_config  # noqa: F401, I001 (before ComfyUI's nodes put another utils on the path)
import comfy.model_management
import torch

from animatediff_turbo.nodes import _host, tail
from animatediff_turbo.nodes._host import decode as host_decode
from animatediff_turbo.video.decode import decode
from animatediff_turbo.video.errors import VideoError

torch.set_num_threads(1)
OPTIONS = {"fps": 8.0, "format": "mp4", "quality": 80, "pingpong": False, "loop_count": 0, "filename_prefix": "case", "save": True}
ERRORS = (VideoError, ValueError, comfy.model_management.InterruptProcessingException)


class Vae:
    """Stands for a VAE: grey frames, each of its own level, that remember when they were let go; `at` is called before each decode."""

    device, output_device, latent_dim, latent_channels = torch.device("cpu"), torch.device("cpu"), 2, 4

    def __init__(self, at=lambda call, frames: None, side=64):
        self.calls, self.at, self.side, self.alive, self.peak = 0, at, side, weakref.WeakSet(), 0

    def spacial_compression_decode(self):
        return 8

    def decode(self, samples):
        self.calls += 1
        frames = samples.mean((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, self.side, self.side, 3).clone()
        self.at(self.calls, frames)
        self.alive.add(frames)
        self.peak = max(self.peak, len(self.alive))
        return frames


def latents(count):
    return {"samples": (torch.arange(count) % 10 / 10).view(-1, 1, 1, 1).expand(-1, 4, 8, 8)}


def run(vae, latent, **options):
    """What the node says, how often the VAE decoded, what lies in the output folder and which threads are left."""
    threads = set(threading.enumerate())
    said, path = "", None
    try:
        path = tail.DecodeAndCombine.execute(latent, vae, **OPTIONS | options).result[1]
    except ERRORS as error:
        said = f"{type(error).__name__}: {error}"
    finally:
        comfy.model_management.interrupt_current_processing(False)
    left = sorted(file.name for file in (base / "output").iterdir() if str(file) != path)
    result = {"said": said, "calls": getattr(vae, "calls", 0), "left": left, "threads": len(set(threading.enumerate()) - threads)}
    if path:
        result["frames"] = [round(float(frame.mean()) * 10) for frame in decode(path).frames] if path.endswith("mp4") else []
        Path(path).unlink()
    return result


def bytes_alive():
    """Of all tensors that anybody holds and that are new."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in gc.get_objects() if type(each) is torch.Tensor}
    return sum(storages.values())


def memory(count):
    """Peak bytes of new tensors, and peak number of float results that were alive, while a clip of `count` frames is written."""
    latent, peak = latents(count), 0
    gc.collect()
    gc.freeze()  # what there is by now is not looked at again

    def look(call, frames):
        nonlocal peak
        peak = max(peak, bytes_alive())

    vae = Vae(look)
    result = run(vae, latent)
    return {"bytes": peak, "floats": vae.peak, "frames": len(result["frames"])}


def nan_at(call, frames):
    if call == 7:
        frames[0, 3, 3, 1] = torch.nan


def interrupt_at(call, frames):
    if call == 3:
        comfy.model_management.interrupt_current_processing()


def interrupt_at_the_last(call, frames):
    if call == 12:
        comfy.model_management.interrupt_current_processing()


def video_vae():
    vae = Vae()
    vae.latent_dim = 3
    return vae


def full_disk():
    """Noise that the encoder can't make small, and room for a part of it; the last case, for the limit stays."""
    generator = torch.Generator().manual_seed(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    return run(Vae(lambda call, frames: frames.uniform_(generator=generator), side=128), latents(400), quality=100) | {"of": 400}


def real():
    """The tiny VAE: its frames decoded by the node's way, and by core's own call, one at a time and all at once."""
    vae = _host.load_tiny().vae
    samples = torch.randn(5, 4, 7, 9, generator=torch.Generator().manual_seed(0))
    found = torch.stack(list(_host.decoded(vae, samples, Path("clip.mp4"))))
    alone, together = (frames.clamp(0, 1).mul(255).round().byte() for frames in (torch.cat([vae.decode(each) for each in samples.split(1)]), vae.decode(samples)))
    distance = (found.int() - together.int()).abs()
    return {"alone": bool(torch.equal(found, alone)), "most": int(distance.max()), "share": float((distance > 0).float().mean()), "dtype": str(found.dtype)}


def on_a_card():
    """Where the VAE computes on a card its result stays there, and the VAE itself is not touched."""
    vae = Vae()
    vae.device = torch.device("cuda")
    staying = host_decode._staying(vae)
    return {"result": str(staying.output_device), "vae": str(vae.output_device), "same": vae.alive is staying.alive, "at_once": host_decode.at_once(vae)}


def byte_video():
    """The VIDEO of a webp: frames as floats, and a file by core's own encoder."""
    video, path = tail.DecodeAndCombine.execute(latents(3), Vae(), **OPTIONS | {"format": "webp", "pingpong": True}).result
    Path(path).unlink()
    frames = video.get_components().images
    video.save_to(str(base / "core.mp4"))
    return {
        "shape": list(frames.shape), "levels": [round(float(each.mean()) * 10) for each in frames], "dtype": str(frames.dtype), "fps": float(video.get_frame_rate()),
        "size": video.get_dimensions(), "saved": len(decode(base / "core.mp4").frames), "trimmed": video.as_trimmed(0.0, 0.25, False) is not None,
    }  # fmt: skip


with torch.inference_mode():
    cases = {
        "plain": run(Vae(), latents(13)),
        "pingpong": run(Vae(), latents(4), pingpong=True),
        "looped": run(Vae(), latents(3), loop_count=2),
        "hardware": run(Vae(), latents(3), encoder="hardware"),
        "nan": run(Vae(nan_at), latents(12)),
        "interrupt": run(Vae(interrupt_at), latents(12)),
        "interrupted webp": run(Vae(interrupt_at), latents(12), format="webp"),
        "interrupted compressing": run(Vae(interrupt_at_the_last), latents(12), format="webp"),
        "outside": run(Vae(), latents(3), filename_prefix="../x"),
        "sound of a webp": run(Vae(), latents(3), format="webp", audio={"waveform": torch.zeros(1, 1, 800), "sample_rate": 8000}),
        "fps": run(Vae(), latents(3), fps=241.0),
        "video latent": run(Vae(), {"samples": torch.zeros(1, 4, 5, 8, 8)}),
        "video vae": run(video_vae(), latents(3)),
        "channels": run(Vae(), {"samples": torch.zeros(3, 16, 8, 8)}),
        "no frames": run(Vae(), {"samples": torch.zeros(0, 4, 8, 8)}),
        "short": memory(16),
        "long": memory(160),
        "real": real(),
        "card": on_a_card(),
        "byte video": byte_video(),
        "full disk": full_disk(),
    }
print(json.dumps(cases))
