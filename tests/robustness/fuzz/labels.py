"""Names of classes, files and entries as people and file systems have them, from end to end."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.robustness.fuzz.sandbox import Kind, Trial
from tests.robustness.fuzz.tables import prepare
from tests.support.comparison import HOSTILE_NAME

NAMES = (
    "$", "$$", "$^$", "\\frac{", "$x_{$", "|", "<b>", "`x`", "=1+1", "@x", "-x", "+1", "\x1b[31m",
    "two\nlines", "\u202eback", "x" * 200, "å", "a\u030a", "A ", " A", "a", "1", "1.0", "nan",
    "None", "true", "#", "%s{}", "{x}", "'", '"', "&amp;", "日本", "🎵", "[x](y)", "*x*", "_x_",
    "~", "~root", "a,b", "a;b", "a:b", "c\\d", "\x7f", "\x85", "file", "label", HOSTILE_NAME[:200],
)  # fmt: skip
ENTRIES = ("t.folder", "t.folder", "t.$x_{", "t.a b", "../t", "t/../x", "t.\x1b[31m", "x" * 101,
           "t.folder/cell", ".t", "timm:x.y", "CON", "t.日本", "-t", "")  # fmt: skip


def trial(rng: random.Random, whole: Path, sandbox: Path, keep: bool) -> Trial:
    work = sandbox / "work"
    shutil.copytree(whole, work, dirs_exist_ok=True)
    entry, ways = "t.folder", ["whole"]
    if not keep:
        ways = rng.sample(("class", "class", "file", "entry", "root"), rng.choice((1, 1, 2)))
    root = "sounds"
    if "class" in ways:
        classes = sorted((work / root).iterdir())
        for path, name in zip(classes, rng.sample(NAMES, rng.choice((1, 2, 3))), strict=False):
            path.rename(path.with_name(name))
    if "file" in ways:
        for path in rng.sample(sorted((work / root).rglob("*.wav")), 2):
            path.rename(path.with_name(f"{rng.choice(NAMES)}.wav"))
    if "root" in ways:
        root = rng.choice([name for name in NAMES if not name.startswith("~")])
        (work / "sounds").rename(work / root)
    if "entry" in ways:
        entry = rng.choice(ENTRIES)
    trained = ["crossval", "--config=r.yaml", f"--data.root={root}", f"--writer.entry={entry}"]
    made = f"zoo/{entry}"
    after = [
        ["info", made], ["compare", made, "--html", "x.html"], ["compare", made, "--json"],
        ["predict", "--model", made, "--jobs", "1", "--", root],
        ["predict", "--model", made, "--jobs", "1", "--csv", "x.csv", "--times", "--", root],
        ["explain", "--model", made, "--out", "x.png", "--window", "0.1", "one.wav"],
        ["prune", made, "--ratio", "0.3", "--min-channels", "4", "--out", "pruned"],
        ["pack", "folder", root, "packed", "--set", "folds=2"],
    ]  # fmt: skip
    shutil.copy(whole / "sounds" / "a" / "0.wav", work / "one.wav")
    return Trial(" + ".join(sorted(ways)), [trained, ["verify", made], *rng.sample(after, 3)])


KIND = Kind(prepare, trial)
