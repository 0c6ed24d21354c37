"""An adapter's noise schedule as ComfyUI's model_sampling objects."""

import comfy.model_sampling
import torch

from ...motion_modules import schedule
from ...motion_modules.config import Adapter

BETA_SCHEDULES = {"linear": "sqrt_linear", "scaled_linear": "linear"}
"""diffusers' names to ComfyUI's."""


class TurboModelSampling(comfy.model_sampling.ModelSamplingDiscrete):
    """An adapter's own sigmas: all 1000, or the ones that an LCM was distilled on, so that `simple` picks only trained ones.

    They are no buffers: with dynamic VRAM, ComfyUI writes saved buffers back by their path after it has exchanged the object that is
    found there, and the tables of a MODEL with motion and of one without would get mixed (Comfy-Org/ComfyUI#16490).
    """

    def __init__(self, adapter: Adapter):
        super().__init__()
        timesteps = schedule.distilled_timesteps(adapter)
        self.skip = schedule.TRAIN_TIMESTEPS // len(timesteps)
        self.set_sigmas(schedule.sigma_table(adapter.beta_schedule)[timesteps])

    def set_sigmas(self, sigmas: torch.Tensor) -> None:
        """Replaces the table, (timesteps,) ascending."""
        self.sigmas, self.log_sigmas, self.copies = sigmas.float(), sigmas.log().float(), {}

    def register_buffer(self, name: str, tensor: torch.Tensor | None, persistent: bool = True) -> None:
        """Ignored: what comes here is another object's buffer."""

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """The nearest trained timestep of each sigma; no device waits for another."""
        if sigma.device not in self.copies:
            self.copies[sigma.device] = self.log_sigmas.to(sigma.device)
        nearest = (sigma.log() - self.copies[sigma.device][:, None]).abs().argmin(dim=0).view(sigma.shape)
        return nearest * self.skip + (self.skip - 1)

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The sigma of each timestep, interpolated between trained ones."""
        return super().sigma((timestep.float() - (self.skip - 1)) / self.skip)


class TurboEPS(TurboModelSampling, comfy.model_sampling.EPS):
    """For bases that predict the noise, as SD1.5 does."""


class TurboVPrediction(TurboModelSampling, comfy.model_sampling.V_PREDICTION):
    """For the few SD1.5 finetunes that predict the velocity."""
