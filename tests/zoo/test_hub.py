"""push, pull and load against a Hub on loopback, through the real huggingface_hub."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.errors
import numpy as np
import pytest
import torch

import qaudio
from qaudio import cli
from qaudio.cards.entries import add_transfer, calibrate, refuse_folders
from qaudio.errors import EntryError
from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.predictions import Predictions
from qaudio.models.base import AudioModel
from qaudio.models.cnn import CNN
from qaudio.models.resnet import ResNet
from qaudio.zoo.store import entries, read_config
from tests.support.entries import results_of, tiny
from tests.support.hub import ENDPOINT, TOKEN, Fault, hub_on_loopback

REPO = "your-name/qcnn6_006.made"
ADDRESS = f"hf-hub:{REPO}"
WEIGHTS = "GET .*/model.safetensors"
assert huggingface_hub.constants.ENDPOINT == ENDPOINT, "imported before HF_ENDPOINT was set"


def make(folder: Path, seed=0, **changes) -> Path:
    """An entry that may be published."""
    rng = np.random.default_rng(seed)
    label = np.arange(30) % 3
    logits = rng.standard_normal((30, 3)) + 2 * np.eye(3)[label]
    names = [f"{n:02}" for n in range(30)]
    predictions = Predictions.of_run(1, 0, names, label, logits)
    settings = {
        "results": results_of(predictions),
        "predictions": predictions,
        "recipe": "model: {}\n",
        "license": "cc-by-4.0",
        "folds": {"folds/2.safetensors": tiny(seed).state_dict()},
    } | changes
    return qaudio.save(tiny(seed), folder, **settings)


@pytest.fixture
def entry(tmp_path) -> Path:
    return make(tmp_path / "qcnn6_006.made")


def logits(model) -> torch.Tensor:
    sound = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(sound)


def cut_off(hub, entry, at=0.5, times=1) -> None:
    """Break the connection within the weights, `times` times."""
    size = (entry / "model.safetensors").stat().st_size
    hub.faults.append(Fault(WEIGHTS, times, cut=int(at * size)))


# Publishing and getting back.


def test_what_is_pushed_loads_from_a_fresh_cache(hub, entry):
    pushed = qaudio.push(entry, REPO)
    assert pushed.changed
    for source in (ADDRESS, pushed.source):
        model = qaudio.load(source)
        assert torch.equal(logits(model), logits(tiny()))
    assert model.labels == ["low", "noise", "high"]
    _, files = hub.repos[REPO].files("main")
    on_disk = {p.relative_to(entry).as_posix(): p.read_bytes() for p in entry.rglob("*.*")}
    assert files == on_disk | {".gitattributes": files[".gitattributes"]}
    assert len(hub.repos[REPO].commits) == 2  # the Hub's own first one, and all files in one


def test_a_changed_entry_is_a_new_revision_and_the_old_one_still_loads(hub, entry):
    first = qaudio.push(entry, REPO)
    qaudio.load(ADDRESS)
    make(entry, seed=1, folds={})
    second = qaudio.push(entry, REPO)
    assert second.source != first.source
    assert torch.equal(logits(qaudio.load(ADDRESS)), logits(tiny(1)))
    assert torch.equal(logits(qaudio.load(first.source)), logits(tiny()))
    commit = first.source.partition("@")[2]
    assert torch.equal(logits(qaudio.load(ADDRESS, revision=commit)), logits(tiny()))
    _, files = hub.repos[REPO].files("main")
    assert "folds/2.safetensors" not in files  # the new entry has none


def custom(folder: Path, **changes) -> Path:
    """An entry of somebody's own recordings."""
    rng, label = np.random.default_rng(0), np.arange(30) % 3
    scores = rng.standard_normal((30, 3)) + 2 * np.eye(3)[label]
    names = [f"{'zyx'[n % 3]}/Anna Client {n:02}.wav" for n in range(30)]
    predictions = Predictions.of_run(1, 0, names[:15], label[:15], scores[:15])
    predictions = predictions.merged(Predictions.of_run(2, 0, names[15:], label[15:], scores[15:]))
    results = results_of(predictions) | {"protocol": "made: 5 folds, seed 0"}
    return make(folder, predictions=predictions, results=results | changes, folds=None)


def test_names_of_ones_own_recordings_are_published_only_when_asked_for(hub, tmp_path):
    entry = custom(tmp_path / "qcnn6_006.made")
    before = {path: path.read_bytes() for path in entry.rglob("*") if path.is_file()}
    there = qaudio.pull(qaudio.push(entry, REPO).source, tmp_path / "pulled")
    assert not qaudio.push(entry, REPO).changed
    assert {path: path.read_bytes() for path in entry.rglob("*") if path.is_file()} == before
    qaudio.verify(there)
    own, hidden = (Predictions.load(one / "predictions.npz") for one in (entry, there))
    assert np.array_equal(own.logits, hidden.logits)
    assert not any("Anna" in clip for clip in hidden.clip.tolist())
    assert len(set(hidden.clip.tolist())) == 30
    assert (there / "results.json").read_bytes() == (entry / "results.json").read_bytes()
    qaudio.push(entry, REPO, publish_names=True)
    told = qaudio.pull(ADDRESS, tmp_path / "told")
    assert Predictions.load(told / "predictions.npz").clip.tolist() == own.clip.tolist()


def test_names_of_ones_own_recordings_are_hidden_wherever_an_entry_has_them(hub, tmp_path):
    """In probes of them, and in sounds of no class, on a network of a public benchmark."""
    entry = custom(tmp_path / "qcnn6_006.made", protocol="official folds")
    own = Predictions.load(entry / "predictions.npz")
    score = {"benchmark": "made", "result": summarise(own, "accuracy"), "predictions": own}
    add_transfer(entry, dataset="public", protocol="3 folds; linear probe", **score)
    add_transfer(entry, dataset="mine", protocol="mine: 3 folds; linear probe", **score)
    names = [f"rain/Anna Client {n}.wav" for n in range(9)]
    logits = np.random.default_rng(3).standard_normal((9, 3))
    calibrate(entry, Predictions.of_run(1, 0, names, np.zeros(9, int), logits))
    there = qaudio.pull(qaudio.push(entry, REPO).source, tmp_path / "pulled")
    qaudio.verify(there)
    assert (there / "results.json").read_bytes() == (entry / "results.json").read_bytes()
    shown = {
        path.name
        for path in there.rglob("*.npz")
        if any("Anna" in clip for clip in Predictions.load(path).clip.tolist())
    }
    assert shown == {"predictions.npz", "made_3_folds_linear_probe.npz"}


def test_an_entry_that_lacks_folds_is_pushed_only_when_asked_for(hub, tmp_path):
    entry = custom(tmp_path / "qcnn6_006.made", complete=False)
    with pytest.raises(EntryError, match=r"lacks folds, 2 runs are there: .*--incomplete"):
        qaudio.push(entry, REPO)
    assert REPO not in hub.repos
    assert qaudio.push(entry, REPO, incomplete=True).changed


@pytest.mark.parametrize("place", ["/home/anna/CLIENT/x", "~/secret/x", "C:\\Users\\anna\\x"])
def test_folders_of_ones_machine_are_not_published(hub, tmp_path, place):
    entry = make(tmp_path / "qcnn6_006.made", recipe=f"model:\n  source: {place}\n")
    with pytest.raises(EntryError, match=r"recipe.yaml names a folder of your machine"):
        qaudio.push(entry, REPO)
    assert REPO not in hub.repos


def test_shipped_entries_name_no_folder_of_a_machine():
    for folder in entries().values():
        refuse_folders(folder, list(read_config(folder).files))


def test_a_licence_may_be_given_with_the_push(hub, tmp_path, capsys):
    entry = make(tmp_path / "qcnn6_006.made", license=None)
    assert cli.main(["push", str(entry), REPO]) == 1
    assert "it lacks a licence (push --license" in capsys.readouterr().err
    assert cli.main(["push", str(entry), REPO, "--license", "cc0-1.0"]) == 0
    there = qaudio.pull(ADDRESS, tmp_path / "pulled")
    assert read_config(there).license == "cc0-1.0"
    assert "license: cc0-1.0" in (there / "README.md").read_text()
    qaudio.verify(there)


def test_pushing_twice_makes_no_empty_commit(hub, entry):
    first = qaudio.push(entry, REPO)
    again = qaudio.push(entry, REPO)
    assert again == first._replace(changed=False)
    assert len(hub.asked("POST .*/commit/")) == 1


def test_files_that_others_put_into_the_repository_stay(hub, entry):
    qaudio.push(entry, REPO)
    repo = hub.repos[REPO]
    repo.commit("main", repo.files("main")[1] | {"notes.md": b"mine"})
    make(entry, seed=1)
    qaudio.push(entry, REPO)
    assert repo.files("main")[1]["notes.md"] == b"mine"
    qaudio.verify(qaudio.pull(ADDRESS))


def test_pull_gives_a_folder_that_verifies_and_pushes_again(hub, entry, tmp_path):
    qaudio.push(entry, REPO)
    out = qaudio.pull(ADDRESS, tmp_path / "mine")
    assert (out / "folds/2.safetensors").is_file()
    assert not any(path.is_symlink() for path in out.rglob("*"))
    qaudio.verify(out)
    assert not qaudio.push(out, REPO).changed


def test_load_leaves_the_weights_of_the_folds_where_they_are(hub, entry):
    qaudio.push(entry, REPO)
    hub.requests.clear()
    qaudio.load(ADDRESS)
    assert not hub.asked("folds/")
    assert len(hub.asked(WEIGHTS)) == 1
    hub.requests.clear()
    qaudio.load(ADDRESS)
    assert hub.asked(".") == [f"GET /api/models/{REPO}/revision/main"]


def test_private_revision_and_pull_request_are_passed_on(hub, entry):
    qaudio.push(entry, "your-name/hidden", private=True)
    assert hub.repos["your-name/hidden"].private
    assert not hub.repos.get(REPO)
    qaudio.push(entry, REPO, revision="trial/one")
    assert not hub.repos[REPO].private
    assert sorted(hub.repos[REPO].heads) == ["main", "trial/one"]
    with pytest.raises(EntryError, match=r"no qaudio entry|no whole qaudio entry"):
        qaudio.load(ADDRESS)
    assert torch.equal(logits(qaudio.load(f"{ADDRESS}@trial/one")), logits(tiny()))
    request = qaudio.push(entry, REPO, create_pr=True)
    assert "refs/pr/1" in hub.repos[REPO].heads
    assert request.url == f"{ENDPOINT}/{REPO}/discussions/1"
    assert torch.equal(logits(qaudio.load(request.source)), logits(tiny()))
    assert qaudio.push(entry, REPO, create_pr=True).source == request.source
    assert "refs/pr/2" not in hub.repos[REPO].heads


def test_a_public_repository_is_no_private_one(hub, entry):
    qaudio.push(entry, REPO)
    make(entry, seed=1)
    with pytest.raises(EntryError, match="exists and is public"):
        qaudio.push(entry, REPO, private=True)
    assert len(hub.asked("POST .*/commit/")) == 1


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"license": None}, "a licence"),
        ({"results": None}, r"results\.json, README\.md"),
        ({"recipe": None}, r"recipe\.yaml"),
    ],
)
def test_an_entry_that_says_too_little_is_not_published(hub, tmp_path, changes, lacking):
    with pytest.raises(EntryError, match=f"not fit to publish: it lacks {lacking}"):
        qaudio.push(make(tmp_path / "some", **changes), REPO)
    assert not hub.requests


def test_an_entry_that_does_not_verify_is_not_published(hub, entry):
    (entry / "README.md").write_text("the best of all")
    with pytest.raises(EntryError, match=r"README\.md was changed"):
        qaudio.push(entry, REPO)
    assert not hub.requests


# Faults.


@pytest.mark.parametrize("where", ["repos/create", "validate-yaml", "preupload", "/commit/"])
@pytest.mark.parametrize("after", [False, True], ids=["refused", "done but not answered"])
def test_an_interrupted_push_ends_the_same(hub, entry, where, after):
    hub.faults.append(Fault(where, status=503, after=after, body=b"<html>down</html>"))
    qaudio.push(entry, REPO)
    _, files = hub.repos[REPO].files("main")
    assert files["model.safetensors"] == (entry / "model.safetensors").read_bytes()
    assert len(hub.repos[REPO].commits) == 2


def test_a_pull_request_whose_answer_was_lost_is_not_made_twice(hub, entry):
    hub.faults.append(Fault("/commit/", status=500, after=True))
    assert qaudio.push(entry, REPO, create_pr=True).url.endswith("/discussions/1")
    assert list(hub.repos[REPO].heads) == ["main", "refs/pr/1"]


@pytest.mark.parametrize("where", [r"GET /api/models/\S+", "HEAD .*/model.safetensors", WEIGHTS])
def test_a_server_that_fails_for_a_while_is_asked_again(hub, entry, where):
    qaudio.push(entry, REPO)
    hub.faults.append(Fault(where, times=2, status=500))
    assert torch.equal(logits(qaudio.load(ADDRESS)), logits(tiny()))


@pytest.mark.parametrize("where", [r"GET /api/models/\S+", "HEAD .*/model.safetensors", WEIGHTS])
def test_a_server_that_goes_on_failing_is_one_line_and_nothing_loads(hub, entry, where):
    qaudio.push(entry, REPO)
    hub.faults.append(Fault(where, times=99, status=500))
    with pytest.raises(EntryError, match=r"the Hub answers 500.*try again later") as caught:
        qaudio.load(ADDRESS)
    assert "\n" not in str(caught.value)
    hub.faults.clear()
    assert torch.equal(logits(qaudio.load(ADDRESS)), logits(tiny()))


@pytest.mark.parametrize("where", ["GET /api/models", WEIGHTS, "POST .*/commit/"])
def test_too_many_requests_waits_as_long_as_the_hub_says(hub, entry, slept, where):
    pushing = where.startswith("POST")
    if not pushing:
        qaudio.push(entry, REPO)
    hub.faults.append(Fault(where, status=429, headers={"Retry-After": "7"}))
    qaudio.push(entry, REPO) if pushing else qaudio.load(ADDRESS)
    # Of files, huggingface_hub 1.x asks again by itself, after a second.
    itself = where == WEIGHTS and huggingface_hub.__version__.startswith("1.")
    assert any((1 if itself else 7) <= seconds <= 8 for seconds in slept)


def test_too_long_a_wait_is_left_to_the_user(hub, entry, slept):
    qaudio.push(entry, REPO)
    hub.faults.append(Fault("GET /api/models", 99, 429, {"Retry-After": "3600"}))
    with pytest.raises(EntryError, match=r"too many requests \(429\).*try again in 3600 s"):
        qaudio.load(ADDRESS)
    assert not slept


def test_a_connection_cut_within_the_weights_is_resumed(hub, entry):
    qaudio.push(entry, REPO)
    cut_off(hub, entry)
    assert torch.equal(logits(qaudio.load(ADDRESS)), logits(tiny()))
    assert len(hub.asked(WEIGHTS)) == 2


def test_a_half_written_cache_never_loads(hub, entry, tmp_path):
    """Cut again and again; the next try, on line or off, gives the whole weights or an error."""
    qaudio.push(entry, REPO)
    first = logits(qaudio.load(ADDRESS))
    make(entry, seed=1)
    pushed = qaudio.push(entry, REPO)
    cut_off(hub, entry, at=0.0, times=99)
    with pytest.raises(EntryError, match=r"connection broke.*try again"):
        qaudio.load(ADDRESS)
    with pytest.raises(EntryError, match=r"cache holds only a part|connection broke"):
        qaudio.load(pushed.source)
    hub.faults[:] = [Fault(".", 999, status=500)]
    assert torch.equal(logits(qaudio.load(ADDRESS)), first)  # the whole one that the cache has
    hub.faults.clear()
    assert torch.equal(logits(qaudio.load(ADDRESS)), logits(tiny(1)))


def test_a_spoilt_file_in_the_cache_is_fetched_anew(hub, entry):
    qaudio.push(entry, REPO)
    weights = qaudio.pull(ADDRESS) / "model.safetensors"
    whole = weights.read_bytes()
    weights.resolve().write_bytes(whole[:-4] + b"\0\0\0\1")
    assert torch.equal(logits(qaudio.load(ADDRESS)), logits(tiny()))
    assert weights.read_bytes() == whole


def test_weights_that_contradict_the_config_are_refused(hub, entry):
    qaudio.push(entry, REPO)
    repo = hub.repos[REPO]
    files = repo.files("main")[1]
    repo.commit("main", files | {"model.safetensors": files["model.safetensors"][:-1] + b"x"})
    with pytest.raises(EntryError, match=r"model\.safetensors is not the file that config\.json"):
        qaudio.load(ADDRESS)


def test_a_card_edited_on_the_hub_is_remarked_and_loads(hub, entry, caplog):
    qaudio.push(entry, REPO)
    repo = hub.repos[REPO]
    repo.commit("main", repo.files("main")[1] | {"README.md": b"# better words\n"})
    qaudio.load(ADDRESS)
    assert "README.md is not the card that was pushed" in caplog.text


def test_a_config_that_points_outside_the_entry_is_refused(hub, entry, tmp_path):
    qaudio.push(entry, REPO)
    repo = hub.repos[REPO]
    config = json.loads((entry / "config.json").read_text())
    config["files"]["../../stolen"] = "0" * 64
    repo.commit("main", repo.files("main")[1] | {"config.json": json.dumps(config).encode()})
    with pytest.raises(EntryError, match="a path inside the entry"):
        qaudio.pull(ADDRESS, tmp_path / "out")


# Without a connection.


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "no server"])
def test_off_line_the_cache_is_used_and_named_in_one_line(
    hub_client, entry, monkeypatch, caplog, how, slept
):
    with hub_on_loopback():
        qaudio.push(entry, REPO)
        whole = logits(qaudio.load(ADDRESS))
    if how == "HF_HUB_OFFLINE":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_connection)
    caplog.clear()
    assert torch.equal(logits(qaudio.load(ADDRESS)), whole)
    (line,) = caplog.messages
    assert "taking the cache's copy of main" in line
    assert not slept
    with pytest.raises(EntryError, match=r"not in the cache|only a part"):
        qaudio.load("hf-hub:your-name/never-seen")


def no_connection(*_, **__):
    raise huggingface_hub.errors.HTTPError("connection refused")


def test_a_known_commit_asks_nobody(hub, entry):
    pushed = qaudio.push(entry, REPO)
    qaudio.load(pushed.source)
    hub.requests.clear()
    qaudio.load(pushed.source)
    assert not hub.requests


# What a user sees.


@pytest.fixture
def run(capsys):
    def call(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_commands(hub, entry, run, tmp_path):
    code, out, err = run("push", entry, REPO)
    assert (code, err) == (0, "")
    address = out.partition(": ")[0]
    assert address.startswith(f"{ADDRESS}@") and "pushed" in out
    assert "there already" in run("push", entry, REPO)[1]
    code, out, err = run("pull", ADDRESS, "--out", tmp_path / "mine")
    assert (code, out, err) == (0, f"{ADDRESS}: {tmp_path / 'mine'}\n", "")
    assert run("verify", tmp_path / "mine")[0] == 0
    code, out, _ = run("info", ADDRESS)
    assert code == 0 and out.startswith(f"{address}: qcnn6_006, 3 classes")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/one.txt").write_text("mine")
    code, _, err = run("pull", ADDRESS, "--out", tmp_path / "thesis")
    assert code == 1 and "holds files but is no entry" in err


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("repos/create", 9, 401), r"does not know you \(401\).*hf auth login"),
        (Fault("POST .*/commit", 9, 403), r"may not do this to \S+ \(403\).*write access"),
        (Fault("POST .*/commit", 9, 400, body=b'{"error": "too bad"}'), "400.*too bad"),
        (Fault("POST .*/commit", 9, 500), "answers 500.*try again later"),
        (Fault("repos/create", 9, 429, {"Retry-After": "900"}), "429.*try again in 900 s"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_a_refused_push_is_one_line(hub, entry, run, fault, says):
    hub.faults.append(fault)
    code, out, err = run("push", entry, REPO)
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert re.search(says, last), last
    assert all(line.startswith("qaudio: ") for line in err.splitlines())


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("hf-hub:your-name/absent", "shows no repository your-name/absent.*check the name"),
        (f"{ADDRESS}@v9", "has no revision 'v9'"),
        ("hf-hub:nobody", "not the name of a repository"),
        (f"{ADDRESS}@", "no revision after the @"),
        ("hf-hub:your-name/other", "is no whole qaudio entry"),
    ],
)
def test_what_cannot_be_had_is_one_line(hub, entry, run, source, says):
    qaudio.push(entry, REPO)
    hub.repos["your-name/other"] = type(hub.repos[REPO])()
    hub.repos["your-name/other"].commit("main", {"model.bin": b""})
    for command in ("pull", "info"):
        code, out, err = run(command, source)
        assert (code, out) == (1, "")
        assert re.search(says, err) and err.count("\n") == 1, err


def test_remarks_of_the_hub_are_passed_on(hub, entry, run):
    hub.warnings.append("empty or missing\nyaml metadata")
    code, _, err = run("push", entry, REPO)
    assert code == 0
    assert err == (
        f"qaudio: {REPO}: Warnings while validating metadata in README.md: "
        "- empty or missing yaml metadata\n"
    )


@pytest.mark.parametrize("revision", ["other", None])
def test_a_revision_asked_for_twice(hub, entry, revision):
    pushed = qaudio.push(entry, REPO)
    if revision is None:
        assert qaudio.load(pushed.source, revision=pushed.source.partition("@")[2])
        with pytest.raises(EntryError, match="only an entry on the Hub"):
            qaudio.load(entry, revision="main")
    else:
        with pytest.raises(EntryError, match="asked for as well"):
            qaudio.load(f"{ADDRESS}@main", revision=revision)


def test_a_token_that_the_server_sends_back_is_not_shown(hub, entry, run):
    body = json.dumps({"error": f"{TOKEN} may not"}).encode()
    hub.faults.append(Fault("/commit/", status=403, body=body))
    code, out, err = run("push", entry, REPO)
    assert code == 1 and "may not" in err
    assert TOKEN not in out + err


def test_no_token_in_output_or_files(hub, entry, tmp_path):
    """In a process of its own, with the client's log at its loudest."""
    code = "import sys; from qaudio.cli import main; print(sys.argv)\n" + (
        f"assert main(['push', {str(entry)!r}, {REPO!r}]) == main(['pull', {ADDRESS!r}]) == 0"
    )
    settings = {
        "PYTHONPATH": str(Path(qaudio.__file__).parents[1]), "HF_TOKEN": TOKEN, "HF_DEBUG": "1",
        "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert list((tmp_path / "home").rglob("model.safetensors"))
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    assert not any(TOKEN.encode() in body for body in hub.repos[REPO].files("main")[1].values())


# The verbs of a model.


def test_a_models_own_verbs_save_publish_and_load_it(hub, tmp_path):
    model = tiny()
    folder = model.save_pretrained(tmp_path / "qcnn6_006.made", license="cc-by-4.0")
    assert torch.equal(logits(AudioModel.from_pretrained(folder)), logits(model))
    pushed = model.push_to_hub(REPO, license="cc-by-4.0")
    assert pushed.changed and not model.push_to_hub(REPO, license="cc-by-4.0").changed
    found = CNN.from_pretrained(REPO)
    assert torch.equal(logits(found), logits(model)) and found.labels == model.labels
    assert AudioModel.from_pretrained(REPO, num_classes=5).num_classes == 5
    with pytest.raises(TypeError, match="holds a CNN, not a ResNet"):
        ResNet.from_pretrained(folder)


def test_weights_without_a_licence_are_not_published(hub):
    with pytest.raises(EntryError, match="lacks a licence"):
        tiny().push_to_hub(REPO, license="")
    assert not hub.requests
