"""Nodes that a test needs inside ComfyUI: a narrow SD1.5 UNet from a file, given conditioning, looks at a MODEL. Not part of the product."""

import hashlib
import json
import sys
import time
from pathlib import Path

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.supported_models
import comfy.utils
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict


def pack(name):
    """A module of the pack under test, whatever name ComfyUI loaded it under."""
    return next(module for key, module in sys.modules.items() if key.endswith(f"animatediff_turbo.{name}"))


class UNet:
    """A MODEL from diffusers' key names and a JSON of {widths, context, ...} beside them."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"path": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "load", "testing"

    def load(self, path):
        options = json.loads(Path(path).with_suffix(".json").read_text())
        widths = options["widths"]
        config = {
            "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": widths[0], "num_res_blocks": [2] * 4,
            "channel_mult": [width // widths[0] for width in widths], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1, "use_temporal_attention": False,
            "context_dim": options["context"], "num_heads": 8, "num_head_channels": -1, "use_linear_in_transformer": False,
            "adm_in_channels": None, "use_spatial_transformer": True, "legacy": False, "dtype": getattr(torch, options.get("dtype", "float32")),
        }  # fmt: skip
        model_config = comfy.supported_models.SD15(config)
        model_config.manual_cast_dtype = getattr(torch, options["manual_cast"]) if "manual_cast" in options else None
        model = comfy.model_base.BaseModel(model_config, device="cpu")
        weights = comfy.utils.load_torch_file(path)
        names = comfy.utils.unet_to_diffusers(config)
        model.diffusion_model.load_state_dict({ldm: weights[name] for name, ldm in names.items() if name in weights}, strict=True)
        model.model_config = getattr(comfy.supported_models, options.get("kind", "SD15"))(config)
        device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
        return (comfy.model_patcher.CoreModelPatcher(model, device, offload),)


class Conditioning:
    """Positive and negative from a file's tensors of these names."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"path": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING", "CONDITIONING"), "load", "testing"

    def load(self, path):
        tensors = comfy.utils.load_torch_file(path)
        return [[tensors["positive"], {}]], [[tensors["negative"], {}]]


class ApplyPooled:
    """Apply Motion Adapter with GroupNorm pooled over frames, as diffusers has it."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",), "motion_adapter": ("ANIMATEDIFF_TURBO_ADAPTER",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "apply", "testing"

    def apply(self, model, motion_adapter):
        host = pack("nodes._host")
        return (host.apply_motion(model, motion_adapter, host.Strength(), pooled_norm=True),)


class Copy:
    """What core's nodes for several GPUs make of a MODEL for another one, here for the same device; still: with a motion module that does nothing."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",), "path": ("STRING", {}), "still": ("BOOLEAN", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "copy", "testing"

    def copy(self, model, path, still):
        model = model.clone()
        model.cached_patcher_init = (lambda: UNet().load(path)[0]), ()
        copied = model.deepclone_multigpu(model.load_device)
        (motion,), (copied_motion,) = (each.get_additional_models_with_key("animatediff_turbo") for each in (model, copied))
        if copied.model is model.model or copied_motion.model is motion.model:
            raise AssertionError("The copy shares its weights with what it was copied from.")
        for transformer in copied_motion.model.transformers().values() if still else ():
            for name, weight in list(transformer.proj_out.named_parameters()):  # new tensors: the file's are everybody's
                setattr(transformer.proj_out, name, torch.nn.Parameter(torch.zeros_like(weight), requires_grad=False))
        return (copied,)


class Listen:
    """Writes one JSON line for each cross-attention: what its patches are told of the frames, as IPAdapter's are."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",), "log": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "listen", "testing"

    def listen(self, model, log):
        def patch(n, context, value, extra_options):
            with open(log, "a") as file:
                file.write(json.dumps([extra_options.get("ad_params"), len(n) // len(extra_options["cond_or_uncond"])]) + "\n")
            return n, context, value

        clone = model.clone()
        clone.set_model_attn2_patch(patch)
        return (clone,)


class Watch:
    """Writes one JSON line for each UNet call; from call `block_at` on it holds the call until the run is interrupted."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",), "log": ("STRING", {}), "block_at": ("INT", {"default": -1, "min": -1})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "watch", "testing"

    def watch(self, model, log, block_at):
        calls = []

        def wrapper(executor, x, timesteps, *args, **kwargs):
            calls.append({"rows": x.shape[0], "timestep": float(timesteps[0]), "dtype": str(x.dtype)})
            with open(log, "a") as file:
                file.write(json.dumps(calls[-1]) + "\n")
            if len(calls) - 1 == block_at:
                give_up = time.monotonic() + 30
                while not comfy.model_management.processing_interrupted() and time.monotonic() < give_up:
                    time.sleep(0.01)
            return executor(x, timesteps, *args, **kwargs)

        clone = model.clone()
        clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "testing", wrapper)
        return (clone,)


class Look:
    """Reports a MODEL: a hash of its UNet's weights and module tree, its patches, what is loaded."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",), "moment": ("STRING", {})}, "optional": {"after": ("LATENT",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "testing", True

    def look(self, model, moment, after=None):
        digest = hashlib.sha256(str(model.model.diffusion_model).encode())
        for name, tensor in model.model.diffusion_model.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        patches = model.model_options["transformer_options"].get("patches", {})
        report = {
            "hash": digest.hexdigest(), "object_patches": sorted(model.object_patches), "patches": sorted(patches),
            "additional": sorted(model.additional_models), "attachments": sorted(model.attachments),
            "loaded": [loaded.model.model.__class__.__name__ for loaded in comfy.model_management.current_loaded_models],
        }  # fmt: skip
        return {"ui": {"report": [json.dumps(report)]}}


class Schedule:
    """A MODEL with an adapter's noise schedule and nothing else."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",), "row": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "patch", "testing"

    def patch(self, model, row):
        clone = model.clone()
        clone.add_object_patch("model_sampling", pack("nodes._host").TurboEPS(pack("motion_modules.config").ADAPTERS[row]))
        return (clone,)


class Table:
    """The noise table that a MODEL is sampled with: its sigmas, the timestep of each and the sigma of that timestep."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "testing", True

    def look(self, model):
        table = model.get_model_object("model_sampling")
        for name in ("sigmas", "log_sigmas"):  # what dynamic VRAM does with the buffers of the object that was here before
            table.register_buffer(name, torch.zeros(3))
        buffers = [name for name, _ in table.named_buffers()]
        timesteps = table.timestep(table.sigmas)
        back = table.sigma(timesteps)
        return {"ui": {"sigmas": table.sigmas.tolist(), "timesteps": timesteps.tolist(), "back": back.tolist(), "buffers": buffers}}


class Foreign:
    """Another pack's handler on the same layers."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "patch", "testing"

    def patch(self, model):
        clone = model.clone()
        layer = comfy.ldm.modules.diffusionmodules.openaimodel.ResBlock
        clone.set_model_forward_timestep_embed_patch((layer, lambda layer, x, emb, *rest: layer(x, emb)))
        return (clone,)


class Inject:
    """Another pack's modules in the UNet while it runs."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "patch", "testing"

    def patch(self, model):
        clone = model.clone()
        clone.set_injections("another_pack", [comfy.model_patcher.PatcherInjection(lambda patcher: None, lambda patcher: None)])
        return (clone,)


class ControlNet:
    """ComfyUI's own ControlNet for the narrow UNet, with random weights that act."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",), "seed": ("INT", {"default": 0})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("CONTROL_NET",), "build", "testing"

    def build(self, model, seed):
        config = model.model.model_config.unet_config.copy()
        for key in ("out_channels", "transformer_depth_output", "use_temporal_attention"):
            config.pop(key)
        network = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=comfy.ops.disable_weight_init)
        generator = torch.Generator().manual_seed(seed)
        for tensor in network.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * max(tensor[0].numel(), 1) ** -0.5 if tensor.ndim > 1 else torch.full_like(tensor, 0.5))
        return (comfy.controlnet.ControlNet(network, load_device=comfy.model_management.get_torch_device()),)


class Pictures:
    """count random pictures; from one number on they come from another seed."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"count": ("INT", {}), "changed": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "make", "testing"

    def make(self, count, changed):
        pictures = torch.rand(count, 64, 64, 3, generator=torch.Generator().manual_seed(0))
        for number in json.loads(changed):
            pictures[number] = 1 - pictures[number]
        return (pictures,)


class Compile:
    """Core's TorchCompileModel with a backend that translates nothing: the same guards and graphs, without minutes of a C++ compiler."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "patch", "testing"

    def patch(self, model):
        clone = model.clone()
        set_torch_compile_wrapper(clone, backend="eager", options={"guard_filter_fn": skip_torch_compile_dict})
        return (clone,)


class Numbers:
    """A list of whole numbers, each of which ComfyUI gives to the next node by itself."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"first": ("INT", {}), "count": ("INT", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_IS_LIST = ("INT",), "count", "testing", (True,)

    def count(self, first, count):
        return (list(range(first, first + count)),)


class Fail:
    """Fails as soon as a file is there."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"path": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("STRING",), "fail", "testing"

    def fail(self, path):
        give_up = time.monotonic() + 30
        while not Path(path).exists() and time.monotonic() < give_up:
            time.sleep(0.01)
        raise ValueError("failed on purpose" if Path(path).exists() else "nothing came")


class SaveFrames:
    """Writes an IMAGE as it is, float32, to a safetensors file."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"images": ("IMAGE",), "path": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "save", "testing", True

    def save(self, images, path):
        comfy.utils.save_torch_file({"frames": images.cpu().contiguous()}, path)
        return {"ui": {"shape": list(images.shape)}}


NODES = (UNet, Conditioning, SaveFrames, ApplyPooled, Copy, Listen, Watch, Look, Schedule, Table, Foreign, Inject, ControlNet, Pictures, Compile, Fail, Numbers)
NODE_CLASS_MAPPINGS = {f"Testing_{node.__name__}": node for node in NODES}
