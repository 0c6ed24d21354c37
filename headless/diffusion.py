"""What diffusers' UNet predicts, on k-diffusion's scale of noise (Karras et al. 2022: a sigma is the noise's deviation when the picture's is 1)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from diffusers import UNet2DConditionModel
from torch import Tensor


def predict(unet: UNet2DConditionModel, x: Tensor, sigma: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
    """The UNet's output for x, in x's dtype whatever the UNet computes in.

    Args:
        x: (n, c, h, w), picture plus sigma times noise.
        sigma, timestep: (n,); timesteps are 0 to 999.
        text: (n, tokens, width).
    """
    return unet((x / (1 + _wide(sigma) ** 2).sqrt()).to(unet.dtype), timestep, text.to(unet.dtype), return_dict=False)[0].to(x.dtype)


def _from_noise(x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
    return x - sigma * output


def _from_velocity(x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
    return x / (1 + sigma**2) - sigma / (1 + sigma**2).sqrt() * output


PREDICTIONS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = MappingProxyType({"epsilon": _from_noise, "v_prediction": _from_velocity})
"""From x, sigma and the UNet's output to the clean picture, by diffusers' prediction_type."""


def clean(prediction: str, x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
    """The picture that output says is in x. x, output: (n, c, h, w); sigma: (n,)."""
    return PREDICTIONS[prediction](x, _wide(sigma), output)


def _wide(sigma: Tensor) -> Tensor:
    return sigma[:, None, None, None]
