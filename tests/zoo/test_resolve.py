import shutil

import pytest

from qaudio.errors import EntryError
from qaudio.zoo import store
from qaudio.zoo.resolve import find_local, list_models, locate


@pytest.fixture
def zoo(tiny_entry, monkeypatch):
    """A zoo with two copies of the tiny entry."""
    folder = tiny_entry.parent
    for name in ("qcnn6_006.esc10", "qcnn6_006.esc10_pruned50"):
        shutil.copytree(tiny_entry, folder / name)
    shutil.rmtree(tiny_entry)
    (folder / "no_entry").mkdir()
    monkeypatch.setattr(store, "zoo_folder", lambda: folder)
    return folder


def test_names_are_filtered(zoo):
    both = ["qcnn6_006.esc10", "qcnn6_006.esc10_pruned50"]
    assert list_models(pretrained=True) == both
    assert list_models(benchmark="esc10") == both
    assert list_models(benchmark="esc1") == []
    for name, there in (("gtzan_sample", "gtzan_sample"), ("gtzan", "gtzan_pruned50")):
        shutil.copytree(zoo / both[0], zoo / f"qcnn6_006.{there}")
        (zoo / f"qcnn6_006.{there}" / "results.json").unlink(missing_ok=True)
        assert list_models(benchmark=name) == [f"qcnn6_006.{there}"]
        shutil.rmtree(zoo / f"qcnn6_006.{there}")
    assert list_models("*_pruned*") == both[1:]
    assert list_models("qcnn6*") == ["qcnn6", *both]


def test_entries_are_found_by_name_and_by_folder(zoo, tmp_path):
    assert locate("qcnn6_006.esc10") == zoo / "qcnn6_006.esc10"
    elsewhere = shutil.copytree(zoo / "qcnn6_006.esc10", tmp_path / "mine")
    assert locate(elsewhere) == elsewhere
    assert locate(str(elsewhere)) == elsewhere


def test_a_folder_of_entries_is_looked_through_first(zoo, tmp_path):
    beside = tmp_path / "runs"
    mine = shutil.copytree(zoo / "qcnn6_006.esc10", beside / "qcnn6_006.esc10")
    assert find_local("qcnn6_006.esc10", beside) == mine
    assert find_local("qcnn6_006.esc10_pruned50", beside) == zoo / "qcnn6_006.esc10_pruned50"


def test_what_is_not_there_is_said_with_what_is(zoo, tmp_path):
    with pytest.raises(EntryError, match=r"similar: qcnn6_006\.esc10"):
        locate("esc10")
    with pytest.raises(EntryError, match="qaudio list"):
        locate("resnet99")
    with pytest.raises(EntryError, match=r"no config\.json"):
        locate(tmp_path)


def test_an_architecture_is_told_from_an_entry(zoo):
    said = (
        r"is an architecture, which qaudio\.create_model builds without weights; similar: qcnn6_006"
    )
    with pytest.raises(EntryError, match=said):
        locate("qcnn6_006")


def test_a_file_of_an_entry_is_not_the_entry(zoo, tmp_path):
    with pytest.raises(EntryError, match=r"safetensors: is a file, an entry is a folder, give"):
        locate(zoo / "qcnn6_006.esc10" / "model.safetensors")
    (tmp_path / "net.onnx").touch()
    with pytest.raises(EntryError, match=r"net\.onnx: is a file, .*: qaudio\.OnnxModel opens it"):
        locate(tmp_path / "net.onnx")


def test_an_entry_that_a_recipe_makes_is_said_with_it():
    with pytest.raises(EntryError, match=r"recipes/emotion/qcnn10_050\.yaml trains it"):
        locate("qcnn10_050.emotion")


def test_a_clone_has_its_zoo_beside_the_package_and_a_wheel_inside(tmp_path, monkeypatch):
    package = tmp_path / "qaudio"
    monkeypatch.setattr(store, "PACKAGE", package)
    assert store.zoo_folder() == package / "zoo" / "entries"
    (tmp_path / "zoo").mkdir()
    assert store.zoo_folder() == package / "zoo" / "entries"  # site-packages may hold a zoo
    (tmp_path / "pyproject.toml").touch()
    assert store.zoo_folder() == tmp_path / "zoo"
