"""What a server may give in place of a video: one sentence each, bounded memory, nothing half-written."""

import asyncio
import gzip
import tracemalloc
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from fal_helpers import asked, run, state_of
from fal_server import KEY
from yarl import URL

from animatediff_turbo.fal import config, download, errors, guard, journal
from animatediff_turbo.video import decode
from animatediff_turbo.video.encode import encode


def refused(settings, **runner):
    with pytest.raises(errors.MediaError) as caught:
        run(settings, **runner)
    sentence = str(caught.value)
    assert sentence.startswith(errors.PREFIX) and "\n" not in sentence and "[request request-" in sentence and KEY not in sentence
    left = [path.name for path in (settings.folder / "fal" / asked().key(settings)).iterdir()]
    assert left == ["state.json"] and state_of(settings).state == journal.COMPLETED
    return caught.value


@pytest.mark.parametrize("plan", [[(404, "not yet")], [(503, "x")] * 3, [(429, "x")], ["drop"], ["truncated"], ["cut"]], ids=str)
def test_a_video_that_is_not_there_yet_is_fetched_again(server, settings, plan, video):
    server.reset(media=list(plan))
    assert run(settings).path.read_bytes() == video and server.posts == 1


HOSTILE = {
    "always 404": ([(404, "x")] * 99, "D1", "could not be downloaded (HTTP 404)"),
    "403": ([(403, "x")] * 2, "D1", "could not be downloaded (HTTP 403)"),
    "truncated": (["truncated"] * 99, "D2", "The download broke off"),
    "cut where no length was given": (["cut"] * 99, "D2", "The download broke off"),
    "endless": (["endless"], "D3", "larger than 64 MB"),
    "html": (["html"] * 2, "D5", "is not a readable video"),
    "html as a video": ([(200, "<html></html>")] * 2, "D5", "is not a readable video"),
}


@pytest.mark.parametrize(("plan", "code", "text"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_video_is_one_sentence_and_the_next_run_costs_nothing(server, settings, plan, code, text):
    server.reset(media=plan)
    tracemalloc.start()
    error = refused(settings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.code == code and text in str(error) and peak < 20e6, peak
    server.does.media.clear()
    assert run(settings).seed == 5 and server.posts == 1


def test_an_mp4_is_cut_off_wherever_no_box_ends(tmp_path):
    path = tmp_path / "a.mp4"
    boxes = b"".join((8 + len(body)).to_bytes(4, "big") + name + body for name, body in ((b"ftyp", bytes(16)), (b"free", b""), (b"mdat", bytes(100))))
    content = boxes + b"\0\0\0\1free" + (16 + 5).to_bytes(8, "big") + bytes(5)
    whole = []
    for end in range(8, len(content) + 1):
        path.write_bytes(content[:end])
        whole += [] if download._is_cut_off(path) else [end]
    assert whole == [24, 32, 140, 161]
    for other in (boxes + b"\0\0\0\0mdat" + bytes(5), b"\x1aE\xdf\xa3 no mp4", b""):  # the first ends with its file
        path.write_bytes(other)
        assert not download._is_cut_off(path)


def test_a_disk_that_is_full_is_named_and_the_video_stays_at_fal(server, settings):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(progress):
        if progress.text.startswith("Running"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))

    try:
        with pytest.raises(errors.NotSentError, match=r"Cannot write .* \(File too large\); the video is kept at fal\.ai, run again to fetch it"):
            run(settings, report=full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert server.count("GET", "/files") == 1 and state_of(settings).state == journal.COMPLETED
    assert run(settings).seed == 5 and server.posts == 1


def test_nothing_of_a_broken_try_is_left_when_the_next_one_brings_nothing(server, settings, tmp_path):
    encode(torch.rand(60, 64, 64, 3), tmp_path / "a.webm", 8, "webm")
    server.reset(media=["truncated", "nothing", "nothing"], video=(tmp_path / "a.webm").read_bytes())
    assert refused(settings).code == "D5"


def many_frames(path, count, side=16):
    encode(torch.zeros(1, side, side, 3).expand(count, -1, -1, -1), path, 240, "mp4", 0)
    return path.read_bytes()


def test_ten_thousand_frames_are_refused_before_they_are_in_memory(server, settings, tmp_path):
    server.reset(video=many_frames(tmp_path / "long.mp4", 10_000))
    error = refused(settings)
    assert error.code == "D3" and "larger than this endpoint's are (16x16 pixels, 257 frames or more)" in str(error)


def test_a_picture_of_64k_pixels_is_refused_before_it_is_decoded(server, settings, tmp_path):
    with av.open(str(tmp_path / "wide.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=8, width=65_520, height=16, pix_fmt="gray")
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 65_520), np.uint8), "gray")))
        container.mux(stream.encode(None))
    server.reset(video=(tmp_path / "wide.mkv").read_bytes())
    assert "larger than this endpoint's are (65520x16 pixels)" in str(refused(settings))


def test_a_file_wider_than_the_limit_is_not_decoded(tmp_path):
    path = tmp_path / "wide.webm"
    encode(torch.zeros(1, 64, 4112, 3), path, 8, "webm")
    found = decode.measure(path, download.LIMITS)
    assert (found.width, found.frames) == (4112, 0)
    with pytest.raises(errors.MediaError, match="4112x64 pixels"):
        download.check(path, "u", "request-1")


REFUSED_ADDRESSES = [
    "http://v3.fal.media/files/a.mp4", "https://127.0.0.1/a.mp4", "https://10.0.0.1/a.mp4", "https://169.254.169.254/latest", "https://[::1]/a.mp4",
    "https://[fe80::1]/a.mp4", "https://v3.fal.media:8443/a.mp4", "https://user:pw@v3.fal.media/a.mp4", "file:///etc/passwd", "data:video/mp4;base64,AAAA",
    "https://", "https://[", "ftp://v3.fal.media/a.mp4", "https://2130706433/a.mp4", "https://100.64.0.1/a",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_an_address_that_is_not_public_https_is_refused_without_a_request(server, settings, address):
    server.reset(url=address)
    assert refused(settings).code == "D4" and not server.count("GET", "/files")


def test_a_redirect_to_a_private_address_is_refused(server, settings):
    server.reset(media=[(302, "x", {"Location": "https://169.254.169.254/latest/meta-data"})])
    assert refused(settings).code == "D4"
    server.does.media = [(302, "x", {"Location": "/files/another.mp4"})] * 2
    assert run(settings).seed == 5
    server.reset(media=[(302, "x", {"Location": "/files/again.mp4"})] * 9)
    with pytest.raises(errors.MediaError, match="leads on more than 3 times"):
        run(settings, asked(seed=6))
    for number, location in enumerate(("https://[", "http://127.0.0.1:99999/")):
        server.reset(media=[(302, "x", {"Location": location})])
        with pytest.raises(errors.MediaError, match="leads on to none|not allowed"):
            run(settings, asked(seed=10 + number))


def test_a_body_that_grows_when_it_is_unpacked_is_not_unpacked(server, settings, video):
    server.reset(video=gzip.compress(bytes(80 * 10**6)))
    server.does.headers = {"Content-Encoding": "gzip"}
    assert refused(settings).code == "D5"


def test_frames_of_different_sizes_are_refused(server, settings, tmp_path):
    """A small last frame would hide how large the others are."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=8, width=64, height=64, pix_fmt="yuvj420p")
        for side in (64, 32):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width = encoder.height = side
            encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 8)
            for packet in encoder.encode(av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8)).reformat(format="yuvj420p")):
                packet.stream, packet.pts, packet.dts = stream, 64 - side, 64 - side
                container.mux(packet)
    server.reset(video=(tmp_path / "a.mkv").read_bytes())
    assert "frames of different sizes" in str(refused(settings))


def test_a_name_of_a_private_address_is_not_connected_to():
    resolver = guard.PublicResolver

    async def resolve():
        found = resolver()
        try:
            return await found.resolve("localhost", 443)
        finally:
            await found.close()

    with pytest.raises(OSError, match="localhost has no public address"):
        asyncio.run(resolve())


@pytest.mark.parametrize(
    ("address", "public"),
    [("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("192.168.1.1", False), ("::1", False), ("::ffff:10.0.0.1", False), ("fe80::1%eth0", False), ("x", False)],
)
def test_public_addresses(address, public):
    assert guard.is_public(address) == public


def test_a_list_of_hosts_allows_no_other(tmp_path):
    settings = config.Config(tmp_path, media_hosts=frozenset({"v3.fal.media"}))
    assert guard.allowed("https://V3.fal.media/files/a.mp4", settings) == (URL("https://v3.fal.media/files/a.mp4"), True)
    with pytest.raises(ValueError, match="https://v3b.fal.media"):
        guard.allowed("https://v3b.fal.media/files/a.mp4", settings)


def test_the_origin_of_a_server_of_ones_own_is_allowed_for_it_alone(server, settings):
    with pytest.raises(ValueError, match="http://127.0.0.1"):
        guard.allowed(f"{server.address}/files/a.mp4", replace(settings, queue=URL("https://example.com")))
    assert guard.allowed(f"{server.address}/files/a.mp4", settings)[1] is False


def test_the_interrupt_ends_a_download_and_the_next_run_goes_on_without_a_job(server, settings, video):
    server.reset(media=["endless"])
    stop = []
    with pytest.raises(errors.Interrupted):
        run(settings, interrupted=lambda: bool(stop), report=lambda progress: stop.append(1) if progress.text.startswith("Downloading") else None)
    assert state_of(settings).state == journal.COMPLETED and server.count("PUT") == 0
    assert run(settings).path.read_bytes() == video and server.posts == 1
