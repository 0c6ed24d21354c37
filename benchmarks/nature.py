"""A clip that is coded as camera pictures are, without a camera."""

import torch


def nature(side: int, frames: int) -> torch.Tensor:
    """Frames (f, h, w, 3) float: cloudy textures of a picture's spectrum, one moving, turning and growing behind another; film grain is not in it."""
    generator, sample = torch.Generator().manual_seed(0), torch.nn.functional.grid_sample
    fy, fx = torch.fft.fftfreq(2 * side)[:, None], torch.fft.rfftfreq(2 * side)[None]
    radius = (fy.square() + fx.square()).sqrt().clamp(min=1 / side)

    def plane(power: float) -> torch.Tensor:
        waves = torch.fft.irfft2(torch.fft.rfft2(torch.randn(2 * side, 2 * side, generator=generator)) / radius**power)
        return (waves - waves.mean()) / waves.std()

    def texture(power: float) -> torch.Tensor:
        luma, red, blue = plane(power), plane(power + 0.4), plane(power + 0.4)
        return torch.stack([luma + 0.35 * red, luma - 0.1 * (red + blue), luma + 0.35 * blue])[None]

    back, front = texture(1.4), texture(1.1)
    line = torch.linspace(-0.5, 0.5, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    result = []
    for index in range(frames):
        zoom, angle = 1 - 0.004 * index, torch.tensor(0.02 * index)
        far = torch.stack([x * zoom + 0.006 * index, y * zoom], -1)[None]
        near = torch.stack([angle.cos() * x - angle.sin() * y + 0.01 * index, angle.sin() * x + angle.cos() * y], -1)[None]
        mask = torch.sigmoid((0.22 - ((x + 0.15 - 0.015 * index).square() + (y - 0.05).square()).sqrt()) * 80)
        both = sample(back, far, "bicubic", align_corners=False) * (1 - mask) + sample(front, near, "bicubic", align_corners=False) * mask
        result.append((both[0] * 0.18 + 0.45).clamp(0, 1))
    return torch.stack(result).permute(0, 2, 3, 1).contiguous()
