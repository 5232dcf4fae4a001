"""What every registered benchmark promises."""

import inspect
import re

import pytest

from qaudio.data.benchmarks.registry import about, benchmarks, data_modules
from qaudio.data.datamodule import AudioDataModule
from qaudio.errors import DataError

every = pytest.mark.parametrize("registered", data_modules(), ids=lambda one: one.name)


@every
def test_benchmark_is_registered_under_its_own_name(registered, tmp_path):
    module = registered.load()
    data = module(str(tmp_path))
    assert issubclass(module, AudioDataModule)
    assert not registered.benchmarks or data.benchmark in registered.benchmarks
    assert data.dataset and data.protocol and data.layout


@pytest.mark.parametrize("name", benchmarks())
def test_benchmark_has_the_text_of_its_card(name):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)  # part of entry names
    facts = about(name)
    assert facts.title and facts.about and facts.license
    assert facts.citation.count("{") == facts.citation.count("}")
    assert bool(facts.sharing) == bool(facts.shared)
    re.compile(facts.shared)


@every
def test_benchmark_scores_another_fold_to_choose_recipes(registered, tmp_path):
    module = registered.load()
    for fold in range(1, module(str(tmp_path)).folds + 1):
        tested = module(str(tmp_path), fold=fold).split
        assert tested.scored == tested.fold == fold
        if tested.folds != 2:  # of which none would be left
            chosen = module(str(tmp_path), fold=fold, holdout="validation").split
            assert chosen.scored != fold and chosen.fold == fold


@every
def test_benchmark_says_what_it_expects_where_there_is_nothing(registered, tmp_path):
    data = registered.load()(str(tmp_path / "nothing"), sample_rate=8000)
    with pytest.raises(DataError, match="nothing") as caught:
        data.setup()
    assert "\n" not in str(caught.value)


@every
def test_settings_that_say_what_is_scored_are_settings(registered):
    module = registered.load()
    known = {name for base in module.__mro__[:2] for name in inspect.signature(base).parameters}
    assert set(module.scored_on) <= known


@every
def test_benchmark_is_downloaded_or_says_why_not(registered, tmp_path):
    module = registered.load()
    if module.archive is None:
        with pytest.raises(DataError, match=re.escape(module.not_hosted)):
            module(str(tmp_path), download=True)
    else:
        assert "CC" in module.archive.license
