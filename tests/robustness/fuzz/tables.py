"""Tables of files and labels: as people have them, spoilt, or made to harm who reads them."""

from __future__ import annotations

import csv
import io
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml

from tests.robustness.fuzz.sandbox import Kind, Trial, flipped, make_sounds, misplaced
from tests.support.networks import FRONTEND

RECIPE = {
    "trainer": {
        "max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "model": {
        "class_path": "qaudio.Classifier",
        "init_args": {"arch": "qcnn6_006", "frontend": FRONTEND},
    },
    "data": {
        "class_path": "qaudio.AudioFolder",
        "init_args": {"root": "sounds", "seconds": 0.2, "folds": 2, "batch_size": 8},
    },
    "writer": {"entry": "t.folder", "folder": "zoo", "latency": False},
}  # fmt: skip
CELLS = (
    "", " ", "0", "0.0", "1", "1.0", "nan", "None", "a", "A", " a", "a ", "å", "a\u030a", "x,y",
    "$", "$$", "$^$", "\\frac{", "|", "<b>", "`x`", "=1+1", "@x", "\x1b[31mred", "two\nlines", "\0",
    "\u202eback", "x" * 300, "x" * 5000, "x" * 200_000, "train", "test", "TEST", "group", "\ufeff",
    "/etc/hostname", "/dev/zero", "/dev/stdin", "~nosuchuser/x", "C:\\x.wav",
    "s3://bucket/x.wav", "http://localhost/x.wav", "sounds/a/0.wav", ".", "..", "a/../a/0.wav",
    "a/0.wav", "a\\0.wav", "a/9.wav", "a", "%s{}", "1e999", "-1", "2",
)  # fmt: skip
NAMES = ("file", "label", "split", "group", "", "File", "a", "b", "x", "file ", "\ufefffile")
ENCODINGS = ("utf-8-sig", "utf-16", "utf-32", "latin-1", "cp037")


def prepare(folder: Path) -> None:
    make_sounds(folder / "sounds")
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE))


def rows_of(rng: random.Random) -> list[list[str]]:
    """A table that serves, its header first."""
    form = rng.choice(("label", "label", "split", "group", "classes"))
    classes = ("a", "b", "c")
    rows = [["file", *{"classes": classes, "label": ["label"]}.get(form, ["label", form])]]
    for name in classes:
        for take in range(4):
            more = {
                "split": [name, "test" if take == 3 else "train"],
                "group": [name, f"g{take % 2 + 2 * classes.index(name)}"],
                "classes": [str(int(name == one)) for one in classes],
            }
            rows.append([f"{name}/{take}.wav", *more.get(form, [name])])
    return rows


def spoilt(rows: list[list[str]], rng: random.Random) -> str:
    """Change cells, rows or columns; how."""
    way = rng.choice((
        "a cell", "a cell", "a cell", "a name", "a row is longer", "a row is shorter", "no rows",
        "a column twice", "a column gone", "rows twice", "many rows", "many columns",
    ))  # fmt: skip
    row = rng.choice(rows[1:])
    if way == "a cell":
        for _ in range(rng.choice((1, 1, 3, 12))):
            row = rng.choice(rows[1:])
            row[rng.randrange(len(row))] = rng.choice(CELLS)
    elif way == "a name":
        rows[0][rng.randrange(len(rows[0]))] = rng.choice((*NAMES, *CELLS))
    elif way == "a row is longer":
        row.insert(rng.randrange(len(row)), rng.choice(CELLS))
    elif way == "a row is shorter":
        row.pop()
    elif way == "no rows":
        del rows[rng.choice((0, 1)) :]
    elif way == "a column twice":
        for one in rows:
            one.append(one[-1])
    elif way == "a column gone":
        column = rng.randrange(len(rows[0]))
        for one in rows:
            del one[column : column + 1]
    elif way == "rows twice":
        rows += [list(one) for one in rows[1 : rng.choice((2, 13))]]
    elif way == "many rows":
        rows += [[f"a/x{n}.wav", *row[1:]] for n in range(5000)]
    else:
        for n, one in enumerate(rows):
            one += [f"c{k}" if n == 0 else "0" for k in range(3000)]
    return way


def as_csv(rows: list[list[str]], rng: random.Random, whole: bool) -> bytes:
    stream = io.StringIO()
    form: dict[str, Any] = {}
    if not whole and rng.random() < 0.3:
        form = rng.choice((
            {"delimiter": ";"}, {"delimiter": "\t"}, {"quoting": csv.QUOTE_ALL},
            {"quotechar": "'"}, {"lineterminator": "\r"},
        ))  # fmt: skip
    csv.writer(stream, **form).writerows(rows)
    text = stream.getvalue()
    encoding = "utf-8"
    if not whole and rng.random() < 0.15:
        encoding = rng.choice(ENCODINGS)
    if not whole and rng.random() < 0.1:
        text = text.replace(",", ',"', 1) + rng.choice(("", "x" * 3_000_000))  # without an end
    return text.encode(encoding, "replace")


def as_parquet(rows: list[list[str]], rng: random.Random, whole: bool) -> bytes:
    length = max(map(len, rows), default=0)
    names = [*rows[0], *[""] * (length - len(rows[0]))] if rows else []
    cells = [[*row, *[""] * (length - len(row))] for row in rows[1:]]
    columns: list[Any] = [[row[n] for row in cells] for n in range(length)]
    if not whole and columns and rng.random() < 0.5:
        odd: tuple[Any, ...] = (
            None, 1, 0.5, True, b"\xff", [1, 2], {"a": 1}, float("nan"), 10**18,
        )  # fmt: skip
        value, n = rng.choice(odd), rng.randrange(length)
        columns[n] = [value] * len(cells)
    if not whole and columns and rng.random() < 0.15:  # little to read, much to hold
        size = sum(len(str(cell)) for column in columns for cell in column)
        times = max(1, rng.choice((200_000, 50_000_000)) // max(1, size))
        columns = [column * times for column in columns]
    stream = io.BytesIO()
    arrays = [pyarrow.array(column) for column in columns]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names=names), stream)
    return stream.getvalue()


def trial(rng: random.Random, whole: Path, sandbox: Path, keep: bool) -> Trial:
    work = sandbox / "work"
    shutil.copytree(whole, work, dirs_exist_ok=True)
    rows, ways = rows_of(rng), ["whole"]
    if not keep:
        ways = [spoilt(rows, rng) for _ in range(rng.choice((0, 1, 1, 1, 2))) if len(rows) > 1]
    parquet = rng.random() < 0.3
    path = work / rng.choice(("t.parquet", "t.pq") if parquet else ("t.csv", "t.txt", "table"))
    data = (as_parquet if parquet else as_csv)(rows, rng, keep)
    if not keep and rng.random() < 0.2:
        data = flipped(data, rng)
        ways.append("bytes")
    path.write_bytes(data)
    if not keep and rng.random() < 0.05:
        ways.append(misplaced(path, sandbox, rng, named=True))
    given = f"--data.table={path.name}"
    commands = [["pack", "folder", "sounds", "packed", "--set", f"table={path.name}"]]
    if rng.random() < 0.3:
        task = "multilabel" if keep and rows[0][1] == "a" else "multiclass"
        commands.append(["train", "--config=r.yaml", given, f"--model.task={task}"])
    if rng.random() < 0.2:
        commands.append(["finetune", "sounds", "--table", path.name, "--show-recipe"])
    return Trial(f"{'parquet' if parquet else 'csv'}, {' + '.join(ways) or 'other form'}", commands)


KIND = Kind(prepare, trial)
