"""The table that a user decides by: `python -m tests.benchmarks.speed.choice`.

Pretrained taggers and others' networks, each in every runtime: accuracy, time, memory, size. Batch
1, 10 s of sound, waveform to logits, in turns in one run on each number of threads, then each from
a cold start. `--record` keeps what was measured in choice.json and README.md beside this file;
`qaudio verify --all --write` draws the README's picture from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import torch

import qaudio
from qaudio.cards.choice import PROBE, Candidate, InRuntime, Score, recorded
from qaudio.cards.tables import percent, with_generated
from qaudio.compress.cost import device_name
from qaudio.compress.timing import in_processor_time
from qaudio.evaluation.probe import LINEAR, ZERO_SHOT
from qaudio.evaluation.result import Result
from qaudio.training.transfer import transfers
from qaudio.zoo.store import entries, read_config, read_record, read_results
from tests.benchmarks.speed.exports import exported, made_sounds
from tests.benchmarks.speed.networks import network
from tests.benchmarks.speed.record import README
from tests.benchmarks.speed.runtimes import RUNTIMES
from tests.benchmarks.speed.table import CPU, Start, in_turns, short

RESULTS = Path(__file__).with_name("choice.json")
TAGGERS = (
    "qcnn10_050.audioset_kd_long", "qcnn10_050.audioset_kd_pruned50_long",
    "qcnn10_050.audioset_kd_pruned75", "qcnn10_050.audioset_kd_128kb", "cnn10_*.audioset_kd*",
)  # fmt: skip
SHAPES = ("mn04", "mn10")  # of EfficientAT: time and memory do not depend on weights
CLASSES = 527  # of AudioSet
SCORES = {
    PROBE: ("esc10", LINEAR),
    "ESC-26 probe": ("esc26", LINEAR),
    "ESC-10 zero-shot": ("esc10", ZERO_SHOT),
}
HEAD = (
    "network", *SCORES, "runtime", "ms, 1 thread", "ms, 2 threads", "processor ms", "cold, ms",
    "import, ms", "peak MB", "kB",
)  # fmt: skip


@dataclass
class Network:
    """What is measured: a network, the file for each of its runtimes, and its scores."""

    name: str
    family: Literal["quaternion", "real", "peer"]
    files: dict[str, Path]
    scores: dict[str, Score] = field(default_factory=dict)


def in_torch(name: str, family: Literal["quaternion", "real", "peer"], folder: Path) -> Network:
    """A folder of an entry, with the scores that it records."""
    results = read_results(folder)
    found = {
        key: _score(one.result)
        for one in (results.transfer if results else ())
        for key, (benchmark, way) in SCORES.items()
        if one.benchmark == benchmark and one.protocol.endswith(f"; {way}")
    }
    return Network(name, family, {"PyTorch": folder, "optimize": folder}, found)


def scored(folder: Path, data: str, kept: Path) -> dict[str, Score]:
    """The scores of a tagger without records, kept in a file; `data` is ESC-50's folder."""
    if known := read_record(kept, dict[str, Score]):
        return known
    model, found = qaudio.load(folder), {}
    for benchmark in {benchmark for benchmark, _ in SCORES.values()}:
        keys = {way: key for key, (where, way) in SCORES.items() if where == benchmark}
        sounds = qaudio.ESC50(data, **{benchmark: True})
        for way, one in zip(keys, transfers(model, sounds, list(keys)), strict=True):
            found[keys[way]] = _score(one.result)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({key: one.to_dict() for key, one in found.items()}))
    return found


def _score(result: Result) -> Score:
    return Score(mean=result.mean, interval95=result.interval95)


def networks(
    taggers: Iterable[str], peers: Iterable[str], yamnet: str | None, data: str | None, made: Path
) -> list[Network]:
    """Everything but the ONNX files; `made` is a folder for random weights and peers' scores."""
    found = []
    for name, folder in entries().items():
        if any(fnmatch(name, pattern) for pattern in taggers):
            quaternion = read_config(folder).is_quaternion
            found.append(in_torch(name, "quaternion" if quaternion else "real", folder))
    for folder in map(Path, peers):
        peer = in_torch(folder.name, "peer", folder)
        if data and not peer.scores:
            peer.scores = scored(folder, data, made / "scores" / f"{folder.name}.json")
        found.append(peer)
    for arch in SHAPES:
        if not any(one.name.partition(".")[0] == arch for one in found):
            network(arch, num_classes=CLASSES).save_pretrained(made / arch)
            found.append(in_torch(f"{arch}, random weights", "peer", made / arch))
    if yamnet:
        found.append(Network("YAMNet", "peer", {"LiteRT": Path(yamnet)}))
    return found


def export(one: Network, folder: Path) -> None:
    """Give a network that PyTorch runs its ONNX files, unless a folder has them already."""
    files = {f"ONNX {kind}": folder / f"{kind}.onnx" for kind in ("fp32", "int8")}
    if not all(file.is_file() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        model = qaudio.load(one.files["PyTorch"]).eval()
        with made_sounds(model.sample_rate) as sounds:
            for calibrate in (None, sounds):
                print("exported", exported(model, str(folder), calibrate), flush=True)
    one.files |= files


def measure(found: list[Network], threads: list[int], budget: float) -> list[Candidate]:
    """Every network in every runtime that it has a file for, as the last of `threads` from cold."""
    ways = [(one, runtime, file) for one in found for runtime, file in one.files.items()]
    warm: list[tuple[dict[str, float], dict[str, float]]] = [({}, {}) for _ in ways]
    for count in threads:
        torch.set_num_threads(count)
        calls = [RUNTIMES[runtime][1](file, count) for _, runtime, file in ways]
        print(f"{count} threads: {len(calls)} ready", flush=True)
        clock = time.process_time if in_processor_time(CPU) else time.perf_counter
        runs = in_turns(calls, budget, clock, time.process_time)
        for (times, processor), taken in zip(warm, runs, strict=True):
            times[str(count)], processor[str(count)] = map(
                statistics.median, zip(*taken, strict=True)
            )
    candidates = {
        one.name: Candidate(network=one.name, family=one.family, scores=one.scores, runtimes=[])
        for one in found
    }
    for (one, runtime, file), found_warm in zip(ways, warm, strict=True):
        start = Start(
            ("-m", "tests.benchmarks.speed.runtimes", runtime, str(file), str(threads[-1]))
        )
        imports, first, peak = json.loads(start().stdout.splitlines()[-1])
        shipped = file / "model.safetensors" if file.is_dir() else file
        candidates[one.name].runtimes.append(
            InRuntime(
                runtime, *found_warm, 1000 * imports, 1000 * first, peak, shipped.stat().st_size
            )
        )
        print(
            one.name, runtime, *map(short, found_warm[0].values()), short(1000 * first), flush=True
        )
    return list(candidates.values())


def machine() -> str:
    return f"{device_name(CPU).rpartition(',')[0]}, torch {torch.__version__}"


def write(path: Path, measured: list[Candidate]) -> dict[str, list[Candidate]]:
    """Put this machine's candidates last in a file, and return all that it then holds."""
    found = recorded(path)
    found.pop(machine(), None)
    found[machine()] = measured
    plain = {name: [one.to_dict() for one in members] for name, members in found.items()}
    path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return found


def tables(found: dict[str, list[Candidate]]) -> str:
    """A Markdown table for each machine."""
    parts = []
    for name, members in found.items():
        rows = [HEAD, ("---",) * len(HEAD), *(row for one in members for row in _rows(one))]
        parts.append(f"{name}:\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts)


def _rows(one: Candidate) -> Iterable[tuple[str, ...]]:
    scores = [percent(one.scores[key].mean) if key in one.scores else "" for key in SCORES]
    for way in one.runtimes:
        times = [short(way.milliseconds.get(count)) for count in ("1", "2")]
        processor = way.processor_milliseconds
        figures = [
            processor[max(processor, key=int)], way.cold_milliseconds, way.import_milliseconds,
            way.peak_megabytes, way.bytes / 1000,
        ]  # fmt: skip
        yield one.network, *scores, way.runtime, *times, *map(short, figures)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.speed.choice",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("--taggers", nargs="+", default=TAGGERS, help="entries, or patterns")
    parser.add_argument("--peer", nargs="+", default=[], metavar="FOLDER",
                        help="imported entries of others' taggers")  # fmt: skip
    parser.add_argument("--yamnet", metavar="FILE", help=".tflite; needs ai_edge_litert")
    parser.add_argument("--data", help="folder of ESC-50, for the scores of peers")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="(1 2)")
    parser.add_argument("--budget", type=float, default=30.0,
                        help="seconds for each number of threads (30)")  # fmt: skip
    parser.add_argument(
        "--made", metavar="FOLDER", help="keep ONNX files and peers' scores, or use those there"
    )
    parser.add_argument("--prepare", action="store_true", help="only make them")
    parser.add_argument("--record", action="store_true", help="keep what is measured in the clone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(options.made or temporary)
        found = networks(options.taggers, options.peer, options.yamnet, options.data, made)
        for one in found:
            if "PyTorch" in one.files:
                export(one, made / "onnx" / one.name)
        if options.prepare:
            return
        measured = measure(found, sorted(options.threads), options.budget)
    print(tables({machine(): measured}))
    if options.record:
        text = README.read_text(encoding="utf-8")
        made_of = tables(write(RESULTS, measured))
        README.write_text(with_generated(text, "choice", made_of), encoding="utf-8")


if __name__ == "__main__":
    main()
