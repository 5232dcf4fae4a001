"""Throughput and memory of the three ways to read clips.

    python tests/benchmarks/streaming.py

Clips a second, one process: from files (soundfile and resampling each time), from the cache after
its first epoch, and from packed shards; then the peak memory of one worker, less memory-mapped
pages, that streams 2 000 and 20 000 ten-second clips. Everything is made in a temporary folder
(about 2 GB). Ratios carry over to other machines, clips a second do not.
"""

import argparse
import io
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from qaudio.data.audio import AudioCache, load
from qaudio.data.benchmarks.folder import AudioFolder
from qaudio.data.dataset import ClipDataset, EpochSampler, ResumableLoader, collate
from qaudio.data.pack import Pieces, pack
from qaudio.data.shards import VERSION, PackedClips

TARGET = 16000


def noise(seconds, rate, seed):
    """Coloured noise with a slow envelope: compresses about as sounds do, (T,) float32."""
    rng = np.random.default_rng(seed)
    samples = np.cumsum(rng.standard_normal(round(seconds * rate)))
    samples = samples - np.convolve(samples, np.ones(50) / 50, "same")
    envelope = 0.5 + 0.5 * np.sin(np.linspace(0, 20 * (1 + rng.random()), len(samples)))
    return (0.3 * samples / np.abs(samples).max() * envelope).astype(np.float32)


def rate_of(read, items, repeats=8):
    """Clips a second: the best of several passes."""
    best = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        for item in items:
            read(item)
        best = max(best, len(items) / (time.perf_counter() - start))
    return best


def throughput(folder, clips=40, seconds=5.0):
    """Clips a second for several kinds of files: decoded each time, cached, packed."""
    for suffix, rate in ((".ogg", 44100), (".wav", 48000), (".flac", 44100)):
        root = folder / f"files{suffix}"
        for n in range(clips):
            path = root / f"class{n % 2}" / f"{n}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, noise(seconds, rate, n), rate)
        files = sorted(root.rglob(f"*{suffix}"))
        cache = AudioCache(folder / "cache")
        for path in files:
            cache.get(path, TARGET)  # the first epoch
        pack(AudioFolder(str(root), folds=2), folder / f"packed{suffix}", sample_rate=TARGET)
        shards = PackedClips(str(folder / f"packed{suffix}"))
        numbers = [str(n) for n in range(clips)]
        plain = rate_of(lambda path: load(path, TARGET), files)
        cached = rate_of(lambda path, cache=cache: np.array(cache.get(path, TARGET)), files)
        packed = rate_of(lambda n, shards=shards: shards.get(n, TARGET), numbers)
        yield f"{suffix[1:]}, {rate} Hz", plain, cached, packed


def write_pack(folder, clips, templates):
    """A packed set of so many clips, all from a few templates; its bytes."""
    facts = {
        "version": VERSION, "benchmark": "made", "dataset": "made", "protocol": "made", "folds": 1,
        "task": "multiclass", "labels": ["made"], "left_out": [], "plan": "made",
    }  # fmt: skip
    pieces = Pieces(folder, "made")
    for start in range(0, clips, 500):
        shard = [templates[n % len(templates)] for n in range(start, min(start + 500, clips))]
        pieces.add(shard, start + len(shard), [], [])
    rows = [[f"clip{n}", 0, 0, 10 * TARGET, TARGET] for n in range(clips)]
    pieces.finish(json.dumps(facts | {"clips": rows}).encode())
    return sum(path.stat().st_size for path in folder.glob("*.bin"))


def private_kb():
    """Resident memory of this process less its memory-mapped and shared pages, kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    raise RuntimeError("RssAnon: Linux only")


class Watched(ClipDataset):
    """Notes the peak memory of the worker that reads it."""

    peak = None

    def __getitem__(self, key):
        item = super().__getitem__(key)
        with self.peak.get_lock():
            self.peak.value = max(self.peak.value, private_kb())
        return item


def memory(folder):
    """Peak private memory of one worker that streams a packed set in random order, kB."""
    torch.set_num_threads(1)
    shards = PackedClips(str(folder))
    items = [(clip, (slice(None),)) for clip, _, _ in shards.clips()]
    dataset = Watched(items, 1, shards, TARGET, 10.0, 0)
    dataset.peak = multiprocessing.Value("q", 0)
    loader = ResumableLoader(
        dataset, batch_size=32, sampler=EpochSampler(len(items), 0, True), collate_fn=collate,
        num_workers=1,
    )  # fmt: skip
    assert sum(len(batch["id"]) for batch in loader) == len(items)
    return dataset.peak.value


def run_memory(folder, queue):
    queue.put(memory(folder))


def measured(folder):
    """`memory` in a fresh process, so that one measurement leaves nothing to the next."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=run_memory, args=(folder, queue))
    process.start()
    peak = queue.get()
    process.join()
    return peak


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("throughput", "memory"))
    parser.add_argument("--clips", type=int, nargs=2, default=(2000, 20000))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "memory":
            print(f"clips a second (5 s, to {TARGET} Hz)\n")
            print("| files | decoded each time | cached | | packed | |\n|---|---|---|---|---|---|")
            for kind, plain, cached, packed in throughput(folder):
                print(
                    f"| {kind} | {plain:.0f} | {cached:.0f} | {cached / plain:.1f}× | {packed:.0f} "
                    f"| {packed / plain:.1f}× |", flush=True,
                )  # fmt: skip
        if options.only != "throughput":
            templates = []
            for n in range(50):
                file = io.BytesIO()
                soundfile.write(file, noise(10, TARGET, n), TARGET, format="OGG")
                templates.append(file.getvalue())
            print("\n| clips | shards | peak of a worker |\n|---|---|---|")
            peaks = []
            for clips in options.clips:
                size = write_pack(folder / str(clips), clips, templates)
                peaks.append(measured(folder / str(clips)))
                print(f"| {clips} | {size / 1e9:.2f} GB | {peaks[-1] / 1024:.0f} MB |", flush=True)
            print(f"\npeak {peaks[1] / peaks[0] - 1:+.1%} for {options.clips[1]} clips")
    return 0


if __name__ == "__main__":
    sys.exit(main())
