"""Servers with a worker that has no model."""

import pytest
from serve_server import Server


@pytest.fixture
def start(tmp_path):
    """Starts servers, in tmp_path where no other folder is given, and ends them."""
    running = []

    def begin(folder=None, **settings):
        running.append(Server(folder or tmp_path, **settings))
        return running[-1]

    yield begin
    for server in running:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()
