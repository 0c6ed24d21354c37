"""Broken and hostile files: each is a CheckpointError, runs nothing, and costs at most twice its size in memory."""

import collections
import json
import subprocess
import sys
from pathlib import Path

import hostile
import pytest

from animatediff_turbo.motion_modules import checkpoint

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc"),
    pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning"),
]

# What an interpreter, a parser and their error messages may need beside the file.
CONSTANT = 64 * 2**20
# VmHWM, not ru_maxrss: that one starts at the parent's size, which hides what is smaller.
READER = """
import json, sys
import torch
from animatediff_turbo.motion_modules import checkpoint

def resident(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))

torch.set_num_threads(1)
checkpoint.load(sys.argv[1])
for line in sys.stdin:
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = resident("VmRSS")
    try:
        outcome = f"loaded {checkpoint.load(line.rstrip())}"[:80]
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    print(json.dumps([outcome, resident("VmHWM") - before]), flush=True)
"""
Case = collections.namedtuple("Case", "name size outcome growth")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What one process says to all files, one after another, by their class."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "animatediff_turbo").symlink_to(Path(checkpoint.__file__).parents[1])
    legal, path, marker = folder / "legal.ckpt", folder / "hostile.ckpt", folder / "marker"
    legal.write_bytes(hostile.zipped(hostile.ORIGINAL))
    found = collections.defaultdict(list)
    command = [sys.executable, "-c", READER, str(legal)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder) as reader:
        for kind, name, content in hostile.cases(marker):
            path.write_bytes(content)
            print(path, file=reader.stdin, flush=True)
            outcome, growth = json.loads(reader.stdout.readline())
            found[kind].append(Case(name, len(content), outcome + " and made a marker" * marker.exists(), growth))
        reader.stdin.close()
    return found


@pytest.mark.parametrize("kind", [*(make.__name__ for make in hostile.CLASSES), "code"])
def test_every_file_is_refused_with_one_sentence(outcomes, kind):
    assert len(outcomes[kind]) >= 20
    wrong = [case for case in outcomes[kind] if not (case.outcome.startswith("CheckpointError: hostile.ckpt ") and case.outcome.endswith("."))]
    assert not wrong


def test_there_are_200_and_no_two_have_one_name(outcomes):
    names = [(kind, case.name) for kind, cases in outcomes.items() for case in cases]
    assert len(names) == len(set(names)) >= 200


def test_peak_memory_is_at_most_twice_the_file(outcomes):
    assert not [case for cases in outcomes.values() for case in cases if case.growth > 2 * case.size + CONSTANT]


@pytest.mark.parametrize("content", hostile.both(hostile.ORIGINAL), ids=["safetensors", "zip"])
def test_the_unmutated_files_load(tmp_path, content):
    path = tmp_path / "legal.bin"
    path.write_bytes(content)
    assert checkpoint.load(path).positions == 32


def test_an_untouched_copy_of_the_zip_loads(tmp_path):
    path = tmp_path / "legal.bin"
    path.write_bytes(hostile.rezipped(lambda name, content: content))
    assert checkpoint.load(path).positions == 32
