"""Checkpoints that are spoilt or made to harm: of unfinished runs, and as others publish them."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

import qaudio
from qaudio.quaternion.layers import QConv2d, QLinear
from tests.robustness.fuzz.sandbox import Kind, Trial, flipped, make_sounds, misplaced
from tests.robustness.fuzz.spoil import VALUES, Payload
from tests.robustness.fuzz.tables import RECIPE

RUN = "runs/t.folder/seed0_fold1/last.ckpt"
ARCH = "qcnn6"
# Values in the place of what a checkpoint holds; some are tensors.
ODD: tuple[Any, ...] = (
    *(value for value in VALUES if value != "\ud800"), torch.zeros(3), torch.tensor(float("nan")),
    [torch.zeros(2)], (1, 2), {1: 2}, -5, 10**18, 1 + 2j,
)  # fmt: skip


def prepare(folder: Path) -> None:
    make_sounds(folder / "sounds")
    recipe = RECIPE | {"trainer": RECIPE["trainer"] | {"max_epochs": 2}}
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    from qaudio.cli import main

    here, cache = os.getcwd(), os.environ.get("QAUDIO_CACHE")
    os.chdir(folder)
    os.environ["QAUDIO_CACHE"] = str(folder / "cache")
    try:
        code = main(["fit", "--config=r.yaml"])
        assert code == 0, "no checkpoint to spoil"
    finally:
        os.chdir(here)
        del os.environ["QAUDIO_CACHE"]
        os.environ |= {} if cache is None else {"QAUDIO_CACHE": cache}
    torch.save(published(), folder / "model.pth")


def published() -> dict[str, Any]:
    """A network as QPANN's code writes it."""
    torch.manual_seed(0)
    net = qaudio.create_model(ARCH, num_classes=527, frontend={"kind": "published"})
    state = dict(net.state_dict())
    for name, layer in net.named_modules():
        if isinstance(layer, QConv2d | QLinear):
            parts = state.pop(f"{name}.weight").chunk(4)
            for leaf, part in zip("rijk", parts, strict=True):
                part = part.T if isinstance(layer, QLinear) else part
                state[f"{name}.{leaf}_weight"] = part.contiguous()
    for leaf in ("weight", "bias"):
        state[f"fc_audioset.{leaf}"] = state.pop(f"classifier.{leaf}")
    return {"iteration": 1, "model": {key: value.clone() for key, value in state.items()}}


def tensors(content: dict[str, Any], key: str, rng: random.Random) -> str:
    """A tensor is gone, too many, of another shape, kind or layout, or holds no numbers."""
    state = content[key]
    name = rng.choice(sorted(state))
    tensor = state[name]
    ways: dict[str, Callable[[], Any]] = {
        "shape": lambda: tensor.flatten()[: rng.choice((0, 1, 3))],
        "rank": lambda: tensor[None],
        "integers": lambda: tensor.to(torch.int64),
        "half": lambda: tensor.to(torch.float16),
        "complex": lambda: tensor.to(torch.complex64),
        "not finite": lambda: torch.full(tensor.shape, rng.choice((float("nan"), float("inf")))),
        "negative": lambda: -tensor - 1 if tensor.is_floating_point() else tensor,
        "sparse": lambda: torch.zeros(tensor.shape).to_sparse(),
        "meta": lambda: tensor.to("meta"),
        "strides": lambda: torch.zeros(()).expand(tensor.shape),
        "huge": lambda: torch.zeros(1).expand(10**6, 10**6),
        "odd": lambda: rng.choice(ODD),
    }
    way = rng.choice((*ways, "gone", "more", "name"))
    if way == "gone":
        del state[name]
    elif way == "more":
        state[rng.choice(("extra", "../x", "", "x" * 5000, "\x1b[31m", "net.x"))] = torch.zeros(2)
    elif way == "name":
        state[rng.choice((3, None, ("a",), b"x"))] = tensor
    else:
        state[name] = ways[way]()
    return f"tensor: {way}"


def field(content: dict[str, Any], key: str, rng: random.Random) -> str:
    """Something else that it holds is another, or gone."""
    holder: Any = content
    while True:
        keys = sorted(holder, key=str) if isinstance(holder, dict) else range(len(holder))
        inner_key = rng.choice(list(keys))
        inner = holder[inner_key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.75:
            holder = inner
            continue
        break
    if isinstance(holder, dict) and rng.random() < 0.25:
        del holder[inner_key]
    else:
        holder[inner_key] = rng.choice(ODD)
    return "field"


def code(content: dict[str, Any], key: str, rng: random.Random) -> str:
    """An object whose reading would run something."""
    made = Path(os.environ["FUZZ_OUTSIDE"]) / "executed"
    place = rng.choice((content, content[key], content.setdefault("callbacks", {})))
    place[rng.choice(("x", "epoch", "hyper_parameters"))] = Payload(made)
    return "code"


def archive(data: bytes, rng: random.Random) -> bytes:
    """Members of the file: gone, doubled, named to lie elsewhere, or that unpack to too much."""
    way, stream = rng.randrange(5), io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if way == 4 else 0) as new,
    ):
        members = old.infolist()
        victim = rng.choice(members)
        for member in members:
            body = old.read(member)
            if member is victim and way == 0:
                continue
            if member is victim and way == 1:
                body = body[: rng.randrange(len(body) + 1)]
            if member is victim and way == 2:
                member.filename = rng.choice(("../../outside/x", "/tmp/x", "archive/data.pkl"))
            if way == 4 and member.filename.endswith("data/0"):
                body = bytes(1 << 26)
            new.writestr(member.filename, body)
        if way == 3:
            new.writestr("archive/extra", b"x" * 100)
    return stream.getvalue()


def trial(rng: random.Random, whole: Path, sandbox: Path, keep: bool) -> Trial:
    work = sandbox / "work"
    shutil.copytree(whole, work, dirs_exist_ok=True)
    os.environ["FUZZ_OUTSIDE"] = str(sandbox / "outside")
    foreign = rng.random() < 0.2
    path, key = (work / "model.pth", "model") if foreign else (work / RUN, "state_dict")
    ways, refuse = ["whole"], False
    if not keep:
        ways, data = [], path.read_bytes()
        content = torch.load(path, weights_only=not foreign)
        chosen = rng.sample((tensors, tensors, field, field, code), rng.choice((0, 1, 1, 1, 2)))
        for n, way in enumerate(chosen):
            try:
                ways.append(way(content, key, rng))
            except (LookupError, TypeError, AttributeError):
                if not n:
                    raise
                continue  # the first way left nothing for the second
        refuse = "code" in ways
        stream = io.BytesIO()
        if rng.random() < 0.1:
            pickle.dump(content, stream)
            ways.append("plain pickle")
        else:
            torch.save(content, stream, _use_new_zipfile_serialization=rng.random() < 0.85)
        data = stream.getvalue()
        if not chosen or rng.random() < 0.1:
            is_zip = zipfile.is_zipfile(io.BytesIO(data))
            archived = is_zip and rng.random() < 0.4
            data = archive(data, rng) if archived else flipped(data, rng)
            ways.append("archive" if archived else "bytes")
            refuse = False
        path.write_bytes(data)
        if rng.random() < 0.03:
            ways.append(misplaced(path, sandbox, rng, named=True))
            refuse = False
    if foreign:
        commands = [["import", "qpann", "model.pth", "--arch", ARCH, "--out", "entry"]]
        return Trial(f"published: {' + '.join(ways)}", commands, refuse)
    given = ["--config=r.yaml", f"--ckpt_path={RUN}"]
    commands = [
        rng.choice((["test", *given], ["fit", *given], ["train", "--config=r.yaml"])),
    ]
    if commands[0][0] == "train" and not (work / RUN).is_file():
        refuse = False
    return Trial(f"{commands[0][0]}: {' + '.join(ways)}", commands, refuse)


KIND = Kind(prepare, trial)
