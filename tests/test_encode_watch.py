"""Who watches video.encode: hears how many frames are done, and ends it without a trace."""

import threading

import pytest
import torch

from animatediff_turbo.video.encode import FORMATS, encode
from animatediff_turbo.video.pictures import play_order, played

COUNT = 20


def noise(count=COUNT, side=32):
    return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("options", [{}, {"pingpong": True}, {"loop_count": 2}, {"pingpong": True, "loop_count": 1}], ids=str)
def test_it_hears_of_every_frame_in_its_own_thread(format, options, tmp_path):
    heard, threads = [], set()

    def watch(done):
        heard.append(done)
        threads.add(threading.current_thread())

    count = encode(noise(), tmp_path / f"x.{format}", 8, format, watch=watch, **options).frame_count
    assert [done for done in heard if done] == list(range(1, count + 1)) and heard == sorted(heard)
    assert threads == {threading.current_thread()}


def test_of_a_webp_it_hears_while_frames_come_and_while_they_are_compressed(tmp_path):
    heard = []
    encode((frame for frame in noise(5)), tmp_path / "x.webp", 8, "webp", watch=heard.append)
    assert heard == [0] * 5 + [1, 2, 3, 4, 5]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("raised", [RuntimeError("mine"), KeyboardInterrupt("mine")])
@pytest.mark.parametrize("after", [0, 1, 9, COUNT - 1])
def test_what_it_raises_comes_through_and_leaves_no_file_and_no_thread(format, raised, after, tmp_path):
    def watch(done):
        if done > after:
            raise raised

    before = set(threading.enumerate())
    with pytest.raises(type(raised)) as error:
        encode(noise(), tmp_path / f"x.{format}", 8, format, quality=100, watch=watch)
    assert error.value is raised and list(tmp_path.iterdir()) == [] and set(threading.enumerate()) == before


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_is_the_same_with_and_without_it(format, tmp_path):
    for name in "ab":
        encode(noise(), tmp_path / f"{name}.{format}", 8, format, **({"watch": lambda done: None} if name == "a" else {}))
    sizes = {path.stat().st_size for path in tmp_path.iterdir()}
    assert len(sizes) == 1


def test_the_number_of_frames_is_known_before():
    for count in range(1, 6):
        for pingpong in (False, True):
            for copies in range(3):
                assert played(count, pingpong, copies) == len(list(play_order(range(count), pingpong, copies)))
