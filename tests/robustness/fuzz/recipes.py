"""Recipes that are spoilt or forged, and those that lie in entries that are gone on with."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.robustness.fuzz.isolated import captured
from tests.robustness.fuzz.sandbox import Kind, Trial, flipped, misplaced
from tests.robustness.fuzz.spoil import VALUES
from tests.robustness.fuzz.tables import prepare

ENTRY = "zoo/t.folder"
SETTINGS = {
    "trainer": ("max_epochs", "precision", "gradient_clip_val", "accumulate_grad_batches",
                "check_val_every_n_epoch", "limit_train_batches", "callbacks", "logger"),
    "model": ("arch", "frontend", "lr", "schedule", "warmup", "weight_decay", "mixup", "task",
              "spec_augment", "optimizer", "freeze", "thaw_every", "label_smoothing", "source"),
    "data": ("root", "seconds", "folds", "fold", "batch_size", "crop", "segment_hop", "balanced",
             "augment", "seed", "name", "table", "group_pattern", "split_seed", "packed"),
    "writer": ("entry", "keep_folds", "license", "card_fold", "weights", "hub_dataset", "push_to"),
}  # fmt: skip
# A user may ask for any length and size; of these the largest values are left out.
MOST = 64
YAML = (
    "", "[]", "null", "- 1", "x", "\0", "a: [", "data:\n\t- x", "{}", "? [a]\n: b",
    "!!python/object/apply:os.mkdir ['../outside/executed']", "a: &a [*a]", "[" * 5000,
    "data: !!python/name:os.system", "x" * 2_000_000, "trainer: &t {a: *t}", "\ufeffdata: {}",
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
    "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
    "data: [*d,*d,*d,*d,*d,*d,*d,*d,*d]",
)  # fmt: skip


def small(one: Any) -> bool:
    return not isinstance(one, int | float) or isinstance(one, bool) or one <= MOST


def changed(recipe: dict[str, Any], rng: random.Random) -> str:
    """A setting is another, misspelt or in another place."""
    section = rng.choice(sorted(SETTINGS))
    holder = recipe[section]
    holder = holder.get("init_args", holder)
    name = rng.choice(SETTINGS[section])
    way = rng.choice(("value", "value", "value", "value", "misspelt", "gone", "section", "class"))
    odd = [one for one in VALUES if small(one) and one != "\ud800"]
    if way == "value":
        holder[name] = rng.choice(odd)
    elif way == "misspelt":
        holder[rng.choice((name[:-1], name + "s", "", "../x", "\x1b[31m", "x" * 5000, 3))] = 1
    elif way == "gone":
        del holder[rng.choice(sorted(holder))]
    elif way == "section":
        recipe[rng.choice((section, section[:-1], ""))] = rng.choice(odd)
    elif "class_path" in recipe[section]:
        recipe[section]["class_path"] = rng.choice((
            "os.system", "builtins.exec", "qaudio.load", "qaudio.AudioFoldr", "nowhere.Class", "x",
            "qaudio.Classifier", "qaudio.AudioFolder", "qaudio.ESC50", "torch.nn.Linear", 3, None,
            "x" * 5000, "\x1b[31m.x", "..", "pickle.loads",
        ))  # fmt: skip
    return f"{section} {way}"


def spoil(path: Path, sandbox: Path, rng: random.Random, named: bool) -> str:
    way = rng.choice(("settings", "settings", "settings", "settings", "YAML", "bytes", "misplaced"))
    if way == "settings":
        recipe = yaml.safe_load(path.read_text())
        ways = [changed(recipe, rng)]
        path.write_text(yaml.safe_dump(recipe, allow_unicode=True))
        return " + ".join(ways)
    if way == "YAML":
        path.write_text(rng.choice(YAML))
    elif way == "bytes":
        path.write_bytes(flipped(path.read_bytes(), rng))
    elif rng.random() < 0.3:
        way = misplaced(path, sandbox, rng, named)
    return way


def trial(rng: random.Random, whole: Path, sandbox: Path, keep: bool) -> Trial:
    work = sandbox / "work"
    shutil.copytree(whole, work, dirs_exist_ok=True)
    train = ["train", "--config=r.yaml", "--trainer.max_steps=2"]
    if rng.random() < 0.75:
        ways = "whole" if keep else spoil(work / "r.yaml", sandbox, rng, named=True)
        return Trial(ways, [train])
    # The recipe of an entry to which a fold is added.
    from qaudio.cli import main

    os.environ["QAUDIO_CACHE"] = str(work / "cache")
    os.chdir(work)
    with captured():
        assert main(train) == 0, "no entry to go on with"
    ways = "whole" if keep else spoil(work / ENTRY / "recipe.yaml", sandbox, rng, named=False)
    commands = [[*train, "--data.fold=2"], ["test", ENTRY, "--data.root=sounds"]]
    return Trial(f"stored: {ways}", commands)


KIND = Kind(prepare, trial)
