import copy

import pytest
import yaml
from test_entry import results_of
from test_results import made

from qaudio.zoo.card import facts, readme_with_table, render, table
from qaudio.zoo.catalog import EntryError

CONFIG = {
    "architecture": "qcnn10_050",
    "num_classes": 10,
    "labels": ["dog", "rain"],
    "frontend": {"sample_rate": 32000},
    "license": "cc-by-3.0",
}


@pytest.fixture
def results():
    found = results_of(made(), "qcnn10_050.esc10_pruned50")
    found |= {"benchmark": "esc10", "protocol": "ESC-50 official 5 folds"}
    found["parent"] = {
        "name": "qcnn10_050.esc10",
        "how": "pruned from",
        "kept": {"params": 0.27, "macs": 0.25},
        "difference": {"mean": -0.0125, "interval95": [-0.031, 0.0049]},
    }
    return found


def test_metadata_is_yaml_that_says_what_the_hub_asks_for(results):
    _, metadata, text = render(CONFIG, results).split("---\n", 2)
    found = yaml.safe_load(metadata)
    assert found["license"] == "cc-by-3.0"
    assert found["library_name"] == "qaudio"
    assert found["pipeline_tag"] == "audio-classification"
    assert found["base_model"] == "qcnn10_050.esc10"
    (result,) = found["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == results["result"]["mean"]
    assert text.startswith("\n# qcnn10_050.esc10_pruned50\n")


def test_the_text_holds_the_facts(results):
    text = render(CONFIG, results)
    mean = 100 * results["result"]["mean"]
    for fact in (
        f"**{mean:.1f} %**",
        "ESC-50 official 5 folds",
        "-1.2 points, 95 % interval -3.1 to +0.5",
        "27.0% of the parameters, 25.0% of the MACs",
        'qaudio.load("qcnn10_050.esc10_pruned50")',
        "Weights: cc-by-3.0",
        "Piczak",
        "## Limits",
    ):
        assert fact in text


def test_every_number_shown_changes_the_card(results):
    """So that `verify` sees a change of any of them."""
    card = render(CONFIG, results)
    for path in (("result", "mean"), ("result", "std"), ("cost", "params"), ("cost", "macs"),
                 ("cost", "bytes"), ("parent", "difference", "mean"), ("parent", "kept", "macs"),
                 ("training", "wall_seconds"), ("complete_runs_scored",)):  # fmt: skip
        changed = copy.deepcopy(results)
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = holder[path[-1]] * 2 + 10**10
        assert render(CONFIG, changed) != card, path


def test_unfinished_results_are_marked_everywhere(results):
    results["complete"] = False
    assert "Not complete" in render(CONFIG, results)
    assert "runs so far" in table([results], "")
    assert "runs so far" in dict(facts(results))["accuracy"]


def test_an_unknown_benchmark_and_no_licence_are_said_in_words(results):
    text = render(CONFIG | {"license": None}, results | {"benchmark": "my_sounds", "parent": None})
    assert "Weights: not stated" in text
    assert "license:" not in text.split("---\n")[1]


def test_the_readmes_table_is_replaced_between_its_markers(results, tmp_path):
    text = "a\n<!-- zoo table: generated -->\nold\n<!-- end of zoo table -->\nz\n"
    made_anew = readme_with_table(text, tmp_path)
    assert "old" not in made_anew
    assert made_anew.startswith("a\n") and made_anew.endswith("\nz\n")
    with pytest.raises(EntryError, match="markers"):
        readme_with_table("no markers", tmp_path)
