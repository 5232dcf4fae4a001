from pathlib import Path

import pytest
import torch
import yaml

from qaudio.cli import main
from qaudio.errors import InputError
from qaudio.training.cli import parse
from tests.support.training import results_of

ROOT = Path(__file__).resolve().parents[2]


def test_cli_training_without_a_recipe_or_with_a_wrong_one_is_told_briefly(recipe, capsys):
    assert main(["train"]) == 2
    assert "give a recipe: --config" in capsys.readouterr().err
    assert main(["crossval", *recipe(), "--model.lr=abc"]) == 2
    assert capsys.readouterr().err == (
        "qaudio: model.lr: expected float, not 'abc'; see qaudio crossval --help\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data.bach_size=3"], "unknown setting data.bach_size; similar: data.batch_size"),
        (["--model.schedul=x"], "unknown setting model.schedul; similar: model.schedule"),
        (["--model.mixup.alpa=3"],
         "unknown setting model.mixup.alpa; similar: model.mixup.alpha"),
        (["--trainer.acelerator=cpu"],
         "unrecognized arguments: --trainer.acelerator=cpu; similar: --trainer.accelerator"),
        (["--trainer={max_epcohs: 3}"],
         "unknown setting trainer.max_epcohs; similar: trainer.max_epochs"),
        (["--data=qaudio.ESC51"], "data: there is no class 'qaudio.ESC51'; similar: qaudio.ESC50"),
        (["--model=Clasifier"], "model: there is no class 'Clasifier'; similar: qaudio.Classifier"),
        (["--trainer.max_epochs=few"], "trainer.max_epochs: expected int or null, not 'few'"),
    ],
)  # fmt: skip
def test_cli_wrong_settings_name_the_nearest(recipe, capsys, arguments, said):
    assert main(["train", *recipe(), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"qaudio: {said}") or said in line
    assert line.endswith("; see qaudio train --help")


@pytest.mark.parametrize("given", ["recipes/esc10/qcnn10_50.yaml", "esc10/qcnn10_050"])
def test_cli_a_misspelt_recipe_names_the_nearest(capsys, given):
    assert main(["train", "--config", given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"qaudio: {given}: no such recipe; similar: recipes/esc10/qcnn10_050.")


@pytest.mark.parametrize("section", ["data", "model", "writer", "trainer"])
def test_cli_a_section_that_holds_no_settings_is_one_line(recipe, tmp_path, capsys, section):
    settings = yaml.safe_load(Path(recipe()[1]).read_text()) | {section: 3}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(settings))
    assert main(["train", f"--config={tmp_path / 'wrong.yaml'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"qaudio: {section}")


def test_cli_a_misspelt_section_of_a_recipe_names_the_nearest(recipe, tmp_path, capsys):
    text = Path(recipe()[1]).read_text()
    (tmp_path / "wrong.yaml").write_text(text.replace("data:", "dat:"))
    assert main(["train", f"--config={tmp_path / 'wrong.yaml'}"]) == 2
    assert "unknown setting dat; similar: data" in capsys.readouterr().err


def test_cli_a_killed_reader_of_sounds_is_one_line(recipe, capsys, monkeypatch):
    def killed(*_):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr("qaudio.data.dataset.ClipDataset.__getitem__", killed)
    assert main(["train", *recipe()]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("qaudio: a process that reads sounds was killed")
    assert "--data.num_workers" in said


ABSENT = [
    *(["gpu", "cuda"] if not torch.cuda.is_available() else []),
    *(["mps"] if not torch.backends.mps.is_available() else []),
    "tpu",
]


@pytest.mark.parametrize("device", ABSENT)
def test_cli_a_device_that_is_not_there_says_what_to_give(recipe, capsys, device):
    assert main(["train", *recipe(), f"--trainer.accelerator={device}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(": give --trainer.accelerator cpu")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (["--data.batch_size", "0"], "batch_size must be at least 1, not 0"),
        (["--data.crop", "end"], "data.crop: expected 'start', 'center', not 'end'"),
        (["--model.source", "other"], "give exactly one of arch (from scratch) and source"),
        (["--data", "qaudio.AudioFolder", "--data.table", "none.csv"], "none.csv not found: "),
    ],
)
def test_cli_what_a_constructor_refuses_is_said_without_its_settings(recipe, capsys, setting, said):
    assert main(["train", *recipe(), *setting]) == (2 if "--data.crop" in setting else 1)
    error = capsys.readouterr().err
    assert said in error
    assert "Namespace" not in error


def test_cli_lightnings_adverts_are_not_shown(recipe, capfd, caplog):
    assert main(["fit", *recipe()]) == 0
    out, err = capfd.readouterr()
    assert "litlogger" not in out + err + caplog.text and "litmodels" not in out + err + caplog.text


@pytest.mark.parametrize(
    ("section", "name"),
    [("model", "lr"), ("model", "warmup"), ("model", "weight_decay"), ("model", "thaw_every"),
     ("data", "batch_size"), ("data", "num_workers"), ("data", "root"), ("data", "fold"),
     ("data", "esc10"), ("writer", "folder"), ("writer", "card_fold")],
)  # fmt: skip
def test_cli_null_is_refused_where_a_setting_takes_none(recipe, capsys, section, name):
    arguments = recipe(**{section: {name: None}}) if section != "model" else recipe(
        model={"class_path": "qaudio.Classifier", "init_args": {"arch": "qcnn6_006", name: None}}
    )  # fmt: skip
    assert main(["train", *arguments]) == 1
    assert f"{section}.{name} is null, and takes a value" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["a\0b", "a\udcffb"])
@pytest.mark.parametrize(("section", "name"), [("data", "root"), ("writer", "folder")])
def test_cli_names_that_no_recipe_can_hold_are_one_line(recipe, capsys, section, name, value):
    assert main(["train", *recipe(), f"--{section}.{name}={value}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("qaudio: ") and line.isprintable()


def test_cli_recipes_of_the_package_are_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "recipes/folder/finetune_multilabel.yaml"
    for arguments in (["--config", name], [f"--config={name}"]):
        assert parse(arguments).model.task == "multilabel"
    own = tmp_path / name
    own.parent.mkdir(parents=True)
    own.write_text((ROOT / name).read_text().replace("lr: 0.001", "lr: 0.5"))
    assert parse(["--config", name]).model.lr == 0.5
    with pytest.raises(InputError, match=r"recipes/none\.yaml"):
        parse(["--config=recipes/none.yaml"])


def test_cli_recipe_keeps_what_was_set_to_nothing(recipe, zoo, esc50_tree):
    arguments = [*recipe(data={"seconds": None}), "--folds"]
    entry = zoo / "qcnn6_006.esc10"
    assert main(["crossval", *arguments, "[1]"]) == 0
    kept = yaml.safe_load((entry / "recipe.yaml").read_text())
    assert kept["data"]["init_args"]["seconds"] is None  # 5 where it is not given
    assert "fold" not in kept["data"]["init_args"] and "cache_dir" not in kept["data"]["init_args"]
    again = parse(["--config", str(entry / "recipe.yaml"), f"--data.root={esc50_tree}"])
    assert again.datamodule.seconds is None
    assert main(["test", str(entry), f"--data.root={esc50_tree}"]) == 0
    assert main(["crossval", *arguments, "[1,2]"]) == 0


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("recipes/*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_cli_every_shipped_recipe_parses(path):
    cli = parse(["--config", str(path)])
    arch, _, rest = cli.config.writer.entry.partition(".")
    assert rest.startswith(path.parent.name)
    if path.parent.name != "folder":  # named by what is done, for any architecture
        assert path.stem == arch + rest.removeprefix(path.parent.name)
    assert cli.datamodule.split.benchmark == path.parent.name
    assert cli.datamodule.split.fold == 1


def test_cli_a_single_callback_is_a_list_of_one(recipe, zoo):
    one = {"class_path": "EarlyStopping", "init_args": {"monitor": "train_loss"}}
    texts = []
    for callbacks in (one, [one]):
        arguments = recipe(trainer={"callbacks": callbacks, "max_epochs": 1})
        texts.append(parse(arguments).recipe(arguments, "train").text)
    assert texts[0] == texts[1]
    assert main(["train", *recipe(trainer={"callbacks": one, "max_epochs": 1})]) == 0
    assert "EarlyStopping" in results_of(zoo / "qcnn6_006.esc10")["epoch_choice"]
