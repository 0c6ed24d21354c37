"""What runs on a cluster's machine, and what is said when there is no cluster; without Ray."""

import asyncio
import os
import signal

import pytest
from serve_server import WORKER

from animatediff_turbo.serve import cluster


@pytest.fixture
def remote(tmp_path):
    (tmp_path / "temporary").mkdir()
    return cluster.Remote(tuple(WORKER), tmp_path / "temporary")


async def begun(remote, tmp_path):
    """Its process is running when this returns."""
    running = asyncio.ensure_future(remote.start({"device": "a", "models": {"notes": str(tmp_path)}}))
    assert (await remote.receive())["say"] == "ready"
    return running


def order(id, prompt="a boat", **more):
    return {"do": "render", "id": id, "endpoint": "", "inputs": {"prompt": prompt, "seed": 5}, "path": f"/elsewhere/made-{id}.mp4"} | more


async def last(remote):
    while (report := await remote.receive()) and report["say"] in ("begun", "step"):
        pass
    return report


def test_files_go_with_orders_and_reports_and_stay_nowhere(remote, tmp_path):
    async def work():
        running = await begun(remote, tmp_path)
        for id in ("1", "2"):
            assert await remote.send(order(id, source="/elsewhere/sent-1.mp4"), b"a video")
            assert await last(remote) == {"say": "done", "bytes": 7, "id": id, "video": b"video 5"}
            (folder,) = (tmp_path / "temporary").iterdir()
            assert list(folder.iterdir()) == []
        await remote.send(order("3", "hold"), None)
        await remote.receive()
        await remote.send({"do": "stop", "id": "3"}, None)
        assert (await last(remote))["say"] == "stopped"
        assert await remote.stop() == "exit status 0" and list((tmp_path / "temporary").iterdir()) == []
        await running

    asyncio.run(asyncio.wait_for(work(), 60))


def test_a_dead_process_is_told_and_its_folder_goes(remote, tmp_path):
    async def work():
        running = await begun(remote, tmp_path)
        await remote.send(order("1", "hold", source="/elsewhere/sent-1.mp4"), b"somebody's video")
        assert (await remote.receive())["say"] == "begun"
        os.kill(int((tmp_path / "workers").read_text()), signal.SIGKILL)
        assert await last(remote) is None
        await running
        assert "killed by signal 9" in await remote.stop() and list((tmp_path / "temporary").iterdir()) == []

    asyncio.run(asyncio.wait_for(work(), 60))


def test_a_program_that_is_not_there_is_no_worker(tmp_path):
    async def work():
        remote = cluster.Remote((str(tmp_path / "none"),), tmp_path)
        running = asyncio.ensure_future(remote.start({}))
        assert await remote.receive() is None and await remote.stop() == "it could not be started"
        with pytest.raises(FileNotFoundError):
            await running

    asyncio.run(asyncio.wait_for(work(), 60))


def test_what_dead_actors_left_a_day_ago_goes(tmp_path):
    for name, age in ((f"{cluster.PREFIX}old", 2 * cluster.OLD_SECONDS), (f"{cluster.PREFIX}young", 60), ("another's", 2 * cluster.OLD_SECONDS)):
        (tmp_path / name).mkdir()
        now = (tmp_path / name).stat().st_mtime
        os.utime(tmp_path / name, (now - age, now - age))
    cluster.Remote((), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3 and not (tmp_path / f"{cluster.PREFIX}old").exists()


@pytest.mark.parametrize(("address", "sentence"), [("127.0.0.1:1", "There is no Ray cluster at 127.0.0.1:1"), ("127.0.0.1:99999", "There is no Ray"), ("ray://box", "use HOST:PORT")])
def test_an_address_without_a_cluster_is_a_sentence(address, sentence):
    with pytest.raises(cluster.ClusterError, match=sentence):
        cluster._reach(address)
