"""Packed sets that are spoilt or forged, through training and `qaudio pack`."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import yaml

import qaudio
from qaudio.data.pack import pack
from tests.robustness.fuzz.sandbox import Kind, Trial, flipped, make_sounds, misplaced
from tests.robustness.fuzz.spoil import VALUES, Payload
from tests.robustness.fuzz.tables import RECIPE

INDEX = "index.json"
FIELDS = ("version", "benchmark", "dataset", "protocol", "folds", "task", "labels", "sample_rate",
          "plan", "clips", "left_out")  # fmt: skip


def prepare(folder: Path) -> None:
    make_sounds(folder / "sounds")
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    data = qaudio.AudioFolder(str(folder / "sounds"), folds=2)
    pack(data, folder / "packed", shard_bytes=2000)


def shard(items: list[bytes]) -> bytes:
    """A shard as litdata lays it out."""
    import struct

    heads = [struct.pack("<I", len(item)) + item for item in items]
    offsets, at = [], 4 * (len(items) + 2)
    for one in heads:
        offsets.append(at)
        at += len(one)
    return struct.pack(f"<{len(items) + 2}I", len(items), *offsets, at) + b"".join(heads)


def facts_of(folder: Path) -> dict[str, Any]:
    data = (folder / "shard-00000.bin").read_bytes()
    found: dict[str, Any] = json.loads(data[data.index(b"{") :])
    return found


def facts(folder: Path, rng: random.Random) -> str:
    """What the set says of itself."""
    found = facts_of(folder)
    way = rng.choice(("a fact", "a fact", "a row", "a row", "gone", "no JSON"))
    odd = (*VALUES, ["x"] * 3, [[1]], [["a/0.wav", 0, 1]], ["\x1b[31m", "b", "c"])
    if way == "a fact":
        found[rng.choice(FIELDS)] = rng.choice(odd)
    elif way == "a row":
        row = rng.choice(found["clips"])
        if rng.random() < 0.2:
            found["clips"][rng.randrange(len(found["clips"]))] = rng.choice(odd)
        else:
            row[rng.randrange(len(row))] = rng.choice((*odd, 10**12, 99, -5, [0, 1], [7]))
    elif way == "gone":
        del found[rng.choice(FIELDS)]
    text = json.dumps(found).encode()
    if way == "no JSON":
        text = rng.choice((b"", b"[]", b"null", b"[" * 100_000, text[:-9], pickle.dumps(found)))
    write_facts(folder, text)
    return f"facts: {way}"


def write_facts(folder: Path, text: bytes) -> None:
    """Put a shard in the place of that of the facts, and its size into the index."""
    data = shard([text])
    (folder / "shard-00000.bin").write_bytes(data)
    index = json.loads((folder / INDEX).read_text())
    index["chunks"][0]["chunk_bytes"] = len(data)
    (folder / INDEX).write_text(json.dumps(index))


def index(folder: Path, rng: random.Random) -> str:
    """What litdata reads of its format and its shards."""
    found = json.loads((folder / INDEX).read_text())
    part = rng.choice((found["config"], rng.choice(found["chunks"])))
    key = rng.choice(sorted(part))
    odd = (
        "pickle", ["pickle"], ["bytes", "pickle"], "zstd", "os:system", "shard-00001.bin", 10**9,
        "../outside/secret.txt", "/etc/passwd", "shard-00009.bin", *VALUES,
    )  # fmt: skip
    part[key] = rng.choice(odd)
    if rng.random() < 0.2:
        del part[key]
    text = json.dumps(found)
    (folder / INDEX).write_text(text, errors="surrogatepass")
    return f"index: {key}"


def shards(folder: Path, rng: random.Random) -> str:
    """Bytes of a shard; a pickle in the place of an item."""
    path = rng.choice(sorted(folder.glob("shard-*.bin")))
    if rng.random() < 0.2:
        payload = pickle.dumps(Payload(folder.parents[1] / "outside" / "executed"))
        path.write_bytes(shard([payload] * 3))
        return "shard: pickle"
    path.write_bytes(flipped(path.read_bytes(), rng))
    return "shard: bytes"


def begun(folder: Path, rng: random.Random) -> str:
    """A pack that was broken off, whose notes are others."""
    notes = folder / ".packing"
    notes.mkdir()
    (notes / "plan").write_text(rng.choice((facts_of(folder)["plan"], "x", "")))
    (folder / INDEX).unlink()
    note = rng.choice((*VALUES, {"next": 10**9}, {"next": -3, "clips": [], "left_out": []}))
    (notes / "1.json").write_text(json.dumps(note))
    if rng.random() < 0.3:
        (notes / "1.json").write_bytes(rng.choice((b"", b"{", b"\xff", b"[" * 100_000)))
    return "broken off"


def trial(rng: random.Random, whole: Path, sandbox: Path, keep: bool) -> Trial:
    work = sandbox / "work"
    shutil.copytree(whole, work, dirs_exist_ok=True)
    folder, ways = work / "packed", ["whole"]
    if not keep:
        chosen = rng.sample((facts, facts, facts, index, index, shards, shards, begun), 1)
        ways = [way(folder, rng) for way in chosen]
        if rng.random() < 0.05:
            path = rng.choice(sorted(folder.glob("*.*")))
            ways.append(misplaced(path, sandbox, rng))
    commands = [["pack", "folder", "sounds", "packed", "--set", "folds=2"]]
    train = ["train", "--config=r.yaml", "--data.packed=packed"]
    if ways != ["broken off"]:
        commands = [train] if keep or rng.random() < 0.7 else [train, *commands]
    return Trial(" + ".join(ways), commands)


KIND = Kind(prepare, trial)
