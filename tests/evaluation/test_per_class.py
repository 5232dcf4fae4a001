import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.per_class import report
from qaudio.evaluation.predictions import Predictions

RNG = np.random.default_rng(0)


def predictions(label, logits):
    names = [f"{n:03}" for n in range(len(label))]
    return Predictions.of_run(1, 0, names, label, logits)


def test_precision_recall_and_f1_are_scikit_learns():
    label, logits = RNG.integers(0, 4, 90), RNG.standard_normal((90, 5)).astype(np.float32)
    logits[:, 3] = -9  # never given; class 4 never there
    found = report(predictions(label, logits), ["a", "b", "c", "d", "e"])
    expected = precision_recall_fscore_support(
        label, logits.astype(np.float16).argmax(-1), labels=range(5), zero_division=0
    )
    assert list(found["classes"]) == ["a", "b", "c", "d", "e"]
    for c, row in enumerate(found["classes"].values()):
        for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            assert abs(row[name] - values[c]) < 1e-6, name


def test_average_precision_of_each_class_is_scikit_learns():
    label = (RNG.random((80, 5)) < 0.3).astype(int)
    label[:, 2] = 0
    scored = predictions(label, RNG.standard_normal((80, 5)))
    found = list(report(scored, None)["classes"].values())
    values = []
    for c, row in enumerate(found):
        assert row["support"] == label[:, c].sum()
        if c == 2:
            assert row["average_precision"] is None
        else:
            values.append(average_precision_score(scored.label[:, c], scored.logits[:, c]))
            assert abs(row["average_precision"] - values[-1]) < 1e-6
    result = summarise(scored, "mAP")
    assert abs(result.mean - np.mean(values)) < 1e-6
    assert result.classes == 4
