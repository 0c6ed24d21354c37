"""ADE and this pack in ComfyUI, through what their nodes call. Import it after `comfy_start.start`."""

from pathlib import Path

import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import comfyui_version
import folder_paths
import latent_preview
import pack
import tails
import torch
from comfy_extras.nodes_torch_compile import TorchCompileModel
from probe import Probe
from scenarios import Scenario

import nodes

GRAD_MODE = torch.inference_mode
"""As ComfyUI runs nodes."""
SEED = 5
SCALE = 0.18215
"""SD1.5's latents as the UNet sees them are ComfyUI's times this."""
BETAS = "sqrt_linear (AnimateDiff)"


class Counted:
    """A wrapper of BaseModel.apply_model that counts and times."""

    def __init__(self, probe: Probe):
        self.probe = probe

    def __call__(self, executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        conds = len(transformer_options["cond_or_uncond"])
        return self.probe.run(conds, len(x), lambda: executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs))


class Host:
    """One pack's MODEL and the VAE. settings: see `worker.Settings`."""

    def __init__(self, settings):
        self.settings, self.row = settings, settings.row
        folder = Path(settings.weights)
        self.cuda = comfy.model_management.get_torch_device().type == "cuda"
        self.probe, self.decoding = Probe(self.cuda), Probe(self.cuda)
        base = self._unet(folder).clone()
        base.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "benchmark", Counted(self.probe))
        self.base, self.models = base, {}
        self.conds = [[[tensor, {}]] for tensor in map(comfy.utils.load_torch_file(str(folder / "conds.safetensors")).get, ("positive", "negative"))]
        self.vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(folder / "vae.safetensors")))
        self.decoding.watch(self.vae.first_stage_model.decoder)

    def _unet(self, folder: Path):
        if self.settings.size == "full":
            return comfy.sd.load_diffusion_model(str(folder / "unet.safetensors"))
        return nodes.NODE_CLASS_MAPPINGS["Testing_UNet"]().load(str(folder / "unet.safetensors"))[0]

    def model(self, pooled: bool):
        """The MODEL with motion; pooled: with diffusers' GroupNorm."""
        if pooled not in self.models:
            model = OURS_OR_ADE[self.row.pack](self, Path(self.settings.weights) / "motion_v3.safetensors", pooled)
            self.models[pooled] = TorchCompileModel.execute(model, "inductor").args[0] if self.row.compiled else model
        return self.models[pooled]

    def denoise(self, scenario: Scenario, sigmas: torch.Tensor, pooled: bool = False) -> torch.Tensor:
        """Latents as ComfyUI passes them between nodes, (f, 4, h, w)."""
        latent = torch.zeros(scenario.frames, 4, scenario.side // 8, scenario.side // 8)
        return SAMPLE[self.row.pack](self.model(pooled), *self.conds, {"samples": latent}, sigmas, scenario.guidance)["samples"]

    def comparable(self, latents: torch.Tensor) -> torch.Tensor:
        """At the UNet's scale, (f, 4, h, w) on the CPU."""
        return latents.float().cpu() * SCALE

    def tail(self, latents: torch.Tensor, path: Path) -> dict[str, float]:
        """Decodes and writes an mp4; milliseconds by column."""
        return tails.TAILS[self.row.tail](self, latents, path)

    def about(self) -> dict:
        """For the report."""
        unet = self.base.model
        return {
            "comfyui": comfyui_version.__version__, "patcher": type(self.base).__name__, "unet": str(unet.manual_cast_dtype or unet.get_dtype()),
            "vae": str(self.vae.vae_dtype), "tail": tails.NAMES[self.row.tail], "allocator": torch.cuda.get_allocator_backend() if self.cuda else "",
        }  # fmt: skip


def _ours(host: Host, file: Path, pooled: bool):
    pack.load()
    from animatediff_turbo.motion_modules import checkpoint, config
    from animatediff_turbo.nodes import _host

    loaded = checkpoint.load(file)
    adapter = _host.MotionAdapter(loaded, config.identify(file.name, loaded.layout, loaded.positions)[0])
    return _host.apply_motion(host.base, adapter, _host.Strength(), pooled_norm=pooled)


def _ade(host: Host, file: Path, pooled: bool):
    if pooled:
        raise ValueError("ADE has no pooled GroupNorm for v3.")
    folder_paths.add_model_folder_path("animatediff_models", str(file.parent))
    ade = nodes.NODE_CLASS_MAPPINGS
    (motion,) = ade["ADE_LoadAnimateDiffModel"]().load_motion_model(file.name)
    (motions,) = ade["ADE_ApplyAnimateDiffModelSimple"]().apply_motion_model(motion)
    return ade["ADE_UseEvolvedSampling"]().use_evolved_sampling(host.base, BETAS, m_models=motions)[0]


def _sample_ours(model, positive, negative, latent: dict, sigmas: torch.Tensor, guidance: float) -> dict:
    from animatediff_turbo.nodes import _host

    return _host.sample(model, positive, negative, latent, SEED, sigmas, guidance, 0)


def _sample_core(model, positive, negative, latent: dict, sigmas: torch.Tensor, guidance: float) -> dict:
    """What core's SamplerCustomAdvanced does with a CFGGuider and euler."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(guidance)
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    noise = comfy.sample.prepare_noise(samples, SEED)
    callback = latent_preview.prepare_callback(model, len(sigmas) - 1)
    result = guider.sample(noise, samples, comfy.samplers.sampler_object("euler"), sigmas, None, callback, seed=SEED)
    return {"samples": result.to(comfy.model_management.intermediate_device())}


OURS_OR_ADE = {"ours": _ours, "ade": _ade}
SAMPLE = {"ours": _sample_ours, "ade": _sample_core}
