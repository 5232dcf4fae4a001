"""An entry of a stranger, hostile in its files, through every command that takes an entry."""

import argparse
import json
import os
import pickle
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

import qaudio
import qaudio.cards.entries
import qaudio.training.cli
from qaudio.cli import COMMANDS, make_parser
from qaudio.commands.training import TRAINING
from qaudio.errors import QaudioError
from qaudio.zoo.store import files_of
from tests.robustness.fuzz.entries import NAME, made_entry
from tests.robustness.fuzz.sandbox import SECRET, command, content_of, make_sounds, watched
from tests.robustness.fuzz.spoil import Payload, rehash
from tests.robustness.fuzz.tables import RECIPE
from tests.support.comparison import HOSTILE, LABELS
from tests.support.hub import ENDPOINT, Repository

SOURCE = "hf-hub:a-stranger/entry"
WINDOW = ["--window", "0.1"]
TRAINED = ["--config=r.yaml", f"--model.source={NAME}"]
# Each command that takes an entry, as it is called with one.
CALLS = {
    "info": [["info", NAME, "--layers"], ["info", NAME, "--json"]],
    "predict": [["predict", "sounds", "--model", NAME, "--jobs", "1", "--threshold", "entry"]],
    "embed": [["embed", "sounds", "--model", NAME, "--out", "x.npz", "--jobs", "1"]],
    "explain": [["explain", "sounds/dog/0.wav", "--model", NAME, "--out", "x.png", *WINDOW]],
    "listen": [["listen", "--input", "sounds/dog/0.wav", "--model", NAME, *WINDOW]],
    "demo": [["demo", NAME, "--no-browser"]],
    "probe": [["probe", NAME, "--config=r.yaml", "--write"]],
    "calibrate": [["calibrate", NAME, "--outside", "sounds", "--write"]],
    "compare": [["compare", NAME, "--json"], ["compare", NAME, "--html", "x.html"]],
    "verify": [["verify", NAME], ["verify", "--write", NAME]],
    "prune": [["prune", NAME, "--ratio", "0.3", "--min-channels", "4", "--out", "pruned"]],
    "export": [["export", NAME, "--to", "c", "--out", "c"]],
    "push": [["push", NAME, "me/mine", "--incomplete"], ["push", "--space", "me/demo", NAME]],
    "pull": [["pull", SOURCE, "--out", "pulled"]],
    "finetune": [["finetune", "sounds", "--from", NAME, "--probe-only"]],
    "train": [["train", *TRAINED]],
    "crossval": [["crossval", *TRAINED, "--folds=[1]"]],
    "fit": [["fit", *TRAINED]],
    "validate": [["validate", *TRAINED]],
    "test": [["test", NAME, "--data.root=sounds"], ["test", *TRAINED]],
}  # fmt: skip


def takes_entry(name: str) -> bool:
    """Whether a command's options, as the CLI has them, take an entry."""
    if name in TRAINING:
        return True  # --model.source; LightningCLI has their options
    actions = make_parser(name)._actions
    (subs,) = [one for one in actions if isinstance(one, argparse._SubParsersAction)]
    options = subs.choices[name]._actions
    said = " ".join(f"{one.metavar} {one.dest.upper()} {one.help}" for one in options)
    return re.search(r"\bENTRY\b|hf-hub", said) is not None


def test_each_command_that_takes_an_entry_is_given_the_strangers():
    assert {name for name in COMMANDS if takes_entry(name)} == set(CALLS)
    assert all(words[0] == name for name, calls in CALLS.items() for words in calls)


# Ways to make an entry hostile; each is given its folder and the one that must stay as it is.


def every_file(entry: Path, outside: Path) -> None:
    """Each file holds what runs code where it is read by the wrong reader, or names other files."""
    trap = Payload(outside / "executed")
    yaml_trap = f"!!python/object/apply:os.mkdir ['{outside / 'executed'}']\n"
    for name in sorted(files_of(entry)):
        path = entry / name
        if path.suffix == ".json":
            path.write_text(json.dumps(elsewhere(json.loads(path.read_text()))))
        elif path.suffix in (".yaml", ".md"):
            path.write_text(f"---\n{yaml_trap}---\n" if path.suffix == ".md" else yaml_trap)
        elif path.suffix == ".npz":
            with np.load(path) as file:
                keys = list(file)
            np.savez(path, **dict.fromkeys(keys, np.array([trap], dtype=object)))
        elif path.suffix == ".safetensors":
            torch.save({"classifier.weight": trap}, path)
        else:
            path.write_bytes(pickle.dumps(trap))


def elsewhere(document, key="x"):
    """A document whose texts, and names in `files`, lead out of the entry."""
    if isinstance(document, dict):
        inner = {name: elsewhere(value, name) for name, value in document.items()}
        return inner | ({"../outside/secret.txt": "0" * 64} if key == "files" else {})
    if isinstance(document, list):
        return [elsewhere(one, key) for one in document]
    return "../outside/secret.txt" if isinstance(document, str) else document


def all_but(*kept: str):
    """Every file but some: what is read after these is reached."""

    def spoil(entry: Path, outside: Path) -> None:
        whole = {name: (entry / name).read_bytes() for name in kept}
        every_file(entry, outside)
        for name, content in whole.items():
            (entry / name).write_bytes(content)

    return spoil


def links(entry: Path, outside: Path) -> None:
    """Every file but config.json is a link to one that is none of the entry's."""
    for name in files_of(entry) - {"config.json"}:
        (entry / name).unlink()
        (entry / name).symlink_to(outside / "secret.txt")


def texts(entry: Path, outside: Path) -> None:
    """All is valid; its texts are markup, formulas and terminal codes, its recipe names places."""
    config, results = (json.loads((entry / f"{n}.json").read_text()) for n in ("config", "results"))
    config["labels"] = ["$", "=cmd()", HOSTILE, "|<b>`x`"]
    config["license"] = HOSTILE
    results |= {"dataset": HOSTILE, "protocol": HOSTILE, "trained_on": [HOSTILE]}
    results["parent"] = {"name": "../outside", "how": HOSTILE}
    for name, document in (("config", config), ("results", results)):
        (entry / f"{name}.json").write_text(json.dumps(document))
    named = {"root": str(outside), "packed": str(outside), "table": str(outside / "secret.txt"),
             "cache_dir": str(outside), "folds": 2, "seconds": 0.2, "num_workers": 9}  # fmt: skip
    recipe = {"data": {"class_path": "qaudio.AudioFolder", "init_args": named}}
    (entry / "recipe.yaml").write_text(yaml.safe_dump(recipe))


HOSTILE_IN = {
    "every file": every_file,
    "all but config": all_but("config.json"),
    "all but config and weights": all_but("config.json", "model.safetensors"),
    "all but config, results and predictions": all_but(
        "config.json", "results.json", "predictions.npz"
    ),
    "links": links,
    "texts": texts,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A whole entry, sounds and a recipe."""
    folder = tmp_path_factory.mktemp("whole")
    make_sounds(folder / "sounds", LABELS)
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    made_entry(folder)
    return folder


@pytest.fixture
def sandbox(whole, tmp_path, hub, monkeypatch) -> SimpleNamespace:
    """A working folder with the entry, and one beside it that must stay unread and unchanged."""
    work, outside = tmp_path / "work", tmp_path / "outside"
    shutil.copytree(whole, work)
    (work / "tmp").mkdir()
    outside.mkdir()
    (outside / "secret.txt").write_text(f"{SECRET},0123456789\n")
    monkeypatch.chdir(work)
    monkeypatch.setenv("QAUDIO_CACHE", str(work / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(work / "hub"))
    monkeypatch.setattr(tempfile, "tempdir", str(work / "tmp"))
    page = SimpleNamespace(build=lambda *_: None, launch=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "qaudio.inference.demo", page)  # a page is not the entry's
    return SimpleNamespace(top=tmp_path, work=work, outside=outside, entry=work / NAME)


def judge(calls: list[list[str]], sandbox: SimpleNamespace, hub_used: bool = False) -> None:
    """Run commands; fails where one does not end well, or does what an entry must not cause."""
    before, to_hub = content_of(sandbox.outside), f"('127.0.0.1', {ENDPOINT.rpartition(':')[2]})"
    with watched(sandbox.top, sandbox.work) as events:
        faults = [fault for _, fault in map(command, calls) if fault]
    assert not [event for event in events if not (hub_used and to_hub in event)]
    assert not faults
    assert content_of(sandbox.outside) == before


@pytest.mark.parametrize("how", HOSTILE_IN)
@pytest.mark.parametrize("name", CALLS)
def test_a_strangers_entry_runs_nothing_and_touches_nothing_else(how, name, sandbox, hub):
    HOSTILE_IN[how](sandbox.entry, sandbox.outside)
    rehash(sandbox.entry)
    files = {one: (sandbox.entry / one).read_bytes() for one in files_of(sandbox.entry)}
    hub.repos["a-stranger/entry"] = Repository()
    hub.repos["a-stranger/entry"].commit("main", files)
    judge(CALLS[name], sandbox, hub_used=name in ("push", "pull"))


@pytest.mark.slow
def test_a_strangers_texts_run_nothing_in_an_onnx_file(sandbox):
    texts(sandbox.entry, sandbox.outside)
    rehash(sandbox.entry)
    predict = ["predict", "sounds", "--model", "x.onnx", "--jobs", "1"]
    judge([["export", NAME, "--out", "x.onnx"], predict], sandbox)


def test_what_is_watched_for_is_noticed(sandbox):
    trap = pickle.dumps(Payload(sandbox.outside / "executed"))
    with watched(sandbox.top, sandbox.work) as events:
        pickle.loads(trap)
        os.system("true")
        (sandbox.outside / "secret.txt").read_text()
        with pytest.raises(QaudioError):
            qaudio.load(sandbox.work / "nothing")
    assert {event.split()[0] for event in events} == {"pickle.find_class", "os.system", "open"}
    assert (sandbox.outside / "executed").is_dir()
