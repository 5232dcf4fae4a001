"""Entries of strangers through the commands that use one: predict, embed, prune, test, train."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import yaml

from tests.robustness.fuzz.entries import NAME, made_entry
from tests.robustness.fuzz.sandbox import SECRET, Kind, Trial, make_sounds
from tests.robustness.fuzz.spoil import SPOIL, TIMES, rehash
from tests.robustness.fuzz.tables import RECIPE
from tests.support.comparison import LABELS

# What the recipe of a stranger may name.
NAMED = (
    {"class_path": "os.system", "init_args": {"root": "echo"}},
    {"class_path": "qaudio.AudioFolder", "init_args": {"packed": "../outside"}},
    {"class_path": "qaudio.AudioFolder", "init_args": {"table": "../outside/secret.txt"}},
    {"class_path": "qaudio.AudioFolder", "init_args": {"num_workers": 10**6, "folds": 10**9}},
    {"class_path": "qaudio.AudioFolder", "init_args": {"seconds": 1e29, "folds": 2}},
    {"class_path": "qaudio.AudioFolder", "init_args": {"folds": 2, "seconds": 0.2, "name": "made"}},
    {"class_path": "qaudio.AudioFolder", "init_args": {"cache_dir": "../outside", "folds": 2}},
    {"class_path": "qaudio.ESC50", "init_args": {"download": True}},
    {"class_path": "qaudio.AudioPool", "init_args": {"test_sources": ["a"], "exclude_ids": "/x"}},
    {"class_path": "tests.nowhere.Data"}, {"class_path": 3}, [], "x", None, {"init_args": {}},
)  # fmt: skip


def prepare(folder: Path) -> None:
    make_sounds(folder / "sounds", LABELS)
    model = {"class_path": "qaudio.Classifier", "init_args": {"source": NAME}}
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE | {"model": model}))
    made_entry(folder)


def recipe(entry: Path, rng: random.Random) -> None:
    """The recipe that came with the entry."""
    document = {"model": {"class_path": "qaudio.Classifier"}, "data": rng.choice(NAMED)}
    text = yaml.safe_dump(document)
    if rng.random() < 0.4:
        text = rng.choice((
            "!!python/object/apply:os.mkdir ['../outside/executed']", "a: &a [*a]", "[" * 5000,
            "data: &x {class_path: *x}", "\0", "data:\n\t- x", "{}", "- 1", "x" * 100_000,
            "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
            "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
            "data: [*d,*d,*d,*d,*d,*d,*d,*d,*d]",
        ))  # fmt: skip
    (entry / "recipe.yaml").write_text(text)


def trial(rng: random.Random, whole: Path, sandbox: Path, keep: bool) -> Trial:
    work = sandbox / "work"
    shutil.copytree(whole, work, dirs_exist_ok=True)
    entry, chosen = work / NAME, ["whole"]
    (sandbox / "outside" / "secret.json").write_text(json.dumps({"file": SECRET}))
    if not keep:
        spoil = SPOIL | {"recipe": recipe}
        ways = [name for name in spoil for _ in range(TIMES.get(name, 1))] + ["recipe"] * 4
        chosen = rng.sample(ways, rng.choice((1, 1, 1, 2)))
        for n, way in enumerate(chosen):
            try:
                spoil[way](entry, rng)
            except Exception:
                if not n:
                    raise
        if rng.random() < 0.95:
            rehash(entry)
    given = ["--model", NAME, "sounds"]
    commands = [
        ["predict", *given, "--json", "--jobs", "1"],
        ["embed", *given, "--out", "x.npz", "--jobs", "1"],
        ["prune", NAME, "--ratio", "0.3", "--min-channels", "4", "--out", "pruned"],
        ["test", NAME, "--data.root=sounds"],
        ["train", "--config=r.yaml"],
        ["info", NAME], ["compare", NAME, "--json"],
    ]  # fmt: skip
    if keep:
        commands = [one for one in commands if one[0] != "test"]  # its recipe names no data
        return Trial("whole", rng.sample(commands, 3))
    tested = [commands[3]] * ("recipe" in chosen)
    return Trial(" + ".join(chosen), [*tested, *rng.sample(commands, 3)])


KIND = Kind(prepare, trial)
