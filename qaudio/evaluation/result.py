"""Records of scores, as results.json has them; made by `bootstrap` and `calibration`."""

from __future__ import annotations

from typing import Literal

from qaudio.records import Change, Count, InnerPath, Number, Positive, Record, Share, Text

Metric = Literal["accuracy", "mAP"]


class Result(Record):
    """A score over all folds.

    Attributes:
        mean: over folds, each the mean over its seeds; a fraction, as all scores are.
        std: over folds (n-1); None of one fold.
        interval95: 95 % bootstrap interval of the mean over clips.
        folds: score of each fold, by number.
        runs: score of each run, by "seedS_foldF".
        classes: of mAP, how many have a positive clip.
    """

    metric: Metric
    mean: Share
    std: Share | None
    interval95: tuple[Share, Share]
    folds: dict[Text, Share]
    runs: dict[Text, Share]
    clips: Count
    classes: Count | None = None


class Difference(Record):
    """A score less another, paired clip by clip on the folds that both were scored on.

    Attributes:
        mean: over folds; a fraction.
        interval95: of the mean, over clips or groups.
        runs: of the first that were compared.
        clips: that both were scored on.
        groups: that were drawn in place of clips, if any.
    """

    metric: Metric
    mean: Change
    interval95: tuple[Change, Change]
    runs: Count
    clips: Count
    groups: Count | None = None

    @property
    def decided(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.interval95[0] > 0 or self.interval95[1] < 0

    def mirrored(self) -> Difference:
        """The second's score less the first's."""
        low, high = self.interval95
        return Difference(
            metric=self.metric, mean=-self.mean, interval95=(-high, -low), runs=self.runs,
            clips=self.clips, groups=self.groups,
        )  # fmt: skip


class Answered(Record):
    """What a network answers where a precision is wanted.

    Attributes:
        share: of the clips that it answers.
        precision: of these answers; None where there are none.
    """

    wanted: Share
    share: Share
    precision: Share | None


class Outside(Record):
    """How well sounds of no class are separated from held-out clips.

    Attributes:
        inside_clips: held-out clips.
        sources: of the other sounds, how many of each.
        auroc: area under the ROC curve by each score.
        best: score of the largest.
        predictions: file that they follow from.
    """

    inside_clips: Count
    sources: dict[Text, Count]
    auroc: dict[Text, Share]
    best: Text
    predictions: InnerPath | None = None


class Scaling(Record):
    """What makes logits probabilities and probabilities answers.

    Attributes:
        temperature: that logits are divided by.
        thresholds: of each class, the least probability at which it is given.
    """

    temperature: Positive
    thresholds: list[Share]


class Calibration(Scaling):
    """How far probabilities can be trusted.

    Attributes:
        ece, ece_calibrated: expected calibration error, without and with temperature.
        loss, loss_calibrated: mean cross-entropy, without and with temperature.
        answered: for each precision that may be wanted.
        outside: sounds of none of the classes.
    """

    ece: Share
    ece_calibrated: Share
    loss: Number
    loss_calibrated: Number
    answered: list[Answered]
    outside: Outside | None = None

    @property
    def scaling(self) -> Scaling:
        """What of it config.json holds."""
        return Scaling(self.temperature, self.thresholds)
