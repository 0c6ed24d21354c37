"""The tiny model in ComfyUI's own classes, as a checkpoint loader would make them."""

import json
from dataclasses import dataclass

import comfy.clip_model
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from transformers import PreTrainedTokenizerFast

from ...motion_modules import checkpoint
from ...motion_modules.config import TINY
from ...weights import TINY_BASE, TINY_MOTION
from .motion import MotionAdapter
from .schedule import BETA_SCHEDULES


@dataclass(frozen=True)
class TinyStack:
    """What Load Tiny Turbo gives."""

    model: comfy.model_patcher.ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE
    adapter: MotionAdapter


def load_tiny() -> TinyStack:
    """The whole tiny stack, from the files in the pack."""
    return TinyStack(_unet(), _clip(), _vae(), MotionAdapter(checkpoint.load(TINY_MOTION), TINY))


def _config(part: str) -> dict:
    return json.loads((TINY_BASE / part / "config.json").read_text(encoding="utf-8"))


def _tensors(part: str) -> dict[str, torch.Tensor]:
    (file,) = (TINY_BASE / part).glob("*.safetensors")
    return comfy.utils.load_torch_file(str(file), safe_load=True)


def _unet() -> comfy.model_patcher.ModelPatcher:
    widths, context = _config("unet")["block_out_channels"], _config("unet")["cross_attention_dim"]
    # SD1.5's, with other widths
    config = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": widths[0], "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": [2, 2, 2, 2], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "context_dim": context, "num_heads": 8, "num_head_channels": -1,
        "use_spatial_transformer": True, "use_linear_in_transformer": False, "use_temporal_attention": False, "adm_in_channels": None, "legacy": False,
    }  # fmt: skip
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    model_config = comfy.supported_models.SD15(config)
    model_config.sampling_settings = {"beta_schedule": BETA_SCHEDULES[TINY.beta_schedule]}
    supported = model_config.supported_inference_dtypes
    dtype = comfy.model_management.unet_dtype(device=device, supported_dtypes=supported)
    model_config.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, device, supported))
    weights, names = _tensors("unet"), comfy.utils.unet_to_diffusers(config)
    model = model_config.get_model(weights, device=offload)
    model.load_model_weights({ldm: weights[name] for name, ldm in names.items() if name in weights})
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload)


def _vae() -> comfy.sd.VAE:
    widths = _config("vae")["block_out_channels"]
    coder = {
        "double_z": True, "z_channels": 4, "resolution": 128, "in_channels": 3, "out_ch": 3, "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    return comfy.sd.VAE(sd=_tensors("vae"), config={"params": {"ddconfig": coder, "embed_dim": 4}})


class _TextModel(comfy.clip_model.CLIPTextModel):
    """CLIP's, with a vocabulary of its own."""

    def __init__(self, config_dict, dtype, device, operations):
        super().__init__(config_dict, dtype, device, operations)
        self.text_model.embeddings = comfy.clip_model.CLIPEmbeddings(
            config_dict["hidden_size"], config_dict["vocab_size"], config_dict["max_position_embeddings"], dtype, device, operations
        )


class _ClipModel(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        config = _config("text_encoder")
        tokens = {"start": config["bos_token_id"], "end": config["eos_token_id"], "pad": config["pad_token_id"]}
        super().__init__(
            device=device, max_length=config["max_position_embeddings"], textmodel_json_config=config, dtype=dtype, model_class=_TextModel,
            special_tokens=tokens, return_projected_pooled=False, model_options=model_options or {},
        )  # fmt: skip


class _TextEncoder(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device, dtype, model_options or {}, clip_model=_ClipModel)


class _Tokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data=None):
        config = _config("text_encoder")
        super().__init__(
            str(TINY_BASE / "tokenizer"), config["max_position_embeddings"], embedding_directory=embedding_directory, embedding_size=config["hidden_size"],
            tokenizer_class=PreTrainedTokenizerFast, tokenizer_data=tokenizer_data or {},
        )  # fmt: skip


class _Tokenizers(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data=None):
        super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=_Tokenizer)


def _clip() -> comfy.sd.CLIP:
    target = comfy.supported_models_base.ClipTarget(_Tokenizers, _TextEncoder)
    return comfy.sd.CLIP(target, embedding_directory=folder_paths.get_folder_paths("embeddings"), state_dict=[_tensors("text_encoder")])
