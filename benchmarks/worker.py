"""One contestant in a process of its own: commands and answers are JSON lines; see `fleet.Worker`. Not to be started by hand."""

import contextlib
import importlib
import json
import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import contestants
import facts
import pack
from scenarios import Scenario

ROW = "AnimateDiff-Lightning 8 step"
"""Whose schedule, trailing on linear betas, all contestants are given: diffusers has it too."""


@dataclass(frozen=True)
class Settings:
    """row: the contestant. weights, comfyui, ade, out: folders. size, dtype: of the weights. device: "cuda" or "cpu". began: time.time() of the start."""

    row: contestants.Contestant
    weights: str
    comfyui: str
    ade: str
    out: str
    size: str
    dtype: str
    device: str
    began: float


def _module(settings: Settings):
    """The host's module, with ComfyUI started before it."""
    row = settings.row
    if row.host == "comfy_host":
        import comfy_start

        packs = [Path(settings.ade)] if row.pack == "ade" else []
        packs += [pack.ROOT / "tests" / "comfyui" / "testing_pack"] if settings.size == "narrow" else []
        flags = [*row.flags, *(["--cpu"] if settings.device == "cpu" else [])]
        base = Path(settings.out) / "base"
        (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
        comfy_start.start(Path(settings.comfyui), base, flags, packs)
    return importlib.import_module(row.host)


class Session:
    """Answers commands."""

    def __init__(self, settings: Settings, host):
        self.settings, self.host = settings, host
        import torch
        from probe import synchronize

        pack.load()
        from animatediff_turbo.motion_modules import config, schedule

        self.torch, self.synchronize = torch, synchronize
        self.sigmas = lambda steps: schedule.sigmas(config.ADAPTERS[ROW], steps)

    def ready(self) -> dict:
        """What the process is."""
        return {"about": self.host.about() | {"torch": self.torch.__version__}, "open_s": time.time() - self.settings.began}

    def run(self, command: dict) -> dict:
        """One clip: milliseconds of its parts, UNet calls, peak memory. keep: a file for the latents."""
        scenario, host, torch = Scenario(**command["scenario"]), self.host, self.torch
        if host.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            facts.forget_peak()
        host.probe.clear()
        self.synchronize(host.cuda)
        started = time.perf_counter()
        latents = host.denoise(scenario, self.sigmas(scenario.steps), **({"pooled": True} if command.get("pooled") else {}))
        self.synchronize(host.cuda)
        times = {"denoise": (time.perf_counter() - started) * 1000}
        if scenario.tail:
            path = Path(self.settings.out) / f"{os.getpid()}.mp4"
            times |= host.tail(latents, path)
            times["total"] = (time.perf_counter() - started) * 1000
            times["bytes"] = path.stat().st_size
            path.unlink()
        if "keep" in command:
            importlib.import_module("safetensors.torch").save_file({"latents": host.comparable(latents).contiguous()}, command["keep"])
        calls = host.probe.calls
        evaluation, launch = host.probe.device_ms(), [call.launch_ms for call in calls]
        answer = {
            "times": times,
            "evaluations": [[call.conds, call.rows] for call in calls],
            "evaluation": evaluation,
            "launch": launch,
            "memory": self.memory(),
        }
        if command.get("release") and host.cuda:
            torch.cuda.empty_cache()
        return answer

    def memory(self) -> dict[str, float]:
        """MiB at the peak since the last run began, by torch's allocator; on a CPU the process's, pages of mapped files included (Linux)."""
        if not self.host.cuda:
            return {"process": facts.peak()}
        cuda = self.torch.cuda
        free, whole = cuda.mem_get_info()
        peaks = {"allocated": cuda.max_memory_allocated(), "reserved": cuda.max_memory_reserved(), "now": cuda.memory_reserved(), "free": free, "device": whole}
        return {name: size / 2**20 for name, size in peaks.items()}

    def release(self, command: dict) -> dict:
        """Gives the allocator's cache back to the GPU."""
        if self.host.cuda:
            self.torch.cuda.empty_cache()
        return {"memory": self.memory()}

    def ceiling(self, command: dict) -> dict:
        """TFLOP/s of a plain matrix product."""
        from probe import gemm_tflops

        return {"tflops": gemm_tflops(getattr(self.torch, self.settings.dtype), command["side"], self.host.cuda)}


def serve(session: Session, channel) -> None:
    """Until "quit" or the end of the input. Errors of torch are answered; any other ends the process, and its log tells why."""
    commands = {"run": session.run, "ceiling": session.ceiling, "release": session.release}
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "quit":
            return
        try:
            answer = commands[command["do"]](command)
        except RuntimeError as error:  # also what CUDA, its memory and torch.compile raise
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"}
        tell(answer, channel)


def tell(answer: dict, channel) -> None:
    """One line."""
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


def main() -> None:
    """Standard output carries answers only; what ComfyUI prints goes to the log."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    given = json.loads(sys.argv[1])
    row = given.pop("row")
    settings = Settings(row=contestants.Contestant(**row | {"flags": tuple(row["flags"])}), **given)
    module = _module(settings)
    import torch._dynamo

    # one graph for each shape: a run with another number of frames must not make this one's slower
    with module.GRAD_MODE(), torch._dynamo.config.patch(automatic_dynamic_shapes=False), contextlib.suppress(BrokenPipeError):
        session = Session(settings, module.Host(settings))
        tell(session.ready(), channel)
        serve(session, channel)


if __name__ == "__main__":
    main()
