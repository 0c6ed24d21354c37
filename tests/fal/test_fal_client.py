"""The paid request: sent exactly once, whatever the answer is."""

import pytest
from fal_helpers import Quick, asked, run, state_of
from yarl import URL

from animatediff_turbo.fal import config, errors, job, journal

AMBIGUOUS = {
    "dropped after the job was accepted": "drop",
    "an answer slower than the limit": "slow",
    "html after the job was accepted": "html after",
    "an answer without an id": "no id",
    "an empty answer": "empty",
    "a redirect": "redirect after",
    "a 502 of a proxy": (502, "<html>nginx</html>"),
    "a 503 of a proxy": (503, "<html>nginx</html>"),
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


def test_an_odd_422_is_one_sentence(server, settings):
    server.reset(submit=[(422, {"detail": [{"loc": None, "msg": "odd"}, "text", {"msg": None}]})])
    with pytest.raises(errors.NotSentError, match="rejected the inputs: request: odd"):
        run(settings)
