"""The correctness gate on a fleet of contestants, and the device's ceiling."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import contestants
import gate as law
import scenarios
from fleet import Failed, Worker
from safetensors.torch import load_file
from series import Book, each

CEILING_SIDE = {"cuda": 8192, "cpu": 1024}


@dataclass
class Gate:
    """One clip with each contestant and, for half precision, with the float32 references; see `law`.

    asked: the names of all that were to run: one whose peer is among them and gave no latents fails, one whose peer was not asked for is compared with
    ADE at its defaults, or with nobody.
    together: whether the references load while the contestants run.
    seconds: how long to wait for a clip.
    start: makes the process of a reference.
    """

    fleet: dict[str, Worker]
    common: dict
    asked: list[str]
    together: bool
    book: Book
    seconds: float
    start: Callable[[contestants.Contestant, dict], Worker] = Worker

    def run(self) -> list[law.Verdict]:
        """What was found, also said."""
        device, half = self.common["device"], self.common["dtype"] != "float32"
        scenario = scenarios.GATE[device]
        self.book.say(f"{scenario.name}: {', '.join(self.fleet)}")
        waiting = [self.start(row, self.common) for row in self._references() if half and self.together]
        latents, evaluations = self._clips(self.fleet, list(self.fleet), scenario, device == "cuda", {})
        exact = self._exact(scenario, waiting) if half else {}
        shape = (scenario.frames, 4, scenario.side // 8, scenario.side // 8)
        verdicts = [law.sound(name, found, shape) for name, found in latents.items()]
        verdicts += law.same_work(evaluations, scenario.cond_frames, scenario.steps)
        verdicts += [verdict for name in latents if (verdict := self._beside_peer(name, latents, exact, half))]
        verdicts += self._beside_diffusers(scenario, latents, exact, half)
        for verdict in verdicts:
            self.book.note("verdict", names=verdict.names, passed=verdict.passed, text=verdict.text)
            self.book.say(f"  {'passed' if verdict.passed else 'FAILED'}: {verdict.names[0]}: {verdict.text}")
        return verdicts

    def _beside_peer(self, name: str, latents: dict, exact: dict, half: bool) -> law.Verdict | None:
        row = contestants.ROWS[name]
        if not row.peer:
            return None
        peer = next((peer for peer in (row.peer, contestants.ADE) if peer in self.asked), "")
        if not peer:
            return law.Verdict((name,), True, f"compared with nobody: {row.peer} was not asked for")
        if peer not in latents:
            return law.Verdict((name, peer), False, f"{peer}, which it is compared with, gave no latents")
        return law.rounding(name, latents[name], peer, latents[peer], half, exact.get("ADE, float32"))

    def _beside_diffusers(self, scenario, latents: dict, exact: dict, half: bool) -> list[law.Verdict]:
        """This pack with diffusers' GroupNorm."""
        if "ours" not in self.fleet or contestants.DIFFUSERS not in latents:
            return []
        pooled, _ = self._clips(self.fleet, ["ours"], scenario, False, {"pooled": True})
        if "ours" not in pooled:
            return []
        found = law.rounding("ours", pooled["ours"], contestants.DIFFUSERS, latents[contestants.DIFFUSERS], half, exact.get("diffusers, float32"))
        return [law.Verdict(found.names, found.passed, f"with pooled GroupNorm {found.text}")]

    def _references(self) -> list[contestants.Contestant]:
        """Those references of whose kind a contestant runs."""
        kinds = {(worker.row.host, worker.row.pack) for worker in self.fleet.values()}
        return [row for row in contestants.REFERENCES if (row.host, row.pack) in kinds]

    def _exact(self, scenario, waiting: list[Worker]) -> dict:
        """The references' latents."""
        found = {}
        for worker in waiting or (self.start(row, self.common) for row in self._references()):
            name = worker.row.name
            try:
                worker.wait_ready(self.seconds)
                found |= self._clips({name: worker}, [name], scenario, False, {})[0]
            except Failed as failure:
                self.book.fail(name, "gate", str(failure))
            finally:
                worker.stop()
        return found

    def _clips(self, fleet: dict[str, Worker], names: list[str], scenario, together: bool, options: dict) -> tuple[dict, dict]:
        """Latents and UNet calls by contestant."""
        kept = {name: Path(self.common["out"]) / f"latents-{fleet[name].process.pid}.safetensors" for name in names}
        answers = {}
        for name in names:
            if name not in fleet:  # it has ended while another one ran
                continue
            fleet[name].send({"do": "run", "scenario": scenario.fields(), "keep": str(kept[name])} | options)
            if not together:
                answers |= each(fleet, [name], None, self.seconds, False, self.book, "gate")
        if together:
            answers = each(fleet, names, None, self.seconds, True, self.book, "gate")
        latents = {}
        for name, answer in answers.items():
            self.book.warmed(name, scenario, answer)
            latents[name] = load_file(kept[name])["latents"].clone()
            kept[name].unlink()
        return latents, {name: answer["evaluations"] for name, answer in answers.items()}


def ceiling(device: str, fleet: dict[str, Worker], book: Book) -> float:
    """TFLOP/s of a matrix product in the run's dtype, measured in a contestant's process; 0 when nobody is there."""
    for worker in fleet.values():
        try:
            found = worker.ask({"do": "ceiling", "side": CEILING_SIDE[device]}, 120)["tflops"]
        except Failed as failure:
            book.fail(worker.row.name, "matrix products", str(failure))
            continue
        book.note("ceiling", tflops=found)
        book.say(f"matrix products: {found:.2f} TFLOP/s")
        return found
    return 0.0
