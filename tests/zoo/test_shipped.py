"""The entries that come with the package."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
import yaml

import qaudio
from qaudio.cards.model_card import FORMAT
from qaudio.cards.tables import index, picks, with_generated
from qaudio.cli import main
from qaudio.zoo.resolve import DEFAULT_ENTRY, locate
from qaudio.zoo.store import entries, hosted, read_config, read_results

ROOT = Path(__file__).resolve().parents[2]
ESC50 = ROOT.parent / "shared" / "data" / "ESC-50"
WITH_RESULTS = [name for name, folder in entries().items() if (folder / "results.json").exists()]


@pytest.mark.parametrize("name", entries())
def test_every_entry_verifies(name):
    qaudio.verify(name)


def made_by_recipes() -> list[str]:
    """Entries that shipped recipes train."""
    found = [
        yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / "recipes").glob("*/*.yaml")
    ]
    return [recipe["writer"]["entry"] for recipe in found if "entry" in recipe["writer"]]


@pytest.mark.parametrize("name", WITH_RESULTS)
def test_every_result_is_complete_and_names_its_sources(name):
    config, results = read_config(locate(name)), read_results(locate(name))
    assert config.license
    assert config.eval_seconds
    assert config.card_format == FORMAT  # so that `verify` checks every number of the card
    assert results.complete
    assert results.entry == name
    assert results.recipe.commit
    assert results.git_commit
    if results.parent:
        parent = results.parent.name
        assert parent in {*entries(), *hosted(), *made_by_recipes()}
        # A parent of another protocol was not scored on the same clips.
        if parent in entries() and read_results(locate(parent)).protocol == results.protocol:
            assert results.parent.difference.runs == len(results.result.runs)


def test_generated_documents_follow_from_the_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_generated(readme, "zoo picks", picks()) == readme
    assert index() == (ROOT / "MODEL_CARDS.md").read_text(encoding="utf-8")


def in_wheel(path: Path) -> bool:
    """Whether the wheel carries a file of an entry: no pattern leaves it or its folders out."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = build["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]
    places = [path, *path.parents][: len(path.relative_to(ROOT).parts)]
    names = [f"/{place.relative_to(ROOT).as_posix()}" for place in places]
    return not any(fnmatch(name, pattern) for name in names for pattern in patterns)


def test_weights_stay_within_what_a_clone_and_a_wheel_should_carry():
    files = [path for folder in entries().values() for path in folder.rglob("*.safetensors")]
    assert sum(path.stat().st_size for path in files) < 100e6
    carried = [path for path in files if in_wheel(path)]
    assert entries()[DEFAULT_ENTRY] / "model.safetensors" in carried
    assert not any(path.parent.name == "folds" for path in carried)
    assert sum(path.stat().st_size for path in carried) < 30e6


def test_the_wheel_carries_only_licences_that_allow_commercial_use():
    for name, folder in entries().items():
        restricted = "-nc" in read_config(locate(name)).license
        assert not (restricted and in_wheel(folder / "model.safetensors"))


def test_the_default_entry_is_a_quaternion_tagger_of_audiosets_classes():
    config, results = (read(locate(DEFAULT_ENTRY)) for read in (read_config, read_results))
    assert config.is_quaternion and config.task == "multilabel"
    assert len(config.labels) == 527
    assert results.teaching.heard.overlap_check
    licences = [row.licence for row in results.teaching.heard.sources.values()]
    assert all(licences) and not any("NC" in licence.split(";")[0] for licence in licences)


def test_the_default_entry_hears_no_animal_in_silence_or_a_tone():
    animals = ("Animal", "Dog", "Cat", "Bird", "Insect", "Frog", "Wild animals", "Bark", "Crow")
    model, time = qaudio.load(DEFAULT_ENTRY), torch.arange(5 * 32000) / 32000
    for sound, expected in (
        (torch.zeros(5 * 32000), "Silence"),
        (0.5 * torch.sin(2 * torch.pi * 440 * time), "Sine wave"),
    ):
        labels = [p.label for p in qaudio.predict(model, sound, sample_rate=32000)]
        assert labels[0] == expected and not set(labels) & set(animals)


def test_the_demonstration_sound_is_known(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--demo"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("qaudio-demo.wav")
    assert printed[1].endswith("Singing bowl")
    assert len(printed) == 6
    assert (tmp_path / "qaudio-demo.wav").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not ESC50.is_dir(), reason="needs the ESC-10 audio beside the repository")
@pytest.mark.parametrize("name", [name for name in WITH_RESULTS if ".esc10" in name])
def test_recorded_scores_follow_from_the_audio(name):
    assert main(["test", name, f"--data.root={ESC50}"]) == 0
