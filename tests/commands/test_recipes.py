import json

import pytest
import yaml

from qaudio.cli import main
from qaudio.zoo import store


def test_recipes_lists_every_shipped_one_with_what_it_is(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = {line.split()[0] for line in lines}
    shipped = store.recipes_folder().glob("*/*.yaml")
    assert names == {f"{path.parent.name}/{path.stem}" for path in shipped}
    assert all(len(line.split()) > 3 for line in lines)
    assert main(["recipes", "esc10/qcnn10_050", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one == {"name": "esc10/qcnn10_050",
                   "about": "QCNN10 at half width on ESC-10, from scratch."}  # fmt: skip


def test_recipes_copies_one_and_replaces_nothing(tmp_path, capsys):
    out = tmp_path / "mine.yaml"
    assert main(["recipes", "esc10/qcnn10_050", "--out", str(out)]) == 0
    assert yaml.safe_load(out.read_text())["model"]["init_args"]["arch"] == "qcnn10_050"
    out.write_text("mine")
    assert main(["recipes", "esc10/qcnn10_050", "--out", str(out)]) == 1
    assert out.read_text() == "mine" and "is there already" in capsys.readouterr().err


def test_recipes_are_found_in_an_installed_wheel(tmp_path, monkeypatch, capsys):
    (tmp_path / "recipes" / "esc10").mkdir(parents=True)
    (tmp_path / "recipes" / "esc10" / "one.yaml").write_text("# One.\nmodel: {}\n")
    monkeypatch.setattr(store, "PACKAGE", tmp_path)  # no clone around it
    assert main(["recipes"]) == 0
    assert capsys.readouterr().out.split() == ["esc10/one", "One."]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing*"], 1, "no recipe matches 'nothing*'"),
        (["esc10/qcnn10_05", "--out", "x.yaml"], 1, "similar: esc10/qcnn10_050"),
        (["esc10/qcnn10_050", "--out", "x.yaml", "--json"], 2, "without --out"),
    ],
)
def test_recipes_says_what_is_wrong(arguments, code, said, capsys):
    assert main(["recipes", *arguments]) == code
    assert said in capsys.readouterr().err
