"""The server under load, on this machine with the tiny model at 1 step: python benchmarks/serve.py

First its jobs per minute beside a plain loop over the same jobs, in turns. Then a storm: 200 clients send 1,000 jobs, cancel some and go away from
others, while workers and the server itself are killed; every accepted job must have ended exactly once. Writes benchmarks/SERVE.md. Linux.
"""

import argparse
import collections
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import facts
import numpy as np
import pack
from stats import ratio, spread

sys.path.insert(0, str(pack.ROOT / "tests" / "serve"))
PROMPT = "a red circle moving right on a black background"
WAITING = 20
"""Clients that have a job each while jobs per minute are counted."""
CLIENTS, JOBS, WORKERS_KILLED, SERVERS_KILLED = 200, 5, 5, 2
"""Of the storm; the jobs are each client's."""
SMALL = {"num_frames": 4, "video_size": {"width": 64, "height": 64}}
"""Its clips, so that a thousand are done in minutes."""


def main() -> None:
    """Measures, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of jobs per minute (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=20, help="of a round (default %(default)s)")
    parser.add_argument("--ray", metavar="HOST:PORT", help="head of a Ray cluster on this machine: one worker and two of it are measured too")
    parser.add_argument("--loop", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    pack.load()
    if options.loop:
        plain_loop(*options.loop)
        return
    head = f"# The server under load\n\n`python benchmarks/serve.py{' --ray HOST:PORT' if options.ray else ''}`: {facts.processor()}; {facts.versions()}. Tiny model, 128x128, 16 frames, 1 step, a thread on each core for torch; clients, server and worker share the machine.\n"
    (pack.ROOT / "benchmarks" / "SERVE.md").write_text("\n".join([head, throughput(options), storm(), *([cluster(options)] if options.ray else [])]), encoding="utf-8")


def inputs(seed: int, **more: object) -> dict[str, object]:
    """A job that no other is equal to."""
    return {"prompt": PROMPT, "num_inference_steps": 1, "seed": seed} | more


def plain_loop(start: int, jobs: int) -> None:
    """Renders jobs one after the other in this process, as a script would, and prints their seconds; the first is not counted."""
    from animatediff_turbo.headless.pipeline import Request
    from animatediff_turbo.headless.render import Models, load
    from animatediff_turbo.video.encode import encode

    stack = load(Models())
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(start, start + jobs + 1):
            clip = stack(Request(PROMPT, "", stack.adapter.side, stack.adapter.side, 16, 1, stack.adapter.guidance, seed))
            encode(clip, Path(folder) / f"{seed}.mp4", 8, "mp4")
            if seed == start:
                begun = time.perf_counter()
    print(time.perf_counter() - begun)


@contextlib.contextmanager
def serving(folder: Path, port: int = 0, more: tuple[str, ...] = (), workers: int = 1) -> Iterator[object]:
    """The command line's server with so many workers that are ready, stopped at the end. more: of its arguments."""
    from serve_server import Server

    command = [sys.executable, "-m", "animatediff_turbo", "serve", "--folder", str(folder / "server"), "--port", str(port), "--max-waiting", "2000", *more]
    running = Server(folder, command)
    try:
        running.until_logged("is ready", times=workers)
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def through_server(server: object, seeds: range) -> tuple[float, list[float]]:
    """Seconds for jobs of WAITING clients that ask for the status twice a second, as fal's do, and each one's seconds from sending to its id."""
    accepting = []

    def one(seed: int) -> None:
        begun = time.perf_counter()
        id = server.accepted(**inputs(seed))
        accepting.append(time.perf_counter() - begun)
        while server.status(id).json()["status"] != "COMPLETED":
            time.sleep(0.5)

    with ThreadPoolExecutor(WAITING) as pool:
        begun = time.perf_counter()
        list(pool.map(one, seeds))
        return time.perf_counter() - begun, accepting


def throughput(options: argparse.Namespace) -> str:
    """The table of jobs per minute."""
    plain, served, accepting = [], [], []
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        server.result(server.accepted(**inputs(0)))
        for number in range(options.rounds):
            first = 1000 * (number + 1)
            found = subprocess.run([sys.executable, __file__, "--loop", str(first), str(options.jobs)], capture_output=True, text=True, check=True, timeout=600)
            plain.append(float(found.stdout.splitlines()[-1]))
            seconds, accepted = through_server(server, range(first, first + options.jobs))
            served.append(seconds)
            accepting += accepted
        memory = peaks(server.process.pid)
    share, low, high = ratio(plain, served)
    per_minute = [[60 * options.jobs / seconds for seconds in each] for each in (plain, served)]
    rows = [f"| {name} | {spread(each).median:.1f} ({spread(each).p10:.1f}-{spread(each).p90:.1f}) |" for name, each in zip(("plain loop, one process", f"server, {WAITING} clients waiting"), per_minute, strict=True)]
    return "\n".join(
        [
            "## Jobs per minute\n",
            f"{options.rounds} rounds of {options.jobs} jobs, loop and server in turns; median (p10-p90). The loop's process has loaded its models and rendered once before it is timed; it writes a clip after decoding it, the worker meanwhile.\n",
            "| | jobs per minute |", "|---|---|", *rows, "",
            f"The server does **{share:.3f}** (95 %: {low:.3f}-{high:.3f}) of the loop's work. From sending a job to its id, on disk: {percentiles(accepting)}. {memory}\n",
        ]
    )  # fmt: skip


def clustered(options: argparse.Namespace, workers: int, first: int) -> float:
    """Seconds for the jobs of a round, with so many workers."""
    more = ("--ray", options.ray, "--workers", str(workers))
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), more=more, workers=workers) as server:
        for seed in range(2 * workers):
            server.result(server.accepted(**inputs(seed)))
        return through_server(server, range(first, first + options.jobs))[0]


def cluster(options: argparse.Namespace) -> str:
    """One worker of a Ray cluster and two, in turns."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for number in range(options.rounds):
        for workers, seconds in found.items():
            seconds.append(clustered(options, workers, 1000 * (number + 1)))
    times, low, high = ratio(found[1], found[2])
    one, two = (spread([60 * options.jobs / each for each in seconds]).median for seconds in found.values())
    return (
        f"## Workers of a Ray cluster\n\nA cluster of this machine alone, which gives each worker one thread; {options.rounds} rounds of {options.jobs} jobs: one worker"
        f" {one:.1f} jobs per minute, two {two:.1f}, **{times:.2f}** times as many (95 %: {low:.2f}-{high:.2f}).\n"
    )


def percentiles(seconds: list[float]) -> str:
    """In milliseconds."""
    p50, p99 = np.percentile(np.asarray(seconds) * 1000, (50, 99))
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms ({len(seconds)} jobs)"


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def peaks(pid: int) -> str:
    """The most memory that a server and its worker have had."""

    def peak(process: int) -> int:
        return next(int(line.split()[1]) // 1024 for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM"))

    return f"Peak memory: server {peak(pid)} MiB, worker {', '.join(str(peak(child)) for child in children(pid))} MiB."


def storm() -> str:
    """What came of it. Raises AssertionError where a job was lost, ended twice, or ran after its cancel was confirmed."""
    import serve_crowd

    killed = []
    dice = random.Random(0)
    with tempfile.TemporaryDirectory() as text, contextlib.ExitStack() as stack:
        folder = Path(text)
        running = [stack.enter_context(serving(folder))]
        crowd = serve_crowd.Crowd(running[0].address, JOBS, lambda dice, number: inputs(10**6 + number, **SMALL), patience=1200.0)

        def restart() -> object:
            port = int(crowd.address.rpartition(":")[2])
            running.append(stack.enter_context(serving(folder, port)))
            return running[-1]

        def kill_worker() -> bool:
            time.sleep(dice.uniform(0, 6))
            with contextlib.suppress(OSError):
                killed.extend(child for child in children(running[-1].process.pid)[:1] if "is ready" in running[-1].text and serve_crowd.end_by_force(child))
            return len(set(killed)) < WORKERS_KILLED

        begun = time.perf_counter()
        serve_crowd.storm(crowd, CLIENTS, running[0], restart, SERVERS_KILLED, kill_worker)
        ends = crowd.ends()
        seconds, memory = time.perf_counter() - begun, peaks(running[-1].process.pid)
        assert all(ends[id] == status for id, status in crowd.results.items()) and all(ends[id] == 499 for id in crowd.cancelled)
        # those whose clients were gone run too; one of low priority is begun last
        last = running[-1].submit(**inputs(10**6 - 1), headers={"X-Fal-Queue-Priority": "low"}).json()["request_id"]
        crowd.end(running[-1].client, last)
        running[-1].stop()
        states = collections.Counter(serve_crowd.check_ledger(folder / "server", crowd))
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(collections.Counter(ends.values()).items()))
    return (
        f"## A storm\n\n{CLIENTS} clients with {JOBS} jobs each at once, a fifth of them on connections that may be closed before the answer, three tenths of the others cancelled; {len(set(killed))} workers and"
        f" {SERVERS_KILLED} servers ended by SIGKILL meanwhile. Clips of 4 frames of 64x64. {sum(states.values())} jobs were accepted: {counts}; none lost, none ended twice, none begun after its cancel was"
        f" confirmed ({len(crowd.cancelled)} were), no file without a job. The clients that kept their connections were told {statuses}. {seconds:.0f} s until the last had ended."
        f" From sending a job to its id: {percentiles(crowd.accepting)}. {memory}\n"
    )


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))  # torch's own choice, for the loop as for the worker
    os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")
    main()
