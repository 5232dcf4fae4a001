from statistics import NormalDist

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from qaudio.evaluation import bootstrap
from qaudio.evaluation.bootstrap import bootstrap_interval, paired_difference, summarise
from qaudio.evaluation.metrics import accuracy, mean_average_precision
from qaudio.evaluation.predictions import Predictions
from tests.support.predictions import made, tagged


def test_summary_is_the_mean_over_folds_of_the_mean_over_seeds():
    one = made(folds=(1, 2, 3), seeds=(0, 1))
    result = summarise(one, "accuracy")
    by_fold = [np.mean([accuracy(one.run(s, f)) for s in (0, 1)]) for f in (1, 2, 3)]
    assert result.mean == pytest.approx(np.mean(by_fold), abs=1e-6)
    assert result.std == pytest.approx(np.std(by_fold, ddof=1), abs=1e-6)
    assert list(result.folds) == ["1", "2", "3"]
    assert result.clips == 60
    low, high = result.interval95
    assert low < result.mean < high


def test_the_interval_is_of_the_mean_over_folds():
    """A large fold that is right and a small one that is wrong."""
    label = np.arange(110) % 3
    wrong = np.arange(110) >= 100
    logits = np.eye(3)[np.where(wrong, (label + 1) % 3, label)]
    names = [f"{n:03}" for n in range(110)]
    large = Predictions.of_run(1, 0, names[:100], label[:100], logits[:100])
    small = Predictions.of_run(2, 0, names[100:], label[100:], logits[100:])
    result = summarise(large.merged(small), "accuracy")
    assert result.mean == 0.5
    low, high = result.interval95
    assert low < 0.5 < high


def test_a_paired_difference_is_that_of_the_two_scores():
    """Over unequal folds, and all the seeds that each entry has."""
    one = made(0, folds=(1, 2), seeds=(0, 1), clips=40).merged(made(1, (3,), (0, 1), clips=10))
    other = made(2, folds=(1, 2), seeds=(0, 1, 2), clips=40, skill=1.0).merged(
        made(3, (3,), (0, 1, 2), clips=10, skill=3.0)
    )
    found = paired_difference(one, other)
    expected = summarise(one, "accuracy").mean - summarise(other, "accuracy").mean
    assert found.mean == pytest.approx(expected, abs=2e-6)
    assert found.runs == 6 and found.clips == 90
    assert found.interval95[0] < found.mean < found.interval95[1]


def test_a_paired_difference_weighs_folds_alike():
    """A fold of 40 clips that got worse by a tenth, and one of 10 that got better by half."""

    def right(fold, clips, share):
        label = np.arange(clips) % 3
        answer = np.where(np.arange(clips) < share * clips, label, (label + 1) % 3)
        return Predictions.of_run(fold, 0, [f"{fold}-{n}" for n in range(clips)], label,
                                  np.eye(3)[answer])  # fmt: skip

    before, after = (
        right(1, 40, 0.9).merged(right(2, 10, 0.5)),
        right(1, 40, 0.8).merged(right(2, 10, 1.0)),
    )
    found = paired_difference(after, before)
    assert found.mean == pytest.approx((-0.1 + 0.5) / 2)
    assert found.interval95[0] < 0.2 < found.interval95[1]


def test_seeds_of_other_scale_change_no_interval_of_ranks():
    rng = np.random.default_rng(0)
    names, label = [str(n) for n in range(60)], (rng.random((60, 4)) < 0.4).astype(np.int64)
    logits = label + rng.normal(0, 0.7, label.shape)
    one = Predictions.of_run(1, 0, names, label, logits)
    both = one.merged(Predictions.of_run(1, 1, names, label, 8 * logits - 5))
    alone, found = summarise(one, "mAP"), summarise(both, "mAP")
    assert found.mean == pytest.approx(alone.mean, abs=1e-3)
    assert found.interval95 == pytest.approx(alone.interval95, abs=1e-2)
    assert found.interval95[0] < found.mean < found.interval95[1]


def test_the_interval_of_map_is_the_spread_of_other_draws():
    found = tagged()
    low, high = summarise(found, "mAP").interval95
    rng, drawn = np.random.default_rng(1), []
    for _ in range(300):
        rows = rng.integers(300, size=300)
        drawn.append(average_precision_score(found.label[rows], found.logits[rows]))
    assert (high - low) / (2 * 1.96 * np.std(drawn)) == pytest.approx(1, abs=0.25)
    assert low < summarise(found, "mAP").mean < high


def test_the_interval_of_map_holds_it_where_positives_are_few():
    """Drawn twice, a positive clip ranks above more: of few, every draw's score is the higher."""
    rng = np.random.default_rng(3)
    label = (rng.random((600, 60)) < 0.01).astype(np.int64)
    logits = label + rng.normal(0, 1, label.shape)
    found = Predictions.of_run(1, 0, [f"{n:04}" for n in range(600)], label, logits)
    result = summarise(found, "mAP")
    low, high = result.interval95
    assert low + 0.01 < result.mean < high - 0.01
    drawn = []
    for _ in range(40):
        rows = rng.integers(600, size=600)
        drawn.append(mean_average_precision(found.select(rows)))
    assert high - low == pytest.approx(4 * np.std(drawn), rel=0.4)
    assert np.mean(drawn) > high - 0.01  # as it would be without that


def test_the_paired_difference_of_map():
    one, other = tagged(seed=0), tagged(seed=0)
    other.logits += np.random.default_rng(1).normal(0, 2, other.logits.shape).astype(np.float16)
    found = paired_difference(one, other)
    expected = mean_average_precision(one) - mean_average_precision(other)
    assert found.metric == "mAP" and found.mean == pytest.approx(expected, abs=1e-6)
    low, high = found.interval95
    assert 0 < low < found.mean < high
    back = paired_difference(other, one)
    assert back.interval95 == pytest.approx([-high, -low], abs=0.02)
    apart = [np.diff(summarise(part, "mAP").interval95)[0] for part in (one, other)]
    assert high - low < np.hypot(*apart)  # the same clips are drawn for both
    same = paired_difference(one, one)
    assert same.mean == 0 and same.interval95[1] == -same.interval95[0] > 0
    grouped = paired_difference(one, other, shared=r"^..")
    assert grouped.groups == 3 and grouped.mean == found.mean
    assert grouped.interval95 != found.interval95
    assert paired_difference(one, other, shared=".*").interval95 == found.interval95
    with pytest.raises(ValueError, match="other metrics"):
        paired_difference(one, made(folds=(1,)))
    fewer = Predictions(**vars(one) | {"label": one.label[:, 1:], "logits": one.logits[:, 1:]})
    with pytest.raises(ValueError, match="scored by other labels in fold 1"):
        paired_difference(one, fewer)


def test_clips_are_drawn_once_for_an_entry_not_for_every_pair(monkeypatch):
    drawn, entries = [], [tagged(seed=seed) for seed in range(3)]
    draw = bootstrap._bootstrap_maps
    monkeypatch.setattr(
        bootstrap, "_bootstrap_maps", lambda one, *rest: drawn.append(one) or draw(one, *rest)
    )
    for one in entries:
        one.label = entries[0].label
    found = [paired_difference(one, other) for one in entries for other in entries]
    assert len(drawn) == 3
    assert found[1] == paired_difference(*entries[:2])
    grouped = paired_difference(*entries[:2], shared=r"^..")
    assert len(drawn) == 5 and grouped.interval95 != found[1].interval95


def test_one_fold_has_no_spread():
    assert summarise(made(folds=(1,)), "accuracy").std is None


def test_interval_narrows_with_the_number_of_clips_and_covers_the_mean():
    rng = np.random.default_rng(0)
    few, many = rng.random(50) < 0.8, rng.random(5000) < 0.8
    (a, b), (c, d) = bootstrap_interval(few * 1.0), bootstrap_interval(many * 1.0)
    assert b - a > 5 * (d - c)
    expected = 1.96 * np.sqrt(0.16 / 5000)
    assert (d - c) / 2 == pytest.approx(expected, rel=0.15)


def test_clips_of_a_group_are_drawn_together():
    rng = np.random.default_rng(0)
    few, weights = (rng.random(50) < 0.8) * 1.0, rng.random(50)
    names = np.repeat(rng.permutation([f"{n:02}" for n in range(50)]), 20)
    many = np.repeat(few, 20)
    (a, b), (c, d) = bootstrap_interval(many), bootstrap_interval(many, groups=names)
    assert d - c > 3 * (b - a)  # as sqrt(20)
    in_order = bootstrap_interval(few, weights, groups=np.array([f"{n:02}" for n in range(50)]))
    assert in_order == bootstrap_interval(few, weights)


def test_a_paired_difference_over_groups():
    one, other = made(0, folds=(1, 2), clips=40), made(2, folds=(1, 2), clips=40, skill=1.0)
    found = paired_difference(one, other, shared=r"\d$")
    assert found.groups == 10 and found.clips == 80
    plain = paired_difference(one, other)
    assert found.mean == plain.mean and found.interval95 != plain.interval95
    alone = paired_difference(one, other, shared=".*")  # of each clip its own id
    assert alone.interval95 == plain.interval95 and alone.groups == 80
    assert plain.groups is None
    with pytest.raises(ValueError, match="no 'actor' in the id of clip '1-0'"):
        paired_difference(one, other, shared="actor")


@pytest.mark.parametrize("count", [1, 4, 60, 500])
def test_where_all_clips_are_alike_the_interval_is_wilsons(count):
    for right in (0, 1):
        found = bootstrap_interval(np.full(count, float(right)))
        assert found == pytest.approx(wilson(right, count), abs=2e-6)
    weights = np.random.default_rng(count).random(count) + 0.1
    assert bootstrap_interval(np.ones(count), weights) == bootstrap_interval(np.ones(count))


def wilson(share: float, count: int) -> list[float]:
    """His interval of a share of so many: those p from which it is within z standard errors."""
    z = NormalDist().inv_cdf(0.975)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5 / (1 + z**2 / count)
    return [middle - half, middle + half]


def test_four_right_of_four_are_no_certainty():
    one = Predictions.of_run(1, 0, list("abcd"), np.arange(4), np.eye(4))
    result = summarise(one, "accuracy")
    assert result.mean == 1 and result.interval95 == pytest.approx([0.5101, 1], abs=1e-4)


def test_paired_difference():
    parent, child = made(seed=0), made(seed=0)
    same = paired_difference(child, parent)
    assert same.mean == 0.0 and same.interval95[1] == -same.interval95[0] > 0
    wrong = (child.logits.argmax(-1) == child.label) & (child.clip == "1-0")
    child.logits[wrong] = -child.logits[wrong]
    right_before = parent.logits.argmax(-1) == parent.label
    right_now = child.logits.argmax(-1) == child.label
    found = paired_difference(child, parent)
    assert found.mean == pytest.approx(right_now.mean() - right_before.mean(), abs=1e-6)


def test_seeds_of_which_none_is_shared_are_compared_clip_by_clip():
    """As a net pruned with other seeds than its parent was trained with."""
    parent, child = made(seeds=(0,)), made(seeds=(1, 2))
    found = paired_difference(child, parent)
    correct = (child.logits.argmax(-1) == child.label).reshape(2, -1)  # (seeds, clips)
    delta = correct.mean(0) - (parent.logits.argmax(-1) == parent.label)
    assert found.mean == pytest.approx(delta.mean(), abs=1e-6)
    assert found.interval95 == bootstrap_interval(delta)
    assert found.runs == len(child.runs())


def test_paired_difference_uses_shared_folds_only_and_refuses_other_clips():
    parent, child = made(folds=(1, 2)), made(folds=(2, 3))
    found = paired_difference(child, parent)
    assert found.runs == 1
    assert found.mean == paired_difference(child.run(0, 2), parent.run(0, 2)).mean
    with pytest.raises(ValueError, match="share no"):
        paired_difference(made(folds=(3,)), made(folds=(1,)))
    with pytest.raises(ValueError, match="other clips"):
        paired_difference(made(clips=20), made(clips=24))
