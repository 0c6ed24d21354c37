"""The sound of a clip, encoded next to the frames."""
from collections.abc import Mapping
from fractions import Fraction

import av
import numpy as np
import torch
from av.container import OutputContainer

LAYOUTS = {1: "mono", 2: "stereo"}
BIT_RATE = 192_000


def check_audio(audio: Mapping[str, object]) -> tuple[np.ndarray, int]:
    """ComfyUI's AUDIO, `{"waveform": (1, channels, samples) float -1..1, "sample_rate": Hz}`, as (c, samples) float32 and Hz.

    Raises ValueError for anything but one clip, mono or stereo, of finite samples.
    """
    waveform, rate = audio.get("waveform"), audio.get("sample_rate")
    if not isinstance(waveform, torch.Tensor) or waveform.ndim != 3 or not isinstance(rate, int) or rate <= 0:
        raise ValueError('audio is {"waveform": tensor (1, channels, samples), "sample_rate": Hz}; this is something else.')
    clips, channels, _ = waveform.shape
    if clips != 1:
        raise ValueError(f"audio holds {clips} clips; a video has one, so pick one of them.")
    if channels not in LAYOUTS:
        raise ValueError(f"audio has {channels} channels; mix it down to mono or stereo.")
    samples = waveform[0].detach().to("cpu", torch.float32)  # c samples
    if not torch.isfinite(samples).all():
        raise ValueError("audio holds NaN or infinite samples; check the node that made it.")
    return samples.numpy(), rate


class AudioStream:
    """Encodes samples into `container` as far as the frames have come, so that both interleave and the sound never outlasts the clip."""

    def __init__(self, container: OutputContainer, codec: str, rates: tuple[int, ...], samples: np.ndarray, rate: int) -> None:
        self._container, self._samples, self._rate = container, samples, rate
        self._layout = LAYOUTS[len(samples)]
        # PyAV resamples by itself from a frame's rate to the stream's.
        self._stream = container.add_stream(codec, rate=rate if rate in rates else 48_000, layout=self._layout, bit_rate=BIT_RATE)
        self._position = 0

    def write_until(self, seconds: Fraction) -> None:
        """Encode the samples from where the last call ended up to `seconds`, or to the end of the sound."""
        end = min(int(seconds * self._rate), self._samples.shape[1])
        if end <= self._position:
            return
        chunk = np.ascontiguousarray(self._samples[:, self._position:end])
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._position, Fraction(1, self._rate)
        self._container.mux(self._stream.encode(frame))
        self._position = end

    def finish(self) -> None:
        """Encode what the codec still holds."""
        self._container.mux(self._stream.encode(None))
