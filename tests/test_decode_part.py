"""A part of a file costs that part: it is read from its key frame on where that is safe, with the frames that the whole file has there."""

import itertools
from fractions import Fraction

import av
import pytest
import torch
from made_videos import moving, numbers, pictures, sound, true_times, write

from animatediff_turbo.video.decode import decode
from animatediff_turbo.video.part import asked, taken
from animatediff_turbo.video.reading import MistimedError
from animatediff_turbo.video.times import Clock, Shown, shown_frames

COUNT, GROUP = 100, 12
FINE = Fraction(1, 90_000)
VP9 = {"crf": "20", "g": "12", "deadline": "realtime", "cpu-used": "8"}
X264 = {"crf": "18", "g": "12", "sc_threshold": "0"}
UNEVEN = [round(number * 3600 + number % 5 * 200) for number in range(COUNT)]
INDEXED = {
    "plain.mp4": pictures(range(COUNT), options=X264, make=moving, between=3),
    "late.mp4": pictures(range(50, 50 + COUNT), options=X264, make=moving, between=3),
    "open.mp4": pictures(range(COUNT), options=X264 | {"x264-params": "open-gop=1:b-pyramid=normal"}, make=moving, between=3),
    "uneven.mp4": pictures(UNEVEN, base=FINE, options=X264, make=moving, between=2),
    "plain.mkv": pictures(range(COUNT), options=X264, make=moving, between=3),
    "open.mkv": pictures(range(COUNT), options=X264 | {"x264-params": "open-gop=1"}, make=moving, between=3),
    "broadcast.mkv": pictures(range(COUNT), options=X264, base=Fraction(1001, 30_000), rate=Fraction(30_000, 1001), make=moving, between=3),
    "plain.webm": pictures(range(COUNT), "libvpx-vp9", options=VP9, make=moving),
    "broadcast.webm": pictures(range(COUNT), "libvpx-vp9", options=VP9, base=Fraction(1001, 30_000), rate=Fraction(30_000, 1001), make=moving),
}
OTHERS = {
    "plain.ts": pictures(range(COUNT), options=X264, make=moving, between=3),
    "back.avi": pictures(range(COUNT), options=X264, make=moving, between=3),
    "refreshed.mp4": pictures(range(COUNT), options=X264 | {"intra-refresh": "1"}, make=moving),
    "raw.h264": pictures(range(COUNT), options=X264, make=moving, between=3),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("parts"), {}

    def make(name):
        if name not in made:
            path = write(folder / name, (INDEXED | OTHERS)[name])
            made[name] = path, decode(path)
        return made[name]

    return make


@pytest.mark.parametrize("name", [*INDEXED, *OTHERS])
def test_a_part_has_the_frames_of_the_whole(file, name):
    path, whole = file(name)
    assert len(whole.frames) == COUNT
    starts = [Fraction(number) / whole.fps for number in range(COUNT)] if "uneven" not in name else [time - true_times(path)[0] for time in true_times(path)]
    for skip in (0.1, 0.4, 0.96, 1.0, 1.9, 2.5, 3.1):
        first = max(number for number, start in enumerate(starts) if start <= Fraction(str(skip)))
        part = decode(path, 0.0, skip, 0.3)
        assert 7 <= len(part.frames) <= 10 and torch.equal(part.frames, whole.frames[first : first + len(part.frames)]), skip
        moments = [Fraction(str(skip)) + Fraction(number, 10) for number in range(3)]
        shown = [max(number for number, start in enumerate(starts) if start <= moment) for moment in moments]
        assert torch.equal(decode(path, 10, skip, 0.3).frames, whole.frames[shown]), skip


def landing(path, skip):
    """The second from which a part is decoded."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return next(shown_frames(container, stream, Clock(stream), Fraction(str(skip)))).start


@pytest.mark.parametrize("name", INDEXED)
def test_a_part_is_decoded_from_its_key_frame_on(file, name):
    path, whole = file(name)
    for skip in (1.0, 2.5, 3.1):
        assert skip - GROUP / float(whole.fps) - 0.1 <= landing(path, skip) <= skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_can_not_be_trusted_to_lead_there_is_decoded_from_the_start(file, name):
    with pytest.raises(MistimedError):
        landing(file(name)[0], 2.5)


def shown(count, ended):
    for number in range(count):
        yield Shown(number, Fraction(number, 25), Fraction(number + 1, 25), Fraction(0))
    ended.append(True)


@pytest.mark.parametrize("options", [(25, 0.0, 1.0, 0), (0, 0.0, 1.0, 0), (0, 0.0, 0.0, 25), (8, 0.5, 0.0, 4), (8, 0.0, 1.0, 0)], ids=str)
def test_no_more_frames_are_decoded_than_the_part_needs(options):
    frames, ended = shown(100, []), []
    list(taken(frames, asked(*options)))
    assert next(frames).frame <= 27 and not ended


def test_a_frame_that_is_shown_again_is_held_once(file):
    path, _ = file("plain.mp4")
    frames = decode(path, 50, 1.0, 0.2).frames
    assert numbers(frames) == [number % 25 for number in range(25, 30) for _ in range(2)]


def test_watch_hears_how_far_it_is_and_can_end_it(tmp_path):
    path = write(tmp_path / "x.mp4", pictures(range(100)), sound([(0, torch.zeros(1, 4 * 48_000).numpy())]))
    for options in ({}, {"skip_seconds": 1.0}, {"first_n_seconds": 2.0}, {"fps": 8.0, "max_frames": 4}):
        heard = []
        decode(path, **options, watch=heard.append)
        pieces = heard.index(1.0) if 1.0 in heard else len(heard)
        assert heard == sorted(heard) and heard[0] == 0 and 0.8 < heard[-1] <= 1 and len(set(heard)) > 10 and pieces > 10
    for end in (0, 30, 110):
        left = itertools.count(1)

        def count(share, left=left, end=end):
            if next(left) > end:
                raise KeyboardInterrupt("mine")

        with pytest.raises(KeyboardInterrupt, match="mine"):
            decode(path, watch=count)
