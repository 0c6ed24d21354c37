"""A worker without a model, for tests of the queue around it: does what the prompt says. Nothing is imported that takes time."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

STOPPED = set()


def say(**report):
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def read(orders):
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "stop":
            STOPPED.add(order["id"])
        else:
            orders.append(order)
    os._exit(0)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            os._exit(3)
        time.sleep(0.005)


def render(order, notes):
    """hold: until it is stopped or the file "release" is there; stubborn: until the file is there, whatever is said; slow: a moment, if it is not stopped; die, leave: as they say."""
    inputs, prompt, id = order["inputs"], order["inputs"]["prompt"], order["id"]
    if "leave" in prompt and not (notes / "left").exists():
        (notes / "left").touch()
        os._exit(1)
    say(say="begun", id=id)
    with (notes / "begun").open("a") as file:
        file.write(f"{id} {inputs['seed']}\n")
    say(say="step", id=id, step=1, steps=2)
    if "noise" in prompt:
        sys.stdout.write("this is no report\n")
        sys.stdout.flush()
    if "die" in prompt:
        os.kill(os.getpid(), signal.SIGKILL)
    if "memory" in prompt:
        return {"say": "failed", "status": 500, "detail": "The device is out of memory; use a smaller size or fewer frames.", "type": "runner_server_error"}
    if "silence" in prompt:
        threading.Event().wait()
    if "slow" in prompt:
        until = time.monotonic() + 0.03
        wait_for(lambda: id in STOPPED or time.monotonic() > until)
        if id in STOPPED:
            return {"say": "stopped"}
    if "hold" in prompt:
        wait_for(lambda: id in STOPPED or (notes / "release").exists())
    if "stubborn" in prompt:
        wait_for((notes / "release").exists)
    if "hold" in prompt and id in STOPPED:
        return {"say": "stopped"}
    say(say="step", id=id, step=2, steps=2)
    path = Path(order["path"])
    path.write_bytes(f"video {inputs['seed']}".encode())
    return {"say": "done", "bytes": path.stat().st_size}


def main():
    setting = json.loads(sys.stdin.readline())
    notes = Path(setting["models"]["notes"])
    with (notes / "workers").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if "unfit" in setting["models"]:
        say(say="unfit", reason=setting["models"]["unfit"])
        return
    orders = []
    threading.Thread(target=read, args=(orders,), daemon=True).start()
    say(say="ready", adapter="none", side=64, steps=2, guidance=1.0)
    while True:
        wait_for_order(orders)
        order = orders.pop(0)
        say(**render(order, notes), id=order["id"])


def wait_for_order(orders):
    while not orders:
        time.sleep(0.002)


if __name__ == "__main__":
    main()
