"""Records of scores, as results.json has them; made by `qaudio.evaluation.bootstrap`."""

from __future__ import annotations

from typing import Literal

from qaudio.records import Change, Count, Record, Share, Text

Metric = Literal["accuracy", "mAP"]


class Result(Record):
    """A score over all folds.

    Attributes:
        metric: "accuracy" or "mAP".
        mean: over folds, each the mean over its seeds; a fraction, as all scores are.
        std: over folds (n-1); None of one fold.
        interval95: 95 % bootstrap interval of the mean over clips.
        folds: score of each fold, by number.
        runs: score of each run, by "seedS_foldF".
        clips: scored.
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
        metric: "accuracy" or "mAP".
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
