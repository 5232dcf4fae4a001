"""What the JSON files of an entry hold, and the check that a file holds it.

A shape is a predicate on a value, a list of one shape (that each element has), a dict of shapes by
key, `Maybe` or `Map`. A key that ends in "?" may be missing; keys that no shape names are let be,
as later versions may write them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from qaudio.models.registry import FAMILIES, MOBILENETS
from qaudio.text import UNSHOWN, one_line

SCHEMA_VERSION = 1
HUB_PREFIX = "hf-hub:"  # of an address on the Hugging Face Hub: hf-hub:org/name[@revision]
# Whose code wrote a checkpoint, and the architectures it has: for `qaudio import`.
IMPORTERS = {
    "panns": FAMILIES,
    "qpann": tuple(f"q{family}" for family in FAMILIES),
    "efficientat": MOBILENETS,
}
MOST_TEXT = 20_000  # characters


def text(value: Any) -> bool:
    """text of one line"""
    return isinstance(value, str) and len(value) <= MOST_TEXT and not UNSHOWN.search(value)


def flag(value: Any) -> bool:
    """true or false"""
    return isinstance(value, bool)


def count(value: Any) -> bool:
    """a whole number from 0"""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def integer(value: Any) -> bool:
    """a whole number"""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def number(value: Any) -> bool:
    """a finite number"""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def positive(value: Any) -> bool:
    """a number above 0"""
    return number(value) and value > 0


def name(value: Any) -> bool:
    """a name without slashes"""
    return text(value) and value not in ("", ".", "..") and not re.search(r"[/\\\0]", value)


def entry(value: Any) -> bool:
    """an entry's name, or its address on the Hub"""
    address = re.compile(r"hf-hub:[\w.-]+/[\w.-]+(@[^\s/]+)?")
    return name(value) or (text(value) and address.fullmatch(value) is not None)


def inside(value: Any) -> bool:
    """a path inside the entry"""
    if not text(value) or not value or "\\" in value or ":" in value:
        return False
    path = PurePosixPath(value)
    return not path.is_absolute() and ".." not in path.parts and str(path) == value != "."


def sha256(value: Any) -> bool:
    """a sha256 in hexadecimal"""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def scalar(value: Any) -> bool:
    """a number or text of one line"""
    return number(value) or text(value)


def setting(value: Any) -> bool:
    """a number, text of one line, or null"""
    return value is None or scalar(value)


class Maybe:
    """A shape, or null."""

    def __init__(self, shape: Any):
        self.shape = shape


class Map:
    """An object whose keys are not known, and the shapes of each key and value."""

    def __init__(self, key: Callable[[Any], bool], value: Any):
        self.key, self.value = key, value


CONFIG: dict[str, Any] = {
    "qaudio_version": text,
    "architecture": text,
    "num_classes": count,
    "widths": Map(text, integer),
    "frontend": Map(text, setting),
    "labels": Maybe([text]),
    "task": text,
    "eval_seconds": Maybe(positive),
    "quaternion?": flag,
    "padded?": flag,
    "license": Maybe(text),
    "files": Map(inside, sha256),
}
RESULT = {
    "metric": text, "mean": number, "std": Maybe(number), "interval95": [number],
    "folds": Map(text, number), "runs": Map(text, number), "clips": count,
}  # fmt: skip
DIFFERENCE = {"metric": text, "mean": number, "interval95": [number], "runs": count, "clips": count}
LATENCY = {
    "milliseconds": number, "frontend_milliseconds": number, "device": text, "method": text,
    "optimized_milliseconds?": Maybe(number),
}  # fmt: skip
# Of nets that were taught by another on unlabelled sound.
TEACHING: dict[str, Any] = {
    "teacher": entry, "tagged_from": number, "least_tagged": count, "embedding_cosine?": number,
    "heard": {
        "sources": Map(
            text, {"recordings": count, "hours": number, "licence": Maybe(text)}
        ),
        "hours": number, "held_out": [text], "overlap_check": Maybe(text),
    },
}  # fmt: skip
RESULTS: dict[str, Any] = {
    "entry": inside,  # a study keeps its cells in folders of their own
    "benchmark": name,
    "dataset": text,
    "protocol": text,
    "epoch_choice": text,
    "complete": flag,
    "complete_runs_scored": count,
    "seeds": [integer],
    "card_fold": integer,
    "card_seed": integer,
    "result": RESULT,
    "parent": Maybe({
        "name": entry, "how": text, "license?": Maybe(text),
        "kept?": Maybe({"params": number, "macs": number}),
        "difference?": Maybe(DIFFERENCE),
    }),
    "trained_on": [text],
    "cost": {
        "params": count, "macs": count, "bytes": count, "seconds": positive,
        "latency": Maybe(LATENCY),
    },
    "recipe": {"command": text, "sha256": text, "commit": Maybe(text)},
    "git_commit": Maybe(text),
    "training": {
        "wall_seconds": number, "wall_seconds_of": Map(text, number), "device": text,
        "precision": text,
    },
    "versions": Map(text, text),
    "teaching?": TEACHING,
    "transfer?": [{
        "benchmark": name, "dataset": text, "protocol": text, "result": RESULT,
        "predictions": inside,
    }],
    # What the same held-out clips score without training the network, of a fine-tuned one.
    "baselines?": [{
        "method": text, "result": RESULT, "difference": DIFFERENCE, "predictions": inside,
    }],
    "hub_benchmark?": Maybe({"dataset_id": text, "task_id": text}),
}  # fmt: skip
SOURCE: dict[str, Any] = {
    "trained_on": [text], "held_out?": Maybe(text), "file?": text, "url?": text,
    "citation?": text,
}  # fmt: skip


def check_config(config: Any) -> None:
    """Raise ValueError for what no config.json of an entry holds."""
    if not isinstance(config, dict):
        raise ValueError("expected an object")
    version = config.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version is {version!r}, this qaudio reads {SCHEMA_VERSION}; a newer qaudio "
            "may read it"
        )
    check(config, CONFIG)
    labels = config["labels"]
    if labels is not None and len(labels) != config["num_classes"]:
        raise ValueError(f"{config['num_classes']} classes, {len(labels)} labels")
    if config["task"] not in ("multiclass", "multilabel"):
        raise ValueError(f"unknown task {config['task']!r}")


def check(document: Any, shape: Any, whole: bool = True, where: str = "") -> None:
    """Raise ValueError naming the first field that has not its shape, or that `whole` misses."""
    if isinstance(shape, Maybe):
        if document is not None:
            check(document, shape.shape, whole, where)
    elif isinstance(shape, list):
        _require(isinstance(document, list), where, "a list", document)
        for n, value in enumerate(document):
            check(value, shape[0], whole, f"{where}[{n}]")
    elif isinstance(shape, dict | Map):
        _require(isinstance(document, dict), where, "an object", document)
        path = f"{where}." if where else ""
        if isinstance(shape, Map):
            for key, value in document.items():
                _require(shape.key(key), f"{where}'s keys", shape.key.__doc__, key)
                check(value, shape.value, whole, path + key)
            return
        for key, own in shape.items():
            plain = key.removesuffix("?")
            if plain in document:
                check(document[plain], own, whole, path + plain)
            elif plain == key and whole:
                raise ValueError(f"key {path + key!r} is missing")
    else:
        _require(bool(shape(document)), where, shape.__doc__, document)


def _require(holds: bool, where: str, expected: str | None, found: Any) -> None:
    if not holds:
        kind = "" if found is None else f"{type(found).__name__} "
        raise ValueError(
            f"{where!r} has the wrong type: expected {expected}, found {kind}"
            f"{one_line(repr(found), 60)}"
        )


def is_custom_dataset(results: dict[str, Any]) -> bool:
    """Whether an entry was trained on somebody's own recordings, under a name of their choice."""
    return results["protocol"].startswith(f"{results['dataset']}: ")
