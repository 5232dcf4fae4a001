"""JSON files beside an entry's own, or beside entries: plans, logs of scores, sources."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import yaml

import qaudio
from tests.robustness.fuzz.entries import made_model
from tests.robustness.fuzz.sandbox import Kind, Trial, flipped, make_sounds, misplaced
from tests.robustness.fuzz.spoil import VALUES
from tests.robustness.fuzz.tables import RECIPE

ENTRY = "zoo/tiny.unscored"
SCORED = "zoo/scored.json"
VALIDATION = "runs/t.folder.validation.json"
TRAIN = ["train", "--config=r.yaml"]
CROSSVAL = ["crossval", "--config=r.yaml", "--data.holdout=validation", "--folds=[1]"]
# What reads each file.
READS = {
    f"{ENTRY}/plan.json": ["info", ENTRY],
    f"{ENTRY}/source.json": ["info", ENTRY],
    SCORED: TRAIN,
    VALIDATION: CROSSVAL,
}


def prepare(folder: Path) -> None:
    make_sounds(folder / "sounds")
    data = {"class_path": "qaudio.AudioFolder",
            "init_args": RECIPE["data"]["init_args"] | {"folds": 3}}  # fmt: skip
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE | {"data": data}))
    chosen = qaudio.plan(made_model(), ratio=0.5, min_channels=4)
    source = {"file": "a.pth", "size": 3, "sha256": "0" * 64, "importer": "panns",
              "trained_on": ["AudioSet"], "held_out": None, "url": "https://x.y/a"}  # fmt: skip
    extra = {"plan.json": chosen.to_json(), "source.json": json.dumps(source)}
    qaudio.save(qaudio.prune(made_model(), chosen), folder / ENTRY, extra=extra)
    row = {"benchmark": "folder", "entry": "t.folder", "recipe": "0" * 12, "seed": "0"}
    (folder / SCORED).write_text(json.dumps([row, row | {"seed": "1"}]))
    scores = {"seed": 0, "fold": 2, "score": 0.5, "wall_seconds": 1.0, "recipe": "0" * 12}
    (folder / "runs").mkdir()
    (folder / VALIDATION).write_text(json.dumps({"validation": [scores]}))


def value(document: Any, rng: random.Random) -> str:
    """Some value is another, or gone, or new."""
    holder = document
    while True:
        keys = sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            break
        holder = inner
    way = rng.choice(("gone", "new", "another", "another", "another"))
    if way == "gone":
        del holder[key]
    elif way == "new" and isinstance(holder, dict):
        holder[rng.choice(("", "x", "../x", "\n", "\x1b[31m"))] = rng.choice(VALUES)
    else:
        holder[key] = rng.choice(VALUES)
    return f"value {way}"


def trial(rng: random.Random, whole: Path, sandbox: Path, keep: bool) -> Trial:
    work = sandbox / "work"
    shutil.copytree(whole, work, dirs_exist_ok=True)
    name = rng.choice(sorted(READS))
    path = work / name
    if keep:
        return Trial("whole", [READS[name]])
    way = rng.choice(("value", "value", "value", "bytes", "JSON", "misplaced"))
    if way == "value":
        document = json.loads(path.read_text())
        way = value(document, rng)
        path.write_text(json.dumps(document))
    elif way == "bytes":
        path.write_bytes(flipped(path.read_bytes(), rng))
    elif way == "JSON":
        texts = ("", "null", "[]", "{}", "3", '"x"', "[" * 100_000, "[NaN]", '{"a":' * 50_000,
                 "[" + "0," * 6_000_000 + "0]")  # fmt: skip
        path.write_text(rng.choice(texts))
    else:
        way = misplaced(path, sandbox, rng)
    return Trial(f"{path.name}: {way}", [READS[name]])


KIND = Kind(prepare, trial)
