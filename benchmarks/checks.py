"""The correctness gate on a fleet of contestants, and the device's ceiling."""

from pathlib import Path

import contestants
import gate as law
import scenarios
from fleet import Failed, Worker
from safetensors.torch import load_file
from series import Book, each

CEILING_SIDE = {"cuda": 8192, "cpu": 1024}


def gate(device: str, fleet: dict[str, Worker], common: dict, book: Book, seconds: float) -> list[law.Verdict]:
    """Runs one clip with each contestant and, on a GPU, with the float32 references. The contestants' peers run in the same precision."""
    scenario = scenarios.GATE[device]
    book.say(f"{scenario.name}: {', '.join(fleet)}")
    latents, evaluations = _run(fleet, list(fleet), scenario, common, book, seconds, device == "cuda", {})
    exact = _references(scenario, fleet, common, book, seconds) if device == "cuda" else {}
    shape = (scenario.frames, 4, scenario.side // 8, scenario.side // 8)
    verdicts = [law.sound(name, found, shape) for name, found in latents.items()]
    verdicts += law.same_work(evaluations, scenario.cond_frames, scenario.steps)
    for name in latents:
        peer = fleet[name].row.peer if name in fleet else ""
        peer = (
            peer if peer in latents else next((row.name for row in contestants.CONTESTANTS if peer and row.name == contestants.ADE and row.name in latents), "")
        )
        if peer:
            verdicts.append(law.rounding(name, latents[name], peer, latents[peer], exact.get("ADE, float32")))
    if "ours" in fleet and contestants.DIFFUSERS in latents:
        pooled, _ = _run(fleet, ["ours"], scenario, common, book, seconds, False, {"pooled": True})
        if "ours" in pooled:
            found = law.rounding("ours", pooled["ours"], contestants.DIFFUSERS, latents[contestants.DIFFUSERS], exact.get("diffusers, float32"))
            verdicts.append(law.Verdict(found.names, found.passed, f"with pooled GroupNorm {found.text}"))
    for verdict in verdicts:
        book.note("verdict", names=verdict.names, passed=verdict.passed, text=verdict.text)
        book.say(f"  {'passed' if verdict.passed else 'FAILED'}: {verdict.names[0]}: {verdict.text}")
    return verdicts


def _references(scenario, fleet: dict[str, Worker], common: dict, book: Book, seconds: float) -> dict:
    """Latents in float32 of those references whose half-precision contestant runs."""
    found = {}
    for row in contestants.REFERENCES:
        if row.name.partition(",")[0] not in fleet:
            continue
        worker = Worker(row, common)
        try:
            worker.wait_ready(seconds)
            found |= _run({row.name: worker}, [row.name], scenario, common, book, seconds, False, {})[0]
        except Failed as failure:
            book.fail(row.name, "gate", str(failure))
        finally:
            worker.stop()
    return found


def _run(fleet, names, scenario, common: dict, book: Book, seconds: float, together: bool, options: dict) -> tuple[dict, dict]:
    """Latents and UNet calls by contestant."""
    kept = {name: Path(common["out"]) / f"latents-{fleet[name].process.pid}.safetensors" for name in names}
    answers = {}
    for name in names:
        fleet[name].send({"do": "run", "scenario": scenario.fields(), "keep": str(kept[name])} | options)
        if not together:
            answers |= each(fleet, [name], None, seconds, False, book, "gate")
    if together:
        answers = each(fleet, names, None, seconds, True, book, "gate")
    latents = {}
    for name, answer in answers.items():
        book.warmed(name, scenario, answer)
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
