"""The paid request: sent exactly once, whatever the answer is."""

import socket
import threading
from dataclasses import replace

import pytest
from fal_helpers import Quick, asked, run, state_of
from yarl import URL

from animatediff_turbo.fal import config, errors, job, journal, request

AMBIGUOUS = {
    "dropped after the job was accepted": "drop",
    "an answer slower than the limit": "slow",
    "html after the job was accepted": "html after",
    "an answer without an id": "no id",
    "an empty answer": "empty",
    "a redirect": "redirect after",
    "a 502 of a proxy": (502, "<html>nginx</html>"),
    "a 503 of a proxy": (503, "<html>nginx</html>"),
    "a gateway that gave up with JSON": ("after", 504, {"detail": "Gateway Timeout"}),
    "a gateway without its server": ("after", 502, {"detail": "Bad Gateway"}),
    "a gateway that is overrun": ("after", 503, {"detail": "Service Unavailable"}),
    "a proxy's 408": ("after", 408, "<html>Request Time-out</html>"),
    "a gateway's 499": ("after", 499, {"detail": "client closed request"}),
    "an answer drop by drop": "drip",
}


@pytest.mark.parametrize("kind", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_answer_is_one_post_and_the_next_run_sends_none(server, settings, kind):
    server.reset(submit=[kind])
    with pytest.raises(errors.AmbiguousError, match="it is not sent again"):
        run(settings)
    assert server.posts == 1 and state_of(settings).state == journal.SUBMITTING
    with pytest.raises(errors.AmbiguousError, match="set if_lost to 'submit again'"):
        run(settings)
    assert server.posts == 1
    assert run(settings, options=job.Options(submit_again=True)).seed == 5 and server.posts == 2


REFUSED = {
    "401": ((401, {"detail": "No user found for Key ID and Secret"}), "K3", "does not know this key"),
    "403 locked": ((403, {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."}), "K4", "has locked this account"),
    "403": ((403, {"detail": "no access"}), "K5", "refused access to this model with this key (no access)"),
    "402": ((402, {"detail": "pay first"}), "K5", "asks for payment"),
    "404": ((404, {"detail": "Path not found"}), "E404", "no longer offers"),
    "422": (
        (422, {"detail": [{"loc": ["body", "num_frames"], "msg": "Input should be less than or equal to 32", "type": "less_than_equal", "input": "SECRETPROMPT"}]}),
        "V", "num_frames: Input should be less than or equal to 32",
    ),
    "content": ((422, {"detail": [{"loc": ["body", "prompt"], "msg": "x", "type": "content_policy_violation"}]}), "C", "content check refused this prompt"),
    "500": ((500, {"detail": "Internal Server Error"}), "S5", "fal does not charge for server errors"),
    "503": ((503, {"detail": "none", "error_type": "runner_scheduling_failure"}), "J1", "runner_scheduling_failure"),
    "504": ((504, {"detail": "none"}, {"X-Fal-Error-Type": "request_timeout"}), "W", "No fal.ai machine became free in time"),
    "a portal's 403": ((403, "<html>log in</html>"), "O3", "log-in page of the network?"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "code", "text"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_one_post_one_sentence_and_may_be_sent_again(server, settings, answer, code, text):
    server.reset(submit=[answer])
    with pytest.raises(errors.NotSentError) as caught:
        run(settings)
    sentence = str(caught.value)
    assert caught.value.code == code and text in sentence and "\n" not in sentence and "SECRETPROMPT" not in sentence and "{" not in sentence
    assert server.posts == 1 and not server.jobs and state_of(settings).state == journal.FAILED
    assert run(settings).seed == 5 and server.posts == 2


def test_too_many_requests_are_waited_for_and_no_job_exists_twice(server, settings):
    server.reset(submit=[(429, {"detail": "slow down"}, {"Retry-After": "7"}), (429, {"detail": "slow down"})])
    quick = Quick()
    run(settings, clock=quick.clock)
    assert server.posts == 3 and len(server.jobs) == 1 and quick.time >= 9
    server.reset(submit=[(429, {"detail": "slow down"})] * 9)
    with pytest.raises(errors.NotSentError, match="is limiting requests"):
        run(settings, asked(seed=6))
    assert server.posts == 3 and not server.jobs
    server.reset(submit=[(429, {"detail": "slow down"}, {"Retry-After": "3600"})])
    with pytest.raises(errors.NotSentError, match="is limiting requests"):
        run(settings, asked(seed=7))
    assert server.posts == 1


def test_no_connection_is_tried_thrice_and_nothing_is_sent(server, tmp_path):
    nowhere = config.Config(tmp_path, queue=URL("http://127.0.0.1:9"))
    quick = Quick()
    with pytest.raises(errors.NotSentError, match="Nothing was sent") as caught:
        run(nowhere, clock=quick.clock)
    assert caught.value.code == "O2" and 3 <= quick.time < 5 and state_of(nowhere).state == journal.FAILED


def test_a_name_that_nobody_knows_is_no_internet(tmp_path):
    nowhere = config.Config(tmp_path, queue=URL("https://queue.invalid"))
    with pytest.raises(errors.NotSentError, match="no internet connection or DNS"):
        run(nowhere)


@pytest.fixture
def closing_proxy():
    """Takes connections and closes them once it was asked something; gives its address and what was asked."""
    asked, listener = [], socket.create_server(("127.0.0.1", 0))

    def serve():
        for _ in range(9):
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(4096).partition(b"\r\n")[0])
                if asked[-1] == b"":
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    with socket.create_connection(listener.getsockname()):
        pass  # the last, with nothing to ask
    thread.join(20)
    listener.close()


def test_a_proxy_that_leads_nowhere_has_sent_nothing(closing_proxy, tmp_path):
    address, seen = closing_proxy
    behind = config.Config(tmp_path, proxies={"https": address})
    with pytest.raises(errors.NotSentError, match=r"connection to queue\.fal\.run \(ServerDisconnectedError\)\. A proxy, .* Nothing was sent") as caught:
        run(behind)
    assert caught.value.code == "O2" and seen == [b"CONNECT queue.fal.run:443 HTTP/1.1"] * 3 and state_of(behind).state == journal.FAILED


@pytest.mark.parametrize(
    ("proxy", "fault"),
    [("socks5h://me:secret-word@127.0.0.1:1080", "is a socks5h proxy"), ("socks4://127.0.0.1:1080", "is a socks4 proxy"), ("http://proxy:port", "is not an address")],
)
def test_a_proxy_that_cannot_be_used_is_named_before_anything_is_sent(tmp_path, proxy, fault):
    behind = config.Config(tmp_path, proxies={"https": proxy})
    with pytest.raises(errors.NotSentError, match=f"HTTPS_PROXY .* {fault}; only one such as http://host:8080") as caught:
        run(behind)
    assert "secret-word" not in str(caught.value) and state_of(behind).state == journal.NONE


def test_the_host_that_cannot_be_reached_is_named(server, settings):
    nowhere = replace(settings, storage=URL("http://127.0.0.2:9"))
    upload = request.Upload(b"video", "video/mp4", ".mp4")
    wanted = request.video_to_video("a boat", "", 12, 2.0, 5, 8, 3, 0.7, video=upload)
    with pytest.raises(errors.NotSentError, match=r"connection to 127\.0\.0\.2 "):
        run(nowhere, wanted)


def test_an_odd_422_is_one_sentence(server, settings):
    server.reset(submit=[(422, {"detail": [{"loc": None, "msg": "odd"}, "text", {"msg": None}]})])
    with pytest.raises(errors.NotSentError, match="rejected the inputs: request: odd"):
        run(settings)
