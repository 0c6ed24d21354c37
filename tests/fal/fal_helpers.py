"""Requests and runs for the tests of `fal/`."""

import asyncio

from fal_server import KEY

from animatediff_turbo.fal import config, job, journal, request
from animatediff_turbo.fal.waiting import Clock


class Quick:
    """A clock whose seconds pass in a thousandth of their time."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.time += seconds
        await asyncio.sleep(seconds / 1000)

    @property
    def clock(self):
        return Clock(self.now, self.sleep)


def asked(**changes):
    values = {
        "prompt": "a boat", "negative_prompt": "", "num_frames": 16, "num_inference_steps": 4, "guidance_scale": 1.0, "seed": 5, "fps": 8,
        "video_size": "square", "width": 512, "height": 512,
    }  # fmt: skip
    return request.text_to_video(**values | changes)


def run(settings, wanted=None, options=None, **runner):
    runner = {"clock": Quick().clock, "key": lambda: config.Key(KEY)} | runner
    return asyncio.run(job.Runner(settings, **runner).run(wanted or asked(), options or job.Options()))


def state_of(settings, wanted=None):
    return journal.Entry(settings.folder / "fal" / (wanted or asked()).key(settings)).read()
