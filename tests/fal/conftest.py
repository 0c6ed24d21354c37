"""A server that speaks fal's protocol on loopback, and settings that lead to it."""

import pytest
import torch
from fal_server import FalServer
from yarl import URL

from animatediff_turbo.fal import config
from animatediff_turbo.video.encode import encode


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("fal") / "clip.mp4"
    encode(torch.rand(16, 64, 64, 3, generator=torch.Generator().manual_seed(0)), path, 8, "mp4")
    return path.read_bytes()


@pytest.fixture(scope="session")
def running(video):
    server = FalServer(video)
    yield server
    server.stop()


@pytest.fixture
def server(running):
    running.reset()
    return running


@pytest.fixture
def settings(server, tmp_path):
    return config.Config(tmp_path, queue=URL(server.address), storage=URL(server.address), answer_seconds=1.0)
