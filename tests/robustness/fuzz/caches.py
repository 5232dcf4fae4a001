"""What qaudio keeps for itself: decoded sound, a teacher's answers, seconds of forms."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import load_file, save

from tests.robustness.fuzz.entries import NAME, made_entry
from tests.robustness.fuzz.isolated import captured
from tests.robustness.fuzz.sandbox import Kind, Trial, flipped, make_sounds, misplaced
from tests.robustness.fuzz.spoil import Payload
from tests.robustness.fuzz.tables import RECIPE
from tests.support.comparison import LABELS

TRAIN = ["train", "--config=r.yaml", "--overwrite=true"]
ENTRY = "zoo/t.folder"


def prepare(folder: Path) -> None:
    make_sounds(folder / "sounds", LABELS)
    made_entry(folder)
    model = RECIPE["model"]["init_args"] | {"teacher": NAME, "store_teacher": "cache/teacher"}
    recipe = RECIPE | {"model": {"class_path": "qaudio.DistilledClassifier", "init_args": model}}
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))


def filled(work: Path) -> list[Path]:
    """Run the training once; the files of the cache."""
    from qaudio.cli import main

    os.environ["QAUDIO_CACHE"] = str(work / "cache")
    os.chdir(work)
    with captured():
        assert main(TRAIN) == 0, "no cache to spoil"
    return sorted(path for path in (work / "cache").rglob("*.*") if path.is_file())


def array(rng: random.Random) -> bytes:
    """An array of numpy's that is no sound."""
    stream = io.BytesIO()
    shapes = ((0,), (1,), (3, 4), (1600, 1), (), (10**6,))
    kinds = (np.float64, np.int8, np.complex64, np.bool_, "U5", np.float32)
    np.save(stream, np.zeros(rng.choice(shapes), rng.choice(kinds)))
    return stream.getvalue()


def trial(rng: random.Random, whole: Path, sandbox: Path, keep: bool) -> Trial:
    work = sandbox / "work"
    shutil.copytree(whole, work, dirs_exist_ok=True)
    path = rng.choice(filled(work))
    kind, way = path.suffix, "whole"
    if not keep:
        way = rng.choice(("bytes", "bytes", "array", "pickle", "zip", "misplaced", "another"))
        if way == "bytes":
            path.write_bytes(flipped(path.read_bytes(), rng))
        elif way == "array":
            path.write_bytes(array(rng))
        elif way == "pickle":
            trap = Payload(sandbox / "outside" / "executed")
            stream = io.BytesIO()
            np.save(stream, np.array([trap], dtype=object))
            path.write_bytes(rng.choice((pickle.dumps(trap), stream.getvalue())))
        elif way == "zip":
            stream = io.BytesIO()
            np.savez(stream, x=np.zeros(1600, np.float32))
            path.write_bytes(stream.getvalue())
        elif way == "misplaced":
            way = misplaced(path, sandbox, rng)
        elif kind == ".safetensors":
            stored = load_file(path)
            answer = stored["answer"]
            others = (answer[:1], answer.astype("f8"), answer[..., :1], stored["waveform"])
            stored["answer"] = rng.choice(others)
            path.write_bytes(save(stored))
    return Trial(f"{kind}: {way}", [TRAIN, ["verify", ENTRY]])


KIND = Kind(prepare, trial)
