"""Videos at other addresses: what is fetched, and what is not."""

import http.server
import threading

import pytest
from yarl import URL

from animatediff_turbo.serve.fetch import FetchError, fetch


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/to"):
            self.send_response(302)
            self.send_header("Location", {"/to-video": "/video", "/to-inside": "http://127.0.0.1:1/secret"}.get(self.path, self.path))
            self.end_headers()
            return
        self.send_response(200 if self.path == "/video" else 404)
        self.end_headers()
        self.wfile.write(b"a video")

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def elsewhere():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def get(elsewhere, tmp_path):
    def allow(address):
        if not address.startswith(elsewhere):
            raise ValueError(address)
        return URL(address), False

    def run(path, most=100, check=lambda: None):
        fetch(elsewhere + path, tmp_path / "video", most, check, allow)
        return (tmp_path / "video").read_bytes()

    return run


def test_a_video_is_fetched_and_redirects_are_followed(get):
    assert get("/video") == get("/to-video") == b"a video"


@pytest.mark.parametrize(
    ("path", "most", "sentence"),
    [("/none", 100, "HTTP 404"), ("/to-itself", 100, "more than 3 times"), ("/to-inside", 100, "public addresses only"), ("/video", 3, "more than 0 MB")],
)
def test_what_is_not_there_or_not_allowed_is_a_sentence(get, path, most, sentence):
    with pytest.raises(FetchError, match=sentence):
        get(path, most)


def test_it_ends_when_the_job_is_cancelled(get):
    def stop():
        raise KeyError("cancelled")

    with pytest.raises(KeyError):
        get("/video", check=stop)


@pytest.mark.parametrize(
    "address",
    ["http://example.com/x.mp4", "https://127.0.0.1/x.mp4", "https://localhost/x.mp4", "https://10.0.0.1/x", "https://169.254.169.254/latest", "https://[::1]/x", "https://2130706433/x",
     "https://user:word@example.com/x", "https://example.com:8443/x", "file:///etc/passwd", "https://", "", "https://[", "data:video/mp4;base64,AAAA"],
)  # fmt: skip
def test_nothing_of_this_machine_or_its_network_is_fetched(address, tmp_path):
    with pytest.raises(FetchError):
        fetch(address, tmp_path / "video", 100, lambda: None)
    assert not (tmp_path / "video").exists()
