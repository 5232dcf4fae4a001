"""Ways to spoil an entry's folder; each is given the folder and random numbers.

A way that returns True leaves something that `verify` must refuse; of the others a few are
harmless. `outside` beside the entry's parent folder holds what must stay unread.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from qaudio.zoo.store import file_hash

WEIGHTS = ("model.safetensors", "model.safetensors", "probe.safetensors", "folds/1.safetensors")
JSON = ("config.json", "results.json", "report.json")
# Values of every JSON type, absurd ones among them.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 6, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("inf"),
    float("nan"), "", "x", "8", "../x", "/etc/passwd", "two\nlines", "\x1b[31mred", "\ud800",
    "\u202eback", "x" * 100_000, "\0", [], {}, [1], ["x", None], {"a": 1}, [[[]]], {"": {"": []}},
    [0] * 10_000,
)  # fmt: skip


class Payload:
    """Pickles as a call that makes a folder."""

    def __init__(self, made: Path):
        self.made = made

    def __reduce__(self) -> tuple[Callable, tuple]:
        return (os.mkdir, (str(self.made),))


def outside(entry: Path) -> Path:
    return entry.parents[1] / "outside"


def read(entry: Path, name: str) -> Any:
    return json.loads((entry / name).read_text())


def write(entry: Path, name: str, document: Any) -> None:
    (entry / name).write_text(json.dumps(document))


def rehash(entry: Path) -> None:
    """Make config.json agree with the files, as a forger would, where it still lists files."""
    if not (entry / "config.json").is_file():
        return  # a device that never ends
    try:
        config = read(entry, "config.json")
        for name in config["files"]:
            if (entry / name).is_file():
                config["files"][name] = file_hash(entry / name)
        write(entry, "config.json", config)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # spoilt itself


def value(entry: Path, rng: random.Random) -> None:
    """Some field of some JSON file is another, or gone, or new."""
    name = rng.choice(("config.json", "config.json", "results.json", "results.json", "report.json"))
    document = read(entry, name)
    holder = document
    while True:
        keys = sorted(holder) if isinstance(holder, dict) else range(len(holder))
        key = rng.choice(keys)
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.4:
            break
        holder = inner
    way = rng.random()
    if way < 0.1:
        del holder[key]
    elif way < 0.2 and isinstance(holder, dict):
        holder[rng.choice(("", "x", "../x", "\n"))] = rng.choice(VALUES)
    else:
        holder[key] = rng.choice(VALUES)
    write(entry, name, document)


def width(entry: Path, rng: random.Random) -> bool:
    """A layer's width is 0, negative, huge, no multiple of 4, or just another."""
    config = read(entry, "config.json")
    layers = rng.choice(([rng.choice(sorted(config["widths"]))], sorted(config["widths"])))
    new = rng.choice((0, -4, 2, 6, 4, 8, 64, 4096, 65536, 2**20, 2**31, 2**63, 10**30, 8.0))
    same = all(config["widths"][layer] == new for layer in layers)
    config["widths"] |= dict.fromkeys(layers, new)
    write(entry, "config.json", config)
    return not same


def front_end(entry: Path, rng: random.Random) -> None:
    """A front-end of absurd size."""
    config = read(entry, "config.json")
    huge = rng.choice((0, -1, 1, 2, 7, 10**5, 10**6, 2**28, 2**31, 2**40, 10**30))
    for setting in rng.sample(sorted(config["frontend"]), rng.choice((1, 1, 2, 3))):
        config["frontend"][setting] = huge
    if rng.random() < 0.5:
        config["frontend"] |= {"sample_rate": 10**9, "f_max": 5e8}
    if rng.random() < 0.3:
        config["frontend"] |= {"sample_rate": 10**7, "hop_length": 1}
    write(entry, "config.json", config)


def architecture(entry: Path, rng: random.Random) -> bool:
    """Another network, of the largest there are; or so many classes."""
    config = read(entry, "config.json")
    config["architecture"] = rng.choice((
        "cnn14", "qcnn14_999", "cnn14_999", "resnet38_999", "ast_base_s1", "timm:../../x", "qcnn6",
        "timm:vit_giant_patch14_clip_224", "timm:resnet50.a1_in1k", "timm:", "x" * 5000, "eval",
        "timm:eva_giant_patch14_224", "timm:hf-hub:x/y", "timm:convnext_xxlarge",
    ))  # fmt: skip
    if rng.random() < 0.5:
        from qaudio import create_model

        try:
            with torch.device("meta"):
                config["widths"] = create_model(config["architecture"], num_classes=3).widths
        except (ValueError, NotImplementedError):
            config["widths"] = {}
    if rng.random() < 0.5:
        config |= {"num_classes": rng.choice((0, -1, 10**6, 10**9, 2**62, 10**30)), "labels": None}
    write(entry, "config.json", config)
    return True


def weights_bytes(entry: Path, rng: random.Random) -> bool:
    """The header of a file of weights lies, or its bytes are others."""
    path = entry / rng.choice(WEIGHTS)
    data = bytearray(path.read_bytes())
    size = struct.unpack("<Q", data[:8])[0]
    way = rng.randrange(6)
    if way == 0:
        lengths = (0, 1, 7, size - 1, size + 1, len(data), 2**31, 2**63, 2**64 - 1, 10**8)
        data[:8] = struct.pack("<Q", rng.choice(lengths))
    elif way == 1:
        del data[rng.randrange(len(data)) :]
    elif way == 2:
        for _ in range(8):
            data[rng.randrange(min(len(data), 8 + size))] ^= 1 << rng.randrange(8)
    elif way == 3:
        header = json.loads(data[8 : 8 + size])
        name = rng.choice([name for name in header if name != "__metadata__"])
        field = rng.choice(("dtype", "shape", "data_offsets"))
        header[name][field] = rng.choice((
            "F64", "I64", "BOOL", "F8_E4M3", "C64", [], [0], [2**62, 8], [2**63], [-1], [0, 2**62],
            [8, 0], None, "x", [1] * 1000,
        ))  # fmt: skip
        text = json.dumps(header).encode()
        data[: 8 + size] = struct.pack("<Q", len(text)) + text
    elif way == 4:
        deep = b"[" * 100_000 if rng.random() < 0.5 else b'{"a":' * 100_000
        data = bytearray(struct.pack("<Q", len(deep)) + deep)
    else:
        data = bytearray(rng.choice((b"", b"\x80\x04", b"PK\x03\x04", b"{}", rng.randbytes(4000))))
    path.write_bytes(data)
    return True


def tensors(entry: Path, rng: random.Random) -> bool:
    """A tensor is missing, too many, of another shape or type, or holds no numbers."""
    path = entry / rng.choice(WEIGHTS)
    state = load_file(path)
    state = {name: tensor.clone() for name, tensor in state.items()}
    name, way = rng.choice(sorted(state)), rng.randrange(6)
    if way == 0:
        del state[name]
    elif way == 1:
        extra = rng.choice(("extra", "../extra", "", "x\ny", "classifier.weight2", "x" * 3000))
        state[extra] = torch.zeros(rng.choice((0, 1, 100)))
    elif way == 2:
        state[name] = state[name].flatten()[: rng.choice((0, 1, 3))]
    elif way == 3:
        state[name] = state[name][None]
    elif way == 4:
        kind = rng.choice((torch.int64, torch.bool, torch.complex64, torch.uint8))
        state[name] = state[name].to(kind)
    else:
        floats = sorted(key for key in state if state[key].is_floating_point())
        state[rng.choice(floats)].fill_(rng.choice((float("nan"), float("inf"), 1e38)))
    path.write_bytes(save(state))
    return way in (0, 2) or (way in (1, 3) and path.name != "probe.safetensors")


def pickles(entry: Path, rng: random.Random) -> bool:
    """Pickles that run code, in the place of weights or predictions."""
    stream, payload = io.BytesIO(), Payload(outside(entry) / "executed")
    way = rng.randrange(4)
    if way == 0:
        stream.write(pickle.dumps({"model": payload}))
    elif way < 3:
        torch.save({"model": payload}, stream, _use_new_zipfile_serialization=way == 1)
    if way < 3:
        (entry / rng.choice((*WEIGHTS, "predictions.npz"))).write_bytes(stream.getvalue())
        return True
    arrays = dict(np.load(entry / "predictions.npz"))
    arrays[rng.choice(sorted(arrays))] = np.array([payload] * 48, object)
    np.savez(entry / "predictions.npz", **arrays)
    return True


def predictions(entry: Path, rng: random.Random) -> bool:
    """Arrays of other sizes, types and values; archives cut short, or that unpack to too much."""
    path = entry / "predictions.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    name, way = rng.choice(sorted(arrays)), rng.randrange(7)
    if way == 0:
        del arrays[name]
    elif way == 1:
        arrays[name] = arrays[name][: rng.choice((0, 1, 7))]
    elif way == 2:
        arrays = {key: array[:0] for key, array in arrays.items()}
    elif way == 3:
        arrays[name] = rng.choice((np.zeros(()), arrays[name][None], arrays[name].astype("S4"),
                                   arrays[name][:, None], np.zeros(48, "datetime64[s]"),
                                   np.full(48, 2**62), np.full(48, -1), np.zeros(48, complex),
                                   np.zeros((48, 0)), np.zeros((48, 9, 9))))  # fmt: skip
    elif way == 4:
        arrays["logits"] = np.full_like(arrays["logits"], rng.choice((np.nan, np.inf, 0)))
    np.savez_compressed(path, **arrays)
    if way == 5:
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data))])
    elif way == 6:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            shape = rng.choice(("(1099511627776,)", "(2,)", "(-1,)", "(4611686018427387904, 8)"))
            head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
            head = head.ljust(117) + "\n"
            start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()
            for key in arrays:
                archive.writestr(f"{key}.npy", start + bytes(rng.choice((0, 16, 1 << 25))))
    return way != 4


def bomb(entry: Path, rng: random.Random) -> bool:
    """JSON that is deep, long, or none."""
    name = rng.choice(JSON)
    text = (entry / name).read_text()
    (entry / name).write_bytes(rng.choice((
        b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"1" * 10_000, b"[" + b"[],"
        * 3_000_000 + b"[]]", b"", b"null", b"[]", b"3", b'"x"', b"{}", b"\xff\xfe{", b"\0" * 100,
        text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), text[:-20].encode(),
        text.replace("1", "1" * 5000).encode(), text.replace("0", "1e999").encode(),
    )))  # fmt: skip
    return True


def links(entry: Path, rng: random.Random) -> bool:
    """Links that lead out, to devices and into circles; pipes and folders in place of files."""
    names = ("config.json", "results.json", "report.json", "predictions.npz", "model.safetensors",
             "probe.safetensors", "README.md", "confusion.png", "folds/1.safetensors",
             "source.json")  # fmt: skip
    path = entry / rng.choice(names)
    other = outside(entry) / path.name
    if path.exists():
        shutil.copyfile(path, other)
        path.unlink()
    else:
        other.write_text(json.dumps({"file": "SECRET", "trained_on": ["made"]}))
    way = rng.randrange(8)
    if way == 0:
        path.symlink_to(other)
    elif way == 1:
        path.symlink_to(os.path.relpath(other, path.parent))
    elif way == 2:
        path.symlink_to(
            rng.choice(("/etc/passwd", "/dev/zero", "/dev/null", "/", "/proc/self/mem"))
        )
    elif way == 3:
        path.symlink_to(rng.choice((path.name, "missing", "..")))
    elif way == 4:
        os.mkfifo(path)
    elif way == 5:
        path.mkdir()
    elif way == 6:
        shutil.copytree(entry / "folds", outside(entry) / "folds")
        shutil.rmtree(entry / "folds")
        (entry / "folds").symlink_to(outside(entry) / "folds")
    else:
        inner = path.with_name("inner")
        shutil.copyfile(other, inner)
        if path.name == "source.json":
            inner.write_text(inner.read_text().replace("SECRET", "what may be told"))
        path.symlink_to("inner")
        return True
    return path.name != "source.json"  # which nothing lists: what is no file there is not read


def names(entry: Path, rng: random.Random) -> bool:
    """Names that lead out of the folder: of files, of the parent, of benchmark and entry."""
    secret = outside(entry) / "secret.json"
    out = rng.choice((
        "../../outside/secret.json", str(secret), "folds/../../../outside/secret.json", "..\\x",
        "C:\\x", "//x/y", "x\0y", "./../../outside/secret.json", "~/x", ".", "", "..",
    ))  # fmt: skip
    if rng.random() < 0.4:
        config = read(entry, "config.json")
        config["files"][out] = file_hash(secret)
        if rng.random() < 0.5:
            (outside(entry) / "model.safetensors").write_bytes(
                (entry / "model.safetensors").read_bytes()
            )
            config["files"]["model.safetensors"] = out
        write(entry, "config.json", config)
        return True
    results = read(entry, "results.json")
    way = rng.randrange(3)
    if way == 0:
        shutil.copytree(entry, outside(entry) / "parent")
        name = rng.choice(
            (str(outside(entry) / "parent"), "../outside/parent", "hf-hub:../..", out)
        )
        results["parent"] = {
            "name": name,
            "how": "pruned from",
            "difference": {
                "metric": "accuracy",
                "mean": 0,
                "interval95": [0, 0],
                "runs": 2,
                "clips": 48,
            },
        }
    elif way == 1:
        results |= {
            "benchmark": rng.choice(("../../../outside/made", str(outside(entry) / "made"), out)),
            "hub_benchmark": {"dataset_id": "x/y", "task_id": "z"},
        }
    else:
        results["entry"] = out
    write(entry, "results.json", results)
    return True


def picture(entry: Path, rng: random.Random) -> bool:
    """A picture that is none, or too large to be drawn, or with text that unpacks to too much."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    side = rng.choice((1, 60_000, 2**31 - 1))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    text = chunk(b"zTXt", b"Description\0\0" + zlib.compress(bytes(rng.choice((10, 1 << 26)))))
    body = chunk(b"IDAT", zlib.compress(bytes(rng.choice((2, 1 << 24))))) + chunk(b"IEND", b"")
    made = b"\x89PNG\r\n\x1a\n" + head + rng.choice((b"", text)) + body
    (entry / "confusion.png").write_bytes(rng.choice((made, made[:-9], b"", b"GIF89a" + made)))
    return True


def litter(entry: Path, rng: random.Random) -> None:
    """Files that nothing lists, and sources of odd content."""
    name = rng.choice(
        ("notes.txt", ".git/HEAD", "source.json", "folds/9.safetensors", "pytorch_model.bin")
    )
    (entry / name).parent.mkdir(exist_ok=True)
    document = rng.choice((*VALUES, {"file": 3, "url": ["x"], "citation": {"a": "\n"}}))
    (entry / name).write_text(json.dumps(document))
    if name == "source.json":
        config = read(entry, "config.json")
        config["files"][name] = file_hash(entry / name)
        write(entry, "config.json", config)


SPOIL: dict[str, Callable[[Path, random.Random], bool | None]] = {
    way.__name__: way
    for way in (
        value,
        width,
        front_end,
        architecture,
        weights_bytes,
        tensors,
        pickles,
        predictions,
        bomb,
        links,
        names,
        picture,
        litter,
    )
}
TIMES = {"value": 5}  # as often as others
