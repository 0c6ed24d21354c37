"""diffusers' AnimateDiffPipeline on the same weights, noise, timesteps and embeddings."""

import time
from fractions import Fraction
from pathlib import Path

import av
import diffusers
import numpy as np
import torch
from diffusers import AnimateDiffPipeline, EulerDiscreteScheduler, UNetMotionModel
from probe import Probe, synchronize
from safetensors.torch import load_file
from scenarios import Scenario

import weights

GRAD_MODE = torch.no_grad
"""As the pipeline runs."""
FPS = 8
SEED = 5
SIGMAS = 1e-3
"""How far its sigmas may be from those given to the others."""
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "timestep_spacing": "trailing"}


class Counted(torch.nn.Module):
    """The pipeline's UNet, counted and timed, compiled or not."""

    def __init__(self, unet: UNetMotionModel, called, probe: Probe):
        super().__init__()
        self.unet, self.called, self.probe = unet, called, probe

    @property
    def config(self):
        """diffusers' own."""
        return self.unet.config

    @property
    def dtype(self) -> torch.dtype:
        """The weights'."""
        return self.unet.dtype

    @property
    def device(self) -> torch.device:
        """The weights'."""
        return self.unet.device

    def forward(self, sample: torch.Tensor, *args, **kwargs):
        """sample: (videos or conds, 4, f, h, w)."""
        return self.probe.run(len(sample), len(sample) * sample.shape[2], lambda: self.called(sample, *args, **kwargs))


class Host:
    """The pipeline. settings: see `worker.Settings`."""

    def __init__(self, settings):
        self.settings, self.row = settings, settings.row
        self.cuda, self.device = settings.device == "cuda", settings.device
        self.probe, self.decoding = Probe(self.cuda), Probe(self.cuda)
        dtype = weights.DTYPES[settings.dtype]
        folder = Path(settings.weights)
        unet = _motion_unet(folder, settings.size).to(self.device, dtype)
        vae = weights.vae()
        vae.load_state_dict(load_file(folder / "vae.safetensors"), assign=True)
        vae = vae.to(self.device, torch.bfloat16 if dtype == torch.float16 else dtype).eval()  # as ComfyUI decodes
        if self.row.compiled:
            unet, vae = unet.to(memory_format=torch.channels_last), vae.to(memory_format=torch.channels_last)
        scheduler = EulerDiscreteScheduler(**SCHEDULE)
        self.pipe = AnimateDiffPipeline(vae=vae, text_encoder=None, tokenizer=None, unet=unet, motion_adapter=None, scheduler=scheduler)
        self.pipe.unet = Counted(unet, torch.compile(unet, dynamic=False) if self.row.compiled else unet, self.probe)
        self.pipe.set_progress_bar_config(disable=True)
        self.decoding.watch(vae.decoder)
        conds = load_file(folder / "conds.safetensors")
        self.conds = {key: conds[name].to(self.device, dtype) for key, name in {"prompt_embeds": "positive", "negative_prompt_embeds": "negative"}.items()}

    def denoise(self, scenario: Scenario, sigmas: torch.Tensor, pooled: bool = True) -> torch.Tensor:
        """Latents, (1, 4, f, h, w). The scheduler makes its own sigmas: RuntimeError where they are not those that ComfyUI is given."""
        side = scenario.side // 8
        noise = torch.randn(scenario.frames, 4, side, side, generator=torch.Generator().manual_seed(SEED))
        # ComfyUI starts from noise * sqrt(sigma**2 + 1); the pipeline multiplies by sigma
        start = noise.permute(1, 0, 2, 3)[None] * (1 + float(sigmas[0]) ** -2) ** 0.5
        start = start.to(self.device, self.conds["prompt_embeds"].dtype)
        latents = self.pipe(
            **self.conds, num_frames=scenario.frames, height=scenario.side, width=scenario.side, num_inference_steps=scenario.steps,
            guidance_scale=scenario.guidance, latents=start, output_type="latent",
        ).frames  # fmt: skip
        if not torch.allclose(self.pipe.scheduler.sigmas.cpu().float(), sigmas.cpu().float(), rtol=SIGMAS, atol=SIGMAS):
            raise RuntimeError(f"diffusers' sigmas {self.pipe.scheduler.sigmas.tolist()} are not {sigmas.tolist()}")
        return latents

    def comparable(self, latents: torch.Tensor) -> torch.Tensor:
        """At the UNet's scale, (f, 4, h, w) on the CPU."""
        return latents[0].permute(1, 0, 2, 3).float().cpu()

    def tail(self, latents: torch.Tensor, path: Path) -> dict[str, float]:
        """The pipeline's decoding, in chunks of 16, and libx264 at its own settings by PyAV; milliseconds by column."""
        self.decoding.clear()
        started = time.perf_counter()
        video = self.pipe.decode_latents(latents.to(self.pipe.vae.dtype), 16)
        frames = self.pipe.video_processor.postprocess_video(video=video, output_type="np")[0]
        synchronize(self.cuda)
        whole = (time.perf_counter() - started) * 1000
        vae = sum(self.decoding.device_ms())
        started = time.perf_counter()
        _export(frames, path)
        return {"vae": vae, "copy": whole - vae, "encode": (time.perf_counter() - started) * 1000}

    def about(self) -> dict:
        """For the report."""
        backend = torch.cuda.get_allocator_backend() if self.cuda else ""
        return {
            "diffusers": diffusers.__version__,
            "unet": str(self.pipe.unet.dtype),
            "vae": str(self.pipe.vae.dtype),
            "tail": "decode_latents, libx264",
            "allocator": backend,
        }


def _motion_unet(folder: Path, size: str) -> UNetMotionModel:
    with torch.device("meta"):
        unet = UNetMotionModel(
            in_channels=4, out_channels=4, layers_per_block=2, norm_num_groups=32, num_attention_heads=8, motion_num_attention_heads=8,
            motion_max_seq_length=32, use_motion_mid_block=False, block_out_channels=weights.WIDTHS[size], cross_attention_dim=weights.CONTEXT[size],
        )  # fmt: skip
    unet.load_state_dict(load_file(folder / "unet.safetensors") | weights.motion_for_diffusers(folder), assign=True)
    return unet.requires_grad_(False).eval()


def _export(frames: np.ndarray, path: Path) -> None:
    """frames: (f, h, w, 3) float 0..1."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), width=frames.shape[2], height=frames.shape[1], pix_fmt="yuv420p")
        for frame in (frames * 255).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
