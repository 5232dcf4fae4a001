"""`qaudio push --space`: a Space's files, and the Hub on loopback that gets them."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import qaudio
from qaudio import cli
from qaudio.cards.space import write_space
from qaudio.errors import EntryError
from tests.support.networks import small_model

REPO = "your-name/demo"
KEY = f"spaces/{REPO}"


@pytest.fixture
def entry(tmp_path):
    return qaudio.save(small_model("qcnn6_006", 3), tmp_path / "qcnn6_006.made", license="cc0-1.0")


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_space_holds_app_requirements_settings_package_and_entries(entry, tmp_path):
    folder = tmp_path / "space"
    assert write_space([entry], folder) == ["qcnn6_006.made"]
    settings = front((folder / "README.md").read_text())
    assert (settings["sdk"], settings["app_file"]) == ("gradio", "app.py")
    assert settings["sdk_version"].split(".")[0] >= "6" and len(settings["short_description"]) <= 60
    assert "`qcnn6_006.made`, cc0-1.0" in (folder / "README.md").read_text()
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("torchaudio==")]
    assert not [line for line in lines if "extra ==" in line or "pytest" in line]
    assert (folder / "qaudio/cards/model_card.md.jinja").is_file()
    assert not (folder / "qaudio/zoo/entries").exists()
    kept = {path.name for path in (folder / "entries/qcnn6_006.made").iterdir()}
    assert kept <= {"config.json", "model.safetensors", "README.md"}
    loaded = qaudio.load(folder / "entries" / "qcnn6_006.made")
    assert loaded.num_classes == 3


def test_space_app_builds_the_page_of_demo_from_what_lies_beside_it(entry, tmp_path):
    """In a process of its own, in the Space's folder; gradio's part is replaced."""
    folder = tmp_path / "space"
    write_space([entry], folder)
    tree = ast.parse((folder / "app.py").read_text())
    assert [node.module for node in tree.body if isinstance(node, ast.ImportFrom)] == [
        "pathlib", "qaudio.data.demo", "qaudio.inference.demo",
    ]  # fmt: skip
    code = (
        "import runpy, qaudio, qaudio.inference.demo as demo\n"
        f"assert qaudio.__file__.startswith({str(folder.resolve())!r}), qaudio.__file__\n"
        "demo.build = lambda models, example, note: (list(models), example.is_file(), note)\n"
        "demo.launch = lambda page, host: print(page, host)\n"
        "runpy.run_path('app.py', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True,
        env={"PYTHONPATH": str(folder.resolve()), "PATH": "", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = (["qcnn6_006.made"], True, "Sounds are analysed on this Space.")
    assert done.stdout == f"{expected} None\n"


def test_space_needs_a_licence_for_what_it_publishes(tmp_path):
    found = qaudio.save(small_model("qcnn6_006", 3), tmp_path / "qcnn6_006.made")
    with pytest.raises(EntryError, match="has no licence, and is published: give --license"):
        write_space([found], tmp_path / "space")
    write_space([found], tmp_path / "other", license="cc-by-4.0")
    config = json.loads((tmp_path / "other/entries/qcnn6_006.made/config.json").read_text())
    assert config["license"] == "cc-by-4.0"


def test_space_refuses_two_entries_of_one_name(entry, tmp_path):
    other = tmp_path / "other" / entry.name
    shutil.copytree(entry, other)
    with pytest.raises(EntryError, match="two of the entries are named"):
        write_space([entry, other], tmp_path / "space")


def test_push_space_publishes_the_files_and_takes_old_ones_away(hub, entry, capsys):
    assert cli.main(["push", "--space", REPO, str(entry)]) == 0
    assert f"spaces/{REPO}: pushed, " in capsys.readouterr().out
    asked = hub.bodies["create"]
    assert (asked["type"], asked["sdk"]) == ("space", "gradio")
    _, files = hub.repos[KEY].files("main")
    assert {"app.py", "requirements.txt", "README.md"} <= files.keys()
    assert "entries/qcnn6_006.made/model.safetensors" in files and "qaudio/cli.py" in files
    assert REPO not in hub.repos
    renamed = entry.parent / "qcnn6_006.other"
    entry.rename(renamed)
    assert cli.main(["push", "--space", REPO, str(renamed)]) == 0
    _, files = hub.repos[KEY].files("main")
    assert not [path for path in files if path.startswith("entries/qcnn6_006.made/")]
    assert ".gitattributes" in files


def test_push_space_private_is_not_put_into_a_public_one(hub, entry, capsys):
    assert cli.main(["push", "--space", REPO, str(entry)]) == 0
    assert cli.main(["push", "--space", REPO, str(entry), "--private"]) == 1
    assert "exists and is public" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space", "demo"], "is not a name such as your-name/demo"),
        (["--space", REPO, "--create-pr"], "goes with --private and --license alone"),
        (["only-one"], "give an entry and a repository's name"),
        (["a", "b/c", "d"], "give an entry and a repository's name"),
    ],
)
def test_push_refuses_wrong_usage(arguments, said, capsys):
    assert cli.main(["push", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_space_folder_names_no_folder_of_this_machine(entry, tmp_path):
    write_space([entry], tmp_path / "space")
    for name in ("app.py", "README.md", "requirements.txt"):
        assert str(Path.home()) not in (tmp_path / "space" / name).read_text()
