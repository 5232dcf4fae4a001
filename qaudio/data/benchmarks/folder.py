"""Your own recordings: a folder for each class, or a table of files and labels."""

import hashlib
import json
import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

from qaudio.data.audio import CONVERT, SOUNDS, UNREAD, display_name, sound_files
from qaudio.data.benchmarks.registry import benchmarks, register_benchmark
from qaudio.data.clip import Clip
from qaudio.data.datamodule import AudioDataModule
from qaudio.data.shards import FACTS
from qaudio.data.split import TEST, TRAINING, VALIDATION
from qaudio.data.splits import grouped_folds
from qaudio.data.tables import look_alike, normal, read_rows
from qaudio.data.usable import NAMED, first_of, warn
from qaudio.errors import DataError, InputError
from qaudio.paths import expanded
from qaudio.text import UNSHOWN, shown

PARTS = {
    "train": TRAINING, "training": TRAINING, "test": TEST, "val": VALIDATION, "valid": VALIDATION,
    "validation": VALIDATION, "dev": VALIDATION,
}  # fmt: skip
SPECIAL = ("file", "label", "split", "group")
LONGEST_LABEL = 200  # characters
NO_LABELS = ("nan", "none", "null", "n/a", "<na>", "#n/a")  # as other programs write a gap
UNUSABLE = re.compile(r'[/\\:*?"<>|\x00-\x1f]|^\.|\.$|^$')  # in a folder's name, on some system


@register_benchmark()
class AudioFolder(AudioDataModule):
    """Sound files of your own.

    Without a table, `root/CLASS/…` holds the files of each class, at any depth. With one, its
    columns are

    - `file`: path, absolute or relative to root;
    - `label`: class name. Without this column every further column is a class, 1 for each file
      that belongs to it and 0 for the others: a multi-label set (train it with
      `--model.task multilabel`);
    - `group` (optional): what the recording comes from (source, speaker, place): files of one
      group never sit on two sides of a split;
    - `split` (optional): train, validation or test. Without it the clips are split into folds,
      stratified by class.

    Args:
        root: folder of the recordings.
        table: CSV or Parquet file (Parquet needs pyarrow).
        name: of the set, as entry names and cards have it (`qcnn10_050.NAME`). A parent trained
            on a set of the same name counts as having seen these recordings. Not a benchmark's.
        group_pattern: regular expression whose first group, found in a file's path below root (or
            below the folder of all files, where a table names some outside), is the group of a
            file that no table gives one, such as "(speaker[0-9]+)".
        folds: of the split; a table's `split` column takes its place.
        split_seed: another one gives another split.
        **settings: of `AudioDataModule`; a `packed` set brings name, classes and split along.
    """

    published = False
    groups: dict[str, str]  # of the clips that have one, by id, once `read_clips` has run
    scored_on = (*AudioDataModule.scored_on, "name", "folds", "split_seed")
    layout = "CLASS/FILE.wav (or .flac, .ogg, …), a folder for each class; or give --data.table"

    def __init__(
        self,
        root: str = "data/my_sounds",
        *,
        table: str | None = None,
        name: str = "folder",
        group_pattern: str | None = None,
        folds: int = 5,
        split_seed: int = 0,
        **settings: Any,
    ):
        super().__init__(root, **settings)
        if UNUSABLE.search(name):
            raise InputError(
                f"name {name!r} becomes part of an entry's name: letters, digits, - and _ serve"
            )
        if name in benchmarks():
            raise InputError(
                f"name {name!r} is a benchmark's, and cards would say that these are its "
                "recordings: give them another"
            )
        if folds < 2:
            raise InputError(f"folds must be at least 2, not {folds}")
        try:
            self.group_pattern = None if group_pattern is None else re.compile(group_pattern)
        except re.error as error:
            raise InputError(f"group_pattern {group_pattern!r}: {error}") from None
        if self.group_pattern is not None and self.group_pattern.groups < 1:
            raise InputError(f"group_pattern {group_pattern!r} has no group in parentheses")
        self.benchmark = self.dataset = name
        self.table = None if table is None else expanded(table)
        self.split_seed = split_seed
        self.groups = {}
        self._base = self.root  # that ids, which are paths, start from
        # Read here, for its columns say how many folds there are.
        self._rows = None if self.table is None else self._read_table(self.table)
        if self._rows and "split" in self._rows[0]:
            self.folds, self.protocol = 1, f"{name}: fixed split of its table"
        else:
            self.folds = folds
            grouped = group_pattern is not None or bool(self._rows and "group" in self._rows[0])
            self.protocol = (
                f"{name}: {folds} folds, stratified, "
                f"{'grouped by source' if grouped else 'every file a source'}, seed {split_seed}"
            )
        if self._rows and "label" not in self._rows[0]:
            self.task = "multilabel"
        if self.packed is not None:
            for fact in FACTS:
                setattr(self, fact, self.packed.facts[fact])

    def read_clips(self) -> tuple[list[Clip], list[str]]:
        rows = self._folder_rows() if self._rows is None else self._rows
        labels, classes = self._classes(rows)
        self._check_labels(labels)
        paths = [_found(self._base / row["file"]) for row in rows]
        ids = [row["file"] for row in rows]
        own = zip(ids, map(self._group, rows), strict=True)
        self.groups = {id: group for id, group in own if group is not None}
        groups = [self.source_of(id) for id in ids]
        if self.folds == 1:
            folds = [PARTS[row["split"].lower()] for row in rows]
            self._check_groups(groups, folds)
        else:
            try:
                folds = grouped_folds(classes, groups, self.folds, self.split_seed)
            except ValueError as error:
                raise DataError(f"{self.root}: {error}: give a smaller --data.folds") from None
        multi = self.task == "multilabel"
        clips = [
            Clip(path, chosen if multi else chosen[0], id, fold)
            for path, chosen, id, fold in zip(paths, classes, ids, folds, strict=True)
        ]
        return clips, labels

    def source_of(self, id: str) -> str:
        """What a clip comes from: its group, or itself where it has none."""
        return f"group {self.groups[id]}" if id in self.groups else f"file {id}"

    def _check_labels(self, labels: list[str]) -> None:
        """Raise DataError for classes that no entry could keep apart, or keep at all."""
        where = self.table or self.root
        for label in labels:
            if UNSHOWN.search(label):  # it would go into config.json, cards and terminals
                raise DataError(f"{where}: class '{shown(label)}' is no plain text")
            if len(label) > LONGEST_LABEL:
                raise DataError(
                    f"{where}: class '{label[:20]}…' has a name of {len(label)} characters, at "
                    f"most {LONGEST_LABEL} are taken"
                )
        if alike := look_alike(labels):
            warn(
                f"{where}: classes {alike[0]!r} and {alike[1]!r} look alike and are trained as "
                "two: give them one name where they are one"
            )
        if len(labels) < 2:
            raise DataError(
                f"{where}: fewer than two classes with clips; expected {self.layout}"
                + (f". Left out: {first_of(self.left_out)}" if self.left_out else "")
            )
        absent = sorted(label for label in labels if label.lower() in NO_LABELS)
        if absent:
            warn(f"{where}: class {', '.join(absent)}: is that a name, or no label at all?")

    def _keep_used(self) -> None:
        """A class none of whose clips can be used is no class."""
        if self.task == "multilabel":
            return
        used = sorted({clip.label for clip in self.clips if isinstance(clip.label, int)})
        if len(used) == len(self.labels):
            return
        gone = [label for n, label in enumerate(self.labels) if n not in used]
        warn(f"no usable clip, so no class: {', '.join(gone)}")
        number = {old: new for new, old in enumerate(used)}
        self.labels = [self.labels[old] for old in used]
        self.clips = [
            replace(clip, label=number[clip.label])  # type: ignore[index]
            for clip in self.clips
        ]
        if len(used) < 2:
            self.clips = []  # or the next `setup` would take them for read
            self._check_labels(self.labels)

    @property
    def split_note(self) -> str:
        """A digest of the clips and their folds: one file more may move many others."""
        if not self.clips:
            return ""
        pairs = sorted((clip.id, clip.fold) for clip in self.clips)
        return f", split {hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:8]}"

    @property
    def held_out(self) -> str:
        """Which clips are scored, in words, once `setup` has run."""
        clips = self._select("scored")
        fold = (
            "its table's split" if self.folds == 1 else f"fold {self.scored_fold} of {self.folds}"
        )
        groups = sorted({self.groups[clip.id] for clip in clips if clip.id in self.groups})
        alone = [clip.id for clip in clips if clip.id not in self.groups]
        of = [f"groups {_some(groups)}"] if groups else []
        of += [f"{'files' if len(alone) > 1 else 'file'} {_some(alone)}"] if alone else []
        return f"{len(clips)} of {len(self.clips)} clips ({fold}): {'; '.join(of)}"

    def _folder_rows(self) -> list[dict[str, str]]:
        """Rows such as a table has, from a folder for each class."""
        if not self.root.is_dir():
            raise DataError(f"{self.root} is no folder: expected {self.layout}")
        rows, empty = [], []
        self.left_out += [
            f"{display_name(path)}: {CONVERT}" for path in sound_files(self.root, UNREAD)
        ]
        for folder in sorted(self.root.iterdir()):
            if folder.name.startswith("."):
                continue
            if not folder.is_dir():
                if folder.suffix.lower() in SOUNDS:
                    self.left_out.append(f"{display_name(folder)}: in no class's folder")
                continue
            found = sound_files(folder)
            if not found:
                empty.append(folder.name)
            rows += [
                {"file": path.relative_to(self.root).as_posix(), "label": normal(folder.name)}
                for path in found
            ]
        if rows and {row["label"].lower() for row in rows} <= PARTS.keys():
            raise DataError(
                f"{self.root}: {', '.join(sorted({row['label'] for row in rows}))} are parts of a "
                "split, not classes: name one of them as root, or give --data.table with the "
                "columns file, label and split"
            )
        self.left_out += [
            f"{display_name(self.root / name)}: a folder without sound files" for name in empty
        ]
        return rows

    def _classes(self, rows: list[dict[str, str]]) -> tuple[list[str], list[tuple[int, ...]]]:
        """Class names, and the class indices of each row."""
        if self.task == "multiclass":
            labels = sorted({row["label"] for row in rows})
            return labels, [(labels.index(row["label"]),) for row in rows]
        labels = [name for name in rows[0] if name not in SPECIAL]
        chosen = [tuple(n for n, name in enumerate(labels) if row[name] == "1") for row in rows]
        return labels, chosen

    def _group(self, row: dict[str, str]) -> str | None:
        """The row's group, None for a file without one."""
        if row.get("group"):
            return row["group"]
        match = self.group_pattern and self.group_pattern.search(row["file"])
        return str(match[1]) if match else None

    def _check_groups(self, groups: list[str], folds: list[int]) -> None:
        parts: dict[str, set[int]] = {}
        for group, fold in zip(groups, folds, strict=True):
            parts.setdefault(group, set()).add(fold)
        split = sorted(group for group, own in parts.items() if len(own) > 1)
        if split:
            raise DataError(
                f"{self.table}: {len(split)} groups sit on two sides of the split: "
                f"{', '.join(split[:5])}"
            )

    def _ids(self, files: list[str]) -> list[str]:
        """Paths as ids, which hold no folders of this machine.

        They are relative to root, or, where a file lies elsewhere, to the folder of all.
        """
        root = os.path.abspath(self.root)
        whole = [os.path.normpath(os.path.join(root, file)) for file in files]
        if not all(path.startswith(os.path.join(root, "")) for path in whole):
            try:
                root = os.path.commonpath([os.path.dirname(path) for path in whole])
            except ValueError:  # on several drives
                return [Path(path).as_posix() for path in whole]
            self._base = Path(root)
        return [Path(os.path.relpath(path, root)).as_posix() for path in whole]

    def _read_table(self, path: Path) -> list[dict[str, str]]:
        """The table's rows as text; raises DataError for what is missing or wrong in it."""
        rows = read_rows(path)
        if not rows or "file" not in rows[0] or len(rows[0]) < 2:
            parted = rows and len(rows[0]) == 1 and re.search(r"[;\t]", next(iter(rows[0])))
            raise DataError(
                f"{path}: expected a column file, and label or a column for each class"
                + (f"; columns are parted by commas, not {parted[0]!r}" if parted else "")
            )
        needed = [
            name for name in rows[0]
            if name in ("file", "label", "split") or (name != "group" and "label" not in rows[0])
        ]  # fmt: skip
        for line, row in enumerate(rows, start=2):
            empty = [name for name in needed if not row.get(name)]
            if empty:
                raise DataError(f"{path}: row {line}: {', '.join(empty)} missing")
            if row.get("split", "train").lower() not in PARTS:
                raise DataError(
                    f"{path}: row {line}: split must be train, validation or test, not "
                    f"{row['split']!r}"
                )
            for name in needed:
                if "label" in row or name in SPECIAL:
                    continue
                row[name] = re.sub(r"\.0+$", "", row[name])  # as pandas writes some
                if row[name] not in ("0", "1"):
                    raise DataError(f"{path}: row {line}: {name} must be 0 or 1, not {row[name]!r}")
        seen: set[str] = set()
        ids = self._ids([row["file"] for row in rows])
        for line, (row, id) in enumerate(zip(rows, ids, strict=True), start=2):
            if id in seen:
                raise DataError(f"{path}: row {line}: {id} is listed twice")
            seen.add(id)
            row["file"] = id
        return rows


def _some(names: list[str]) -> str:
    """The first of some names, which others gave, and how many more there are."""
    more = len(names) - NAMED
    return shown(", ".join(names[:NAMED])) + (f" and {more} more" if more > 0 else "")


def _found(path: Path) -> Path:
    """A file's path as the disk has it, which may be in Unicode's other form."""
    if not path.exists():
        for form in ("NFC", "NFD"):
            other = Path(unicodedata.normalize(form, str(path)))
            if other.exists():
                return other
    return path
