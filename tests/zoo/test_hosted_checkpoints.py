"""Hosted checkpoints, from a server on loopback or by hand."""

import json
import re
import shlex
import shutil
import socket
from pathlib import Path

import pytest
import torch

import qaudio
from qaudio import cli
from qaudio.data.split import Split
from qaudio.download import CHUNK
from qaudio.errors import EntryError
from qaudio.models.registry import find
from qaudio.paths import cache_folder
from qaudio.training.leakage import LeakError, load_for_split
from qaudio.zoo import store
from tests.support import golden
from tests.support.server import serving

HOSTED = Path(__file__).parents[2] / "zoo" / "hosted.json"
CSV = "index,mid,display_name\n" + "".join(f"{n},/m/{n},Sound {n}\n" for n in range(527))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("QAUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server in the place of the hosts; it has the class names, and no checkpoint yet."""
    catalogue = json.loads(HOSTED.read_text())
    with serving() as server:
        for facts in (*catalogue["entries"].values(), *catalogue["labels"].values()):
            facts["url"] = f"{server.url}/{facts['file']}"
        server.files["/class_labels_indices.csv"] = CSV.encode()
        zoo = tmp_path / "zoo"
        zoo.mkdir()
        (zoo / "hosted.json").write_text(json.dumps(catalogue))
        monkeypatch.setattr(store, "zoo_folder", lambda: zoo)
        yield server


@pytest.fixture
def no_network(monkeypatch):
    def unknown_host(*_, **__):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", unknown_host)


def serve(server, name: str, tmp_path: Path) -> str:
    """Put a full-size file by the fill rule on the server; returns its path there."""
    file = {"Cnn6": "Cnn6_mAP=0.343.pth", "Cnn14": "Cnn14_mAP=0.431.pth",
            "QCNN14": "980000_iterations.pth"}[name]  # fmt: skip
    path = golden.published_file(name, tmp_path / "published.pth")
    server.files[f"/{file}"] = path.read_bytes()
    path.unlink()
    return f"/{file}"


# The catalogue.


def test_the_catalogue_is_complete_and_invents_nothing():
    catalogue = json.loads(HOSTED.read_text())
    published = {"cnn6", "cnn10", "cnn14", "resnet38", "qcnn14"}
    mobilenets = {f"mn{width}" for width in ("01", "02", "04", "05", "10", "20")}
    assert set(catalogue["entries"]) == {f"{arch}.audioset" for arch in published | mobilenets}
    places = {
        "efficientat": r"https://github\.com/fschmid56/EfficientAT/releases/download/v0\.0\.1/",
        "panns": r"https://zenodo\.org/records/\d+/files/",
        "qpann": r"https://zenodo\.org/records/\d+/files/",
    }
    for name, facts in catalogue["entries"].items():
        assert facts["arch"] == name.partition(".")[0]
        assert find(facts["arch"]).importer == facts["importer"]
        assert re.match(places[facts["importer"]], facts["url"])
        assert facts["file"].replace("=", "%3D") in facts["url"]
        assert facts["citation"]
    # Of one file alone the size and hash are known at first hand.
    known = catalogue["entries"].pop("mn04.audioset")
    assert known["size"] == 4066513 and known["sha256"].startswith("899a8c62")
    everything = [*catalogue["entries"].values(), *catalogue["labels"].values()]
    assert all(facts["size"] is facts["sha256"] is None for facts in everything)


def test_hosted_entries_are_listed_with_those_that_ship(tiny_entry, monkeypatch, capsys):
    shutil.copy(HOSTED, tiny_entry.parent)
    monkeypatch.setattr(store, "zoo_folder", lambda: tiny_entry.parent)
    pretrained = qaudio.list_models(pretrained=True)
    assert {"tiny.made", "cnn14.audioset", "qcnn14.audioset"} <= set(pretrained)
    assert qaudio.list_models("cnn14*", benchmark="audioset") == ["cnn14.audioset"]
    assert cli.main(["list", "*cnn14.*"]) == 0
    cnn14, qcnn14 = sorted(capsys.readouterr().out.splitlines())
    about = "hosted by others, downloaded at first use"
    assert cnn14.split(maxsplit=1) == ["cnn14.audioset", f"{about}  cc-by-4.0"]
    assert qcnn14.split(maxsplit=1) == ["qcnn14.audioset", f"{about}  licence not stated"]
    cli.main(["list", "cnn14.audioset", "--json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert row["pretrained"] is True and row["url"].startswith("https://zenodo.org/")


def test_a_shipped_entry_comes_before_a_hosted_one_of_its_name(tiny_entry, monkeypatch):
    shutil.copy(HOSTED, tiny_entry.parent)
    tiny_entry.rename(tiny_entry.parent / "cnn14.audioset")
    monkeypatch.setattr(store, "zoo_folder", lambda: tiny_entry.parent)
    assert qaudio.load("cnn14.audioset").num_classes == 3
    assert qaudio.list_models(pretrained=True).count("cnn14.audioset") == 1


# Downloading.


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("cnn6.audioset", "Cnn6"),
        pytest.param("cnn14.audioset", "Cnn14", marks=pytest.mark.slow),
        pytest.param("qcnn14.audioset", "QCNN14", marks=pytest.mark.slow),
    ],
)
def test_load_downloads_resumes_and_imports_once(entry, name, server, tmp_path, caplog):
    path = serve(server, name, tmp_path)
    server.breaks = [100 * CHUNK]
    model = qaudio.load(entry)
    assert server.asked(path) == [None, f"bytes={100 * CHUNK}-"]
    downloaded = cache_folder() / "downloads" / path[1:]
    assert downloaded.read_bytes() == server.files[path]
    golden.assert_outputs(model, name)
    assert model.labels[5] == "Sound 5"
    assert "no checksum is published" in caplog.text
    asked = len(server.requests)
    downloaded.unlink()  # the entry is enough from now on
    again = qaudio.load(entry)
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    assert len(server.requests) == asked
    assert not [p for p in (cache_folder() / "entries").rglob(".*") if p.suffix != ".lock"]


def test_a_server_that_ignores_ranges_is_started_over(server, tmp_path):
    path = serve(server, "Cnn6", tmp_path)
    server.ranges, server.breaks = False, [100 * CHUNK]
    golden.assert_outputs(qaudio.load("cnn6.audioset"), "Cnn6")
    assert server.asked(path) == [None, f"bytes={100 * CHUNK}-"]


def test_commands_that_take_an_entry_take_a_hosted_one(server, tmp_path, capsys, write_sound):
    serve(server, "Cnn6", tmp_path)
    assert cli.main(["predict", str(write_sound("a.wav")), "--model", "cnn6.audioset"]) == 0
    out, err = capsys.readouterr()
    assert len(re.findall(r"%  Sound \d+", out)) == 5
    assert all(line.startswith("qaudio: no checksum") for line in err.splitlines())
    assert cli.main(["info", "cnn6.audioset"]) == 0
    out = capsys.readouterr().out
    assert "cc-by-4.0" in out and "Q. Kong et al., PANNs" in out
    assert cli.main(["verify", "cnn6.audioset"]) == 0


def test_a_download_that_is_no_checkpoint_says_what_to_delete(server):
    server.files["/Cnn6_mAP=0.343.pth"] = b"<html>come back later</html>"
    with pytest.raises(EntryError, match=r"not a checkpoint.* delete it and .*\.pth\.json"):
        qaudio.load("cnn6.audioset")
    assert not (cache_folder() / "entries" / "schema1" / "cnn6.audioset").exists()


def test_without_the_class_names_there_is_one_warning(server, tmp_path, caplog):
    serve(server, "Cnn6", tmp_path)
    del server.files["/class_labels_indices.csv"]
    assert qaudio.load("cnn6.audioset").labels is None
    warned = [r for r in caplog.records if "has no class names" in r.getMessage()]
    assert len(warned) == 1
    assert server.url + "/class_labels_indices.csv by hand" in warned[0].getMessage()
    asked, said = len(server.requests), len(caplog.records)
    assert qaudio.load("cnn6.audioset").labels is None
    assert (len(server.requests), len(caplog.records)) == (asked, said)
    (cache_folder() / "downloads" / "class_labels_indices.csv").write_text(CSV)
    assert qaudio.load("cnn6.audioset").labels[526] == "Sound 526"
    qaudio.verify("cnn6.audioset")


# Without a network.


@pytest.mark.parametrize(
    ("entry", "name"),
    [("cnn6.audioset", "Cnn6"), pytest.param("cnn14.audioset", "Cnn14", marks=pytest.mark.slow)],
)
def test_offline_one_line_says_what_to_fetch_and_the_command_then_works(
    entry, name, no_network, tmp_path, capsys, write_sound
):
    facts = store.hosted()[entry]
    assert cli.main(["predict", str(write_sound("a.wav")), "--model", entry]) == 1
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and line.startswith(f"qaudio: {facts.file} cannot be downloaded (no conn")
    with pytest.raises(EntryError) as caught:
        qaudio.load(entry)
    assert line == f"qaudio: {caught.value}"
    by_hand = re.search(r": fetch (\S+) by hand, save it as (.+), then `qaudio (.+)` works$", line)
    url, place, command = by_hand.groups()
    assert url == facts.url
    golden.published_file(name, Path(place))
    assert cli.main(shlex.split(command)) == 0
    golden.assert_outputs(qaudio.load(entry), name)


# Lineage.


def test_weights_of_others_may_be_fine_tuned_on_what_they_never_saw(server, tmp_path):
    serve(server, "Cnn6", tmp_path)
    other = Split("esc10", "ESC-50", "ESC-50 official 5 folds", 1, 5, scored=1)
    assert load_for_split("cnn6.audioset", other, 0).num_classes == 527
    same = Split("audioset", "AudioSet", "any", 1, 5, scored=1)
    with pytest.raises(LeakError, match="trained on AudioSet, on all of it but"):
        load_for_split("cnn6.audioset", same, 0)
