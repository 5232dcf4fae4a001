import copy
import re

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from msgspec.structs import replace

from qaudio.cards import tables
from qaudio.cards.model_card import documents, papers, render
from qaudio.cards.tables import facts, index, table, with_generated
from qaudio.compress.measured import Latency
from qaudio.data.benchmarks.registry import benchmarks
from qaudio.errors import EntryError
from qaudio.evaluation.metrics import most_confused_class, scores_by_class
from qaudio.evaluation.predictions import Predictions
from qaudio.records import parse
from qaudio.zoo.resolve import locate
from qaudio.zoo.schema import Config, Heard, HubBenchmark, Results, Teaching, Transfer
from qaudio.zoo.store import entries, read_config, read_results
from tests.support.entries import results_of, write_records
from tests.support.predictions import made

CONFIG = Config(
    schema_version=1, qaudio_version="0", architecture="qcnn10_050", num_classes=10, widths={},
    frontend={"sample_rate": 32000}, labels=["dog", "rain"], task="multiclass", eval_seconds=5.0,
    license="cc-by-3.0", files={},
)  # fmt: skip
# Identifiers that the Hub knows and that weights here may carry:
# huggingface.co/docs/hub/repositories-licenses.
HUB_LICENCES = {
    "apache-2.0", "mit", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "other", "unknown",
}  # fmt: skip
SHIPPED = [name for name, folder in entries().items() if (folder / "results.json").is_file()]


@pytest.fixture
def results():
    found = results_of(made(), "qcnn10_050.esc10_pruned50")
    found |= {"benchmark": "esc10", "protocol": "ESC-50 official 5 folds"}
    found["parent"] = {
        "name": "qcnn10_050.esc10",
        "how": "pruned from",
        "kept": {"params": 0.27, "macs": 0.25},
        "difference": {"metric": "accuracy", "mean": -0.0125, "interval95": [-0.031, 0.0049],
                       "runs": 3, "clips": 3},
    }  # fmt: skip
    return parse(found, Results)


def write_entry(folder, results, **changes):
    """An entry without weights below a folder."""
    made = replace(results, **changes)
    write_records(folder / made.entry, made, **CONFIG.to_dict() | {"labels": None})


def test_metadata_is_yaml_that_says_what_the_hub_asks_for(results):
    _, metadata, text = render(CONFIG, results).split("---\n", 2)
    found = yaml.safe_load(metadata)
    assert found["license"] == "cc-by-3.0"
    assert found["library_name"] == "qaudio"
    assert found["pipeline_tag"] == "audio-classification"
    assert found["base_model"] == "qcnn10_050.esc10"
    (result,) = found["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == results.result.mean
    assert text.startswith("\n# qcnn10_050.esc10_pruned50\n")


def test_the_text_holds_the_facts(results):
    text = render(CONFIG, results)
    mean = 100 * results.result.mean
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


@pytest.mark.parametrize(
    ("arch", "family", "scratch", "author"),
    [
        ("ast_tiny", "An audio spectrogram transformer", "not transferred from ImageNet", "Gong"),
        ("timm:resnet18", "An image network of timm's", "not from timm's ImageNet", "Wightman"),
    ],
)
def test_networks_that_are_not_panns_say_so_and_where_they_start(
    results, arch, family, scratch, author
):
    config = replace(CONFIG, architecture=arch)
    derived = render(config, results)
    assert f"\n{family} (`{arch}`) for ESC-10" in derived and author in derived
    assert scratch not in derived  # it has a parent
    alone = render(config, replace(results, parent=None))
    assert scratch in alone and "trained from scratch" in alone
    assert "quaternion" not in yaml.safe_load(alone.split("---\n")[1])["tags"]
    assert author not in render(CONFIG, results)


def test_every_number_shown_changes_the_card(results):
    """So that `verify` sees a change of any of them."""
    card = render(CONFIG, results)
    for path in (("result", "mean"), ("result", "std"), ("cost", "params"), ("cost", "macs"),
                 ("cost", "bytes"), ("parent", "difference", "mean"), ("parent", "kept", "macs"),
                 ("training", "wall_seconds"), ("complete_runs_scored",)):  # fmt: skip
        changed = holder = copy.deepcopy(results)
        for name in path[:-1]:
            holder = getattr(holder, name)
        setattr(holder, path[-1], getattr(holder, path[-1]) * 2 + 10**10)
        assert render(CONFIG, changed) != card, path


@pytest.mark.parametrize(
    "how, told", [("pruned from", True), ("pruned and distilled from", True),
                  ("distilled from", False), ("fine-tuned from theirs, distilled from", False)],
)  # fmt: skip
def test_what_a_difference_to_a_parent_is_of(results, how, told):
    results.parent.how = how
    more = ", of what was removed and of the epochs after it" if told else ""
    assert f"interval -3.1 to +0.5{more}.\n" in render(CONFIG, results)


def test_commands_keep_apart_from_what_is_there(results):
    text = render(CONFIG, results)
    assert f"{results.recipe.command} --writer.folder again\n```" in text
    assert "qaudio finetune my_sounds --from qcnn10_050.esc10_pruned50\n```" in text
    results.recipe.command += " --writer.folder mine"
    assert "--writer.folder again" not in render(CONFIG, results)


@pytest.mark.parametrize(
    "benchmark, shared", [("esc10", "source recordings"), ("ravdess", "speakers"), ("gtzan", None)]
)
def test_intervals_say_what_clips_share(results, tmp_path, benchmark, shared):
    results.benchmark = benchmark
    write_entry(tmp_path, results)
    for text in (render(CONFIG, results), index(tmp_path)):
        said = re.findall("clips that share (.*) are not, so", text)
        assert said == ([shared] if shared else [])
        assert "\n\n\n" not in text


def test_unfinished_results_are_marked_everywhere(results):
    results.complete = False
    assert "Not complete" in render(CONFIG, results)
    assert "runs so far" in table([(results, "mit")])
    assert "runs so far" in dict(facts(results))["accuracy"]


def test_latency_is_told_as_the_model_stands_and_optimized(results):
    measured = results.cost.latency = Latency(12.34, 2.0, "a chip", "median of 15")
    assert "12.3 ms, of which front-end 2.0 ms (a chip; median of 15) |" in render(CONFIG, results)
    measured.optimized_milliseconds = 6.54
    assert "front-end 2.0 ms; 6.5 ms by `qaudio.optimize` (a chip" in render(CONFIG, results)
    assert "| 12.3 ms, optimized 6.5 |" in table([(results, "mit")])
    assert dict(facts(results))["latency"] == "12.3 ms, optimized 6.5 (a chip)"


def test_an_unknown_benchmark_and_no_licence_are_said_in_words(results):
    made = replace(results, benchmark="my_sounds", parent=None)
    text = render(replace(CONFIG, license=None), made)
    assert "Weights: not stated" in text
    assert "license:" not in text.split("---\n")[1]


def test_another_licence_of_the_parent_is_said(results):
    results.parent = replace(results.parent, name="theirs", license="cc-by-nc-sa-4.0")
    for own in (None, "mit"):
        text = render(replace(CONFIG, license=own), results)
        assert "They come from those of `theirs` (cc-by-nc-sa-4.0), whose terms hold" in text
    assert "whose terms hold" not in render(replace(CONFIG, license="cc-by-nc-sa-4.0"), results)
    assert dict(facts(results))["parent"].endswith("theirs (cc-by-nc-sa-4.0)")
    results.parent.license = None  # of an entry that was made before it was recorded
    assert "whose terms hold" not in render(replace(CONFIG, license=None), results)


def test_generated_text_is_replaced_between_its_markers():
    text = "a\n<!-- it: generated -->\nold\n<!-- end of it -->\nz\n"
    made = with_generated(text, "it", "new")
    assert made == "a\n<!-- it: generated -->\nnew\n<!-- end of it -->\nz\n"
    for broken in ("none", "<!-- it: generated -->", "<!-- end of it --><!-- it: generated -->"):
        with pytest.raises(EntryError, match="lacks the markers <!-- it: generated --> and"):
            with_generated(broken, "it", "new")


def test_each_protocol_has_a_table_of_its_own(results, tmp_path):
    for name, protocol in (("a.made", "one"), ("b.made", "two"), ("c.made", "one")):
        write_entry(tmp_path, results, entry=name, protocol=protocol)
    first, second = index(tmp_path).split(": two\n")
    assert "a.made" in first and "c.made" in first and "b.made" not in first
    assert "b.made" in second


def predictions_of(results):
    """Three classes: the first always right, the second taken for the third half of the time."""
    label = np.arange(24) % 3
    given = np.where((label == 1) & (np.arange(24) % 2 == 0), 2, label)
    return Predictions.of_run(1, 0, [f"{n:02}" for n in range(24)], label, np.eye(3)[given])


def test_each_class_has_its_score_and_what_it_is_taken_for(results):
    text = render(replace(CONFIG, labels=["dog", "rain", "saw"]), results, predictions_of(results))
    assert "| dog | 8 | 100.0 % |  |" in text
    assert "| rain | 8 | 50.0 % | saw (50.0 %) |" in text
    assert "![Confusion matrix" in text


def test_scores_by_class_are_those_of_an_independent_count(results):
    found, predictions = made(), made().logits.argmax(-1)
    for c, (score, (other, share)) in enumerate(
        zip(scores_by_class(found, "accuracy"), most_confused_class(found), strict=True)
    ):
        own = [int(g) for g, label in zip(predictions, found.label, strict=True) if label == c]
        assert score == pytest.approx(own.count(c) / len(own))
        wrong = [g for g in own if g != c]
        assert share == pytest.approx(max(map(wrong.count, wrong), default=0) / len(own))
        assert (other is None) == (not wrong)


def test_many_classes_are_folded_away(results):
    names = [f"c{n}" for n in range(30)]
    label = np.arange(60) % 30
    many = Predictions.of_run(1, 0, [str(n) for n in range(60)], label, np.eye(30)[label])
    text = render(replace(CONFIG, labels=names, num_classes=30), results, many)
    assert "<details><summary>Class by class</summary>\n\n| class" in text


def test_several_classes_a_clip_have_average_precisions(results):
    label = np.eye(3, dtype=int)[np.arange(12) % 3]
    several = Predictions.of_run(1, 0, [str(n) for n in range(12)], label, label * 2.0 - 1)
    results.result.metric = "mAP"
    text = render(replace(CONFIG, labels=["dog", "rain", "saw"]), results, several)
    assert "| class | clips | AP |" in text
    assert "| rain | 4 | 100.0 % |" in text
    assert "![Confusion" not in text


# What the Hub's own library makes of the cards.


def check_card(text):
    """Read with errors on, and written again as it was, but for where long lines are broken."""
    card = ModelCard(text, ignore_metadata_errors=False)
    metadata = yaml.safe_load(text.split("---\n")[1])
    _, front, body = str(card).split("---\n", 2)
    assert yaml.safe_load(front) == metadata and body == text.split("---\n", 2)[2]
    data = ModelCardData(**metadata, ignore_metadata_errors=False)
    assert data.to_dict() == metadata
    name, found = model_index_to_eval_results(metadata["model-index"])
    assert eval_results_to_model_index(name, found) == metadata["model-index"]
    return card.data, found


def test_the_hubs_library_reads_the_card_and_gives_it_back(results):
    results.parent.name = "hf-hub:your-name/parent@" + "0" * 40
    config = replace(CONFIG, labels=["dog", "rain", "saw"])
    data, (found,) = check_card(render(config, results, predictions_of(results)))
    assert (found.metric_type, found.metric_value) == ("accuracy", results.result.mean)
    assert (found.dataset_name, found.dataset_type) == ("ESC-10", "ashraq/esc50")
    assert found.task_type == data.pipeline_tag == "audio-classification"
    assert data.base_model == "your-name/parent"
    assert data.datasets == ["ashraq/esc50"]
    assert {"quaternion", "pruned"} <= set(data.tags)
    assert data.library_name == "qaudio"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_cards_read_on_the_hub(name):
    text = (entries()[name] / "README.md").read_text(encoding="utf-8")
    data, (found,) = check_card(text)
    assert data.license in HUB_LICENCES
    assert found.metric_value == read_results(locate(name)).result.mean
    for heading in ("Model details", "What it is for", "Use", "Results", "Size and cost",
                    "Limits and biases", "Licence", "Citation"):  # fmt: skip
        assert f"\n## {heading}\n" in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (entries()[name] / link).is_file()
    labels = read_config(locate(name)).labels
    if len(labels) <= 60:  # of hundreds, those without clips are left out
        assert all(label in text for label in labels)


def test_scores_for_a_leaderboard_only_where_the_recipe_names_one(results):
    from huggingface_hub._eval_results import parse_eval_result_entries

    assert list(documents(CONFIG, results, None)) == ["README.md"]
    results.hub_benchmark = HubBenchmark("your-name/sounds", "default")
    made = documents(CONFIG, results, None)
    (entry,) = parse_eval_result_entries(yaml.safe_load(made[".eval_results/esc10.yaml"]))
    assert (entry.dataset_id, entry.task_id) == ("your-name/sounds", "default")
    assert entry.value == results.result.mean


@pytest.mark.parametrize("benchmark", benchmarks())
def test_every_benchmark_says_what_its_data_is_fit_for(benchmark):
    facts = benchmarks()[benchmark]
    assert all((facts.title, facts.about, facts.use, facts.not_for, facts.limits, facts.license))
    cited = papers(CONFIG, benchmark)
    assert len(cited) == 4
    for entry in cited:
        assert entry.startswith("@") and entry.count("{") == entry.count("}")
        assert re.search(r"author +=", entry) and re.search(r"year +=", entry)
    assert (
        len(papers(replace(CONFIG, architecture="timm:mobilenetv3_small_100"), benchmark)) == 2
    )  # timm and the data


def test_the_index_has_every_column(results, tmp_path):
    write_entry(tmp_path, results)
    text = index(tmp_path)
    assert "## ESC-10: ESC-50 official 5 folds" in text
    head, line, row = re.findall(r"^\|.*\|$", text, re.M)
    assert head.count("|") == line.count("|") == row.count("|") == 10
    assert "zoo/qcnn10_050.esc10_pruned50/README.md" in row
    assert row.endswith(f"| {results.cost.bytes:,} | cc-by-3.0 |")


def test_index_lists_transferred_scores_by_protocol(results, tmp_path):
    for name, mean in (("a.made", 0.7), ("b.made", 0.8)):
        probed = [
            Transfer("made", "made", protocol, replace(results.result, mean=mean), "a.npz")
            for protocol in ("five folds; linear probe", "five folds; zero-shot by label map")
        ]
        write_entry(tmp_path, results, entry=name, transfer=probed)
    text = index(tmp_path).partition("## Carried over")[2]
    first, second = text.split("five folds; zero-shot by label map:")
    for part in (first, second):
        assert part.index("[b.made]") < part.index("[a.made]")
        assert "80.0 %" in part and "70.0 %" in part


def test_picks_say_what_a_taught_net_was_scored_against(results, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PICKS", {"a.made": "one thing", "b.made": "another", "c": "none"})
    heard = Heard(sources={}, hours=1.0, held_out=[], overlap_check=None)
    for name, taught in (("a.made", None), ("b.made", Teaching("teacher", 0.1, 5, heard))):
        write_entry(tmp_path, results, entry=name, teaching=taught)
    head, _, first, second = tables.picks(tmp_path).splitlines()
    assert head.startswith("| for | entry | score |")
    assert first.startswith("| one thing | [a.made](zoo/a.made/README.md) |")
    assert "of its teacher's tags" in second and "teacher" not in first
