"""Many clients that wait, cancel and go away, workers and servers that are killed: every accepted job ends exactly once."""

from serve_crowd import small_storm


def inputs(dice, number):
    return {"prompt": dice.choice(("slow", "slow", "memory", "die" if dice.random() < 0.2 else "slow")), "seed": dice.randrange(100)}


def test_every_accepted_job_ends_exactly_once(start, tmp_path):
    assert small_storm(start, tmp_path, {"devices": ["a", "b"]}, inputs) == {200, 499, 500, 503}
