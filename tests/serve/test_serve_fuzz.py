"""schemathesis reads /openapi.json and sends what it allows, what it forbids, and one request after another: every answer is one that the document names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from animatediff_turbo.serve import access

CONFIG = Path(__file__).parent / "schemathesis.toml"
CASES = int(os.environ.get("ADT_FUZZ_CASES", "200"))
"""How many requests at least."""
PER_CASE = 14
"""Requests for each example that is asked for, roughly: of twelve operations, and of the ways from one to the other."""


@pytest.mark.parametrize("keys", [False, True], ids=["without keys", "with keys"])
def test_every_answer_is_documented(start, tmp_path, keys):
    settings = {"limits": {"work": 2**50, "waiting": 10**6, "per_key": 4}}
    headers = []
    if keys:
        headers = ["--header", f"Authorization: Key {access.new_key(tmp_path / 'keys', 'fuzzer')}"]
        settings["keys"] = str(tmp_path / "keys")
    server = start(**settings)
    phases = "examples,coverage,fuzzing,stateful" if CASES > 1000 else "examples,fuzzing,stateful"
    found = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{server.address}/openapi.json", "--checks", "all", "--phases", phases,
         "--max-examples", str(max(1, CASES // 2 // PER_CASE)), "--seed", "0", "--no-color", "--warnings", "off", *headers],
        check=False, capture_output=True, text=True, timeout=1200, cwd=tmp_path, env=os.environ | {"NO_PROXY": "127.0.0.1"},
    )  # fmt: skip
    print(found.stdout)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert int(re.search(r"(\d+) generated", found.stdout)[1]) >= CASES // 2
    assert "Traceback" not in server.text
