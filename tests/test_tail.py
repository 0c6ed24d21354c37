"""video.overlap and the encoder in its thread: both sides end together, whatever goes wrong, and no more waits than should."""
import dataclasses
import threading
import weakref

import av
import pytest
import torch

from animatediff_turbo.headless import render
from animatediff_turbo.headless.pipeline import Request
from animatediff_turbo.video import hardware
from animatediff_turbo.video.encode import encode
from animatediff_turbo.video.errors import VideoError
from animatediff_turbo.video.formats import FORMATS
from animatediff_turbo.video.overlap import AHEAD, overlapped


def threads():
    """Those that run now; tqdm keeps one of its own for progress bars."""
    return {thread for thread in threading.enumerate() if type(thread).__name__ != "TMonitor"}


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threads()
    yield
    assert threads() == before


class Count:
    """The numbers 1, 2 ... and how many of them were made."""

    def __init__(self, most):
        self.most, self.made = most, 0

    def __iter__(self):
        while self.made < self.most:
            self.made += 1
            yield self.made


def test_items_come_in_order_and_the_result_comes_back():
    assert overlapped(list, range(1000)) == list(range(1000))
    assert overlapped(list, ()) == []


def test_items_are_made_here_and_used_elsewhere():
    places = {}

    def use(items):
        for _ in items:
            places["used"] = threading.current_thread()

    def items():
        places["made"] = threading.current_thread()
        yield 1

    overlapped(use, items())
    assert places["made"] is threading.current_thread() is not places["used"]


def test_no_more_items_wait_than_agreed():
    count = Count(2000)
    assert max(overlapped(lambda numbers: [count.made - number for number in numbers], count)) <= AHEAD + 2  # one in hand on either side


def test_the_maker_of_items_may_be_slower_or_faster_than_their_user():
    """Both turns are forced by events: the user sees an item before the next is made, and all are made before the user goes on."""
    seen, rest = threading.Event(), threading.Event()

    def items():
        yield 0
        assert seen.wait(60)
        yield from range(1, AHEAD)
        rest.set()

    def use(numbers):
        found = [next(numbers)]
        seen.set()
        assert rest.wait(60)
        return found + list(numbers)

    assert overlapped(use, items()) == list(range(AHEAD))


@pytest.mark.parametrize("when", [0, 1, 5])
def test_what_the_user_raises_ends_the_making(when):
    count, failure = Count(10_000), OSError("my own")

    def use(numbers):
        for _ in range(when):
            next(numbers)
        raise failure

    with pytest.raises(OSError) as error:
        overlapped(use, count)
    assert error.value is failure and count.made <= when + AHEAD + 2


@pytest.mark.parametrize("failure", [RuntimeError("my own"), KeyboardInterrupt("my own"), SystemExit("my own")])
def test_what_the_maker_raises_ends_the_use_as_an_error_does(failure):
    ended = []

    def items():
        yield 1
        raise failure

    def use(numbers):
        try:
            list(numbers)
            ended.append("as if complete")
        finally:
            ended.append("ended")

    with pytest.raises(type(failure)) as error:
        overlapped(use, items())
    assert error.value is failure and ended == ["ended"]


def test_a_user_that_has_enough_ends_the_making():
    count = Count(10_000)
    assert overlapped(next, count) == 1 and count.made <= 1 + AHEAD + 2


class Frames:
    """Makes frames and counts those of them that somebody still holds."""

    def __init__(self, count, make):
        self.count, self.make, self.alive, self.most, self.made = count, make, weakref.WeakSet(), 0, 0

    def __iter__(self):
        for index in range(self.count):
            frame = self.make(index)
            self.alive.add(frame)
            self.made, self.most = index + 1, max(self.most, len(self.alive))
            yield frame
            del frame


BYTES = torch.Generator().manual_seed(0)


def noise(index):
    return torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=BYTES)


@pytest.mark.parametrize("format", ["mp4", "webm"])
@pytest.mark.parametrize("make, bound", [(lambda index: torch.full((64, 64, 3), index % 5 / 5), 2), (noise, AHEAD + 4)])
def test_frames_are_let_go_whatever_the_length(format, make, bound, tmp_path):
    for count in (16, 160):
        frames = Frames(count, make)
        assert encode(frames, tmp_path / f"clip.{format}", 24, format).frame_count == count
        assert frames.most <= bound


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("raised", [RuntimeError("my own"), KeyboardInterrupt("my own")])
def test_an_interrupt_in_the_middle_leaves_no_file(format, raised, tmp_path):
    def frames():
        yield from (torch.zeros(32, 32, 3) for _ in range(40))
        raise raised

    with pytest.raises(type(raised)) as error:
        encode(frames(), tmp_path / f"clip.{format}", 8, format)
    assert error.value is raised and list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk():
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format", ["mp4", "webm"])
def test_a_full_disk_ends_the_making_of_frames(format, tmp_path, small_disk):
    frames = Frames(1000, noise)
    with pytest.raises(VideoError, match="free some disk space"):
        encode(frames, tmp_path / f"clip.{format}", 8, format, quality=100)
    assert 0 < frames.made < 500 and list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_found_before_a_frame_is_made(tmp_path):
    frames = Frames(10, noise)
    with pytest.raises(VideoError, match="create the folder first"):
        encode(frames, tmp_path / "missing" / "clip.mp4", 8, "mp4")
    assert frames.made == 0


def test_a_codec_that_refuses_the_first_frame_hands_over(tmp_path, caplog):
    """As a graphics card's does that has too many clips at once: here libx264 with a preset that there is not."""
    plain = FORMATS["mp4"]
    refusing = dataclasses.replace(plain, options={"preset": "no such preset"}, fallback=plain)
    frames = [noise(index) for index in range(12)]
    encode(frames, tmp_path / "card.mp4", 8, refusing)
    encode(frames, tmp_path / "plain.mp4", 8, plain)
    assert (tmp_path / "card.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()
    assert "libx264 refuses frames of 64x64" in caplog.text


def test_a_codec_answers_when_it_encodes():
    assert hardware.answers("libx264") and not hardware.answers("no such codec")


def test_hardware_is_the_card_or_software_with_a_line_in_the_log(caplog, tmp_path):
    row = hardware.hardware(FORMATS["mp4"])
    if hardware.answers("h264_nvenc"):
        assert row.codec == "h264_nvenc" and row.fallback is FORMATS["mp4"]
    else:
        assert row is FORMATS["mp4"] and "no graphics card with an H.264 encoder answers" in caplog.text
    encode([noise(index) for index in range(12)], tmp_path / "clip.mp4", 8, row)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264" and len(list(container.decode(video=0))) == 12


@pytest.mark.parametrize("format", ["webm", "webp"])
def test_hardware_is_for_mp4(format, caplog):
    assert hardware.hardware(FORMATS[format]) is FORMATS[format]
    assert f"graphics cards do not write {format}" in caplog.text


def test_the_command_line_writes_while_it_decodes_the_file_of_all_frames(tmp_path):
    stack = render.load(render.Models(device="cpu"))
    request = Request("a red circle moving right on a black background", "", 64, 64, 6, 1, 1.0, 3)
    encode(stack(request), tmp_path / "all.mp4", 8, "mp4", metadata={"animatediff_turbo": dataclasses.asdict(request) | {"adapter": stack.adapter.name}})
    render.render(stack, render.Job(request, tmp_path / "parts.mp4"), quiet=True)
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "all.mp4").read_bytes()
    assert [len(part) for part in stack.parts(request)] == [4, 2]
