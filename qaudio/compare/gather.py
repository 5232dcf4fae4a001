"""What is compared: entries' results, in groups whose members may be set beside one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from qaudio.data.benchmarks.registry import about
from qaudio.errors import EntryError
from qaudio.evaluation.bootstrap import paired_difference
from qaudio.evaluation.metrics import scores_by_class
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Difference, Metric
from qaudio.text import shown
from qaudio.zoo.resolve import locate
from qaudio.zoo.schema import Config, Results
from qaudio.zoo.store import file_of, read_config, read_results


@dataclass(frozen=True, eq=False)
class Member:
    """An entry with results.

    Attributes:
        name: of the entry; with its source where two entries share a name.
        family: "quaternion" or "real".
        parent: such as "pruned from qcnn10_050.esc10".
        mean, std, low, high: of the metric, fractions; low and high bound the 95 % interval.
        seconds: of sound that MACs and latency are for.
        latency: milliseconds, on `device`; None where it was not measured.
        optimized: the same after `qaudio.optimize`.
        predictions: None where the entry keeps none that can be read.
    """

    name: str
    family: str
    license: str | None
    parent: str | None
    benchmark: str
    protocol: str
    metric: Metric
    complete: bool
    runs: int
    clips: int
    mean: float
    std: float | None
    low: float
    high: float
    params: float
    macs: float
    bytes: float
    seconds: float
    latency: float | None
    optimized: float | None
    device: str | None
    labels: list[str] | None
    predictions: Predictions | None = field(repr=False)

    @property
    def macs_per_second(self) -> float:
        """MACs for a second of sound."""
        return self.macs / self.seconds

    @cached_property
    def by_class(self) -> list[float | None] | None:
        """Score of every class, by index; None where there are no predictions."""
        if self.predictions is None:
            return None
        return scores_by_class(self.predictions, self.metric)


@dataclass(frozen=True)
class Measure:
    """Something that an entry costs.

    Attributes:
        unit: as shown after a number with an SI prefix.
        condition: what two values must share to be comparable, in words.
    """

    key: str
    title: str
    unit: str
    condition: Callable[[Member], str] = lambda member: ""

    def of(self, member: Member) -> float | None:
        """Its value for a member."""
        value: float | None = getattr(member, self.key)
        return value


def _sound(member: Member) -> str:
    return f"{member.seconds:g} s of sound"


def _timed(member: Member) -> str:
    return f"{_sound(member)}, {member.device}"


MEASURES = {
    measure.key: measure
    for measure in (
        Measure("params", "parameters", ""),
        Measure("macs", "MACs", "", _sound),
        Measure("bytes", "weights", "B"),
        Measure("latency", "latency", "ms", _timed),
        Measure("optimized", "optimized", "ms", _timed),
    )
}

# What an entry may be asked to cost at most: what tables show, and what budgets are stated in.
LIMITED = MEASURES | {"macs_per_second": Measure("macs_per_second", "MACs a second", "")}


@dataclass(frozen=True)
class Group:
    """Members of one benchmark, protocol and metric, the best first."""

    benchmark: str
    protocol: str
    metric: Metric
    members: tuple[Member, ...]
    _pairs: dict[tuple[Member, Member], Difference | None] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The benchmark's name in full."""
        return about(self.benchmark).title

    def difference(self, one: Member, other: Member) -> Difference | None:
        """`paired_difference` of two members; None unless both were scored on the same clips."""
        if (one, other) not in self._pairs:
            found = _paired(one, other)
            self._pairs[one, other], self._pairs[other, one] = found, found and found.mirrored()
        return self._pairs[one, other]

    def conditions(self, measure: Measure) -> list[str]:
        """The conditions under which members' values of a measure were found, sorted."""
        having = [member for member in self.members if measure.of(member) is not None]
        return sorted({measure.condition(member) for member in having} - {""})

    def fronts(self, measure: Measure) -> list[list[tuple[float, Member]]]:
        """Values and members that none beats in score and measure at once, the cheapest first.

        One front for each condition, because values of different conditions do not compare.
        """
        found = []
        for condition in self.conditions(measure) or [""]:
            alike = [
                (value, member)
                for member in self.members
                if (value := measure.of(member)) is not None
                and measure.condition(member) == condition
            ]
            front: list[tuple[float, Member]] = []
            for value, member in sorted(alike, key=lambda item: (item[0], -item[1].mean)):
                if not front or member.mean > front[-1][1].mean:
                    front.append((value, member))
            found.append(front)
        return found


@dataclass(frozen=True)
class Comparison:
    """Everything that was asked for.

    Attributes:
        unscored: names of entries without results.
        faults: (source, message) of what could not be read.
    """

    groups: list[Group]
    unscored: list[str]
    faults: list[tuple[str, str]]

    def within(self, limits: dict[str, float]) -> Comparison:
        """Those entries alone that cost no more than this, by keys of LIMITED.

        What was not measured is over every limit.

        Raises:
            EntryError: when there is none; says how little there is.
        """

        def fits(member: Member) -> bool:
            values = [(LIMITED[key].of(member), most) for key, most in limits.items()]
            return all(value is not None and value <= most for value, most in values)

        scored = [member for group in self.groups for member in group.members]
        members = [member for member in scored if fits(member)]
        if not members:
            least = []
            for measure in map(LIMITED.__getitem__, limits):
                found = [value for one in scored if (value := measure.of(one)) is not None]
                least.append(f"{measure.title}: from {min(found):g}" if found else measure.title)
            raise EntryError(f"no entry is within the limits; there are {'; '.join(least)}")
        return replace(self, groups=_grouped(members))


def gather(sources: Iterable[str | Path]) -> Comparison:
    """Read and group entries.

    Args:
        sources: names, folders, whatever `locate` knows. A folder named twice counts once.
    """
    found: dict[Path, tuple[str, Member | None]] = {}
    faults = []
    for source in sources:
        name = shown(str(source))
        try:
            folder = locate(source).resolve()
            if folder not in found:
                member, fault = _read(folder, name)
                found[folder] = name, member
                faults += [(name, fault)] if fault else []
        except EntryError as error:
            faults.append((name, shown(str(error))))
    members = _with_unique_names([(name, member) for name, member in found.values() if member])
    unscored = [name for name, member in found.values() if member is None]
    return Comparison(_grouped(members), unscored, faults)


def _with_unique_names(found: list[tuple[str, Member]]) -> list[Member]:
    names = [member.name for _, member in found]
    return [
        replace(member, name=f"{member.name} ({source})")
        if names.count(member.name) > 1 and source != member.name
        else member
        for source, member in found
    ]


def _grouped(members: list[Member]) -> list[Group]:
    groups: dict[tuple[str, str, Metric], list[Member]] = {}
    for member in members:
        groups.setdefault((member.benchmark, member.protocol, member.metric), []).append(member)
    return [
        Group(*key, tuple(sorted(own, key=lambda member: (-member.mean, member.name))))
        for key, own in sorted(groups.items())
    ]


def _paired(one: Member, other: Member) -> Difference | None:
    if one.predictions is None or other.predictions is None:
        return None
    try:
        return paired_difference(one.predictions, other.predictions)
    except ValueError:  # other clips, or no run in common
        return None


def _read(folder: Path, source: str) -> tuple[Member | None, str | None]:
    """The entry in a folder, None without results; and what is wrong with its predictions."""
    config, results = read_config(folder), read_results(folder)
    if results is None:
        return None, None
    member, path = _member(config, results), folder / "predictions.npz"
    if path.is_file():
        try:
            predictions = Predictions.load(file_of(folder, path.name))
            predictions.check(config.num_classes, config.task)
            return replace(member, predictions=predictions), None
        except ValueError as error:
            return member, shown(f"{source}: {error}; compared by its results alone")
    return member, None


def _member(config: Config, results: Results) -> Member:
    result, cost, parent = results.result, results.cost, results.parent
    latency = cost.latency
    return Member(
        name=results.entry,
        family="quaternion" if config.is_quaternion else "real",
        license=config.license,
        parent=f"{parent.how} {parent.name}" if parent else None,
        benchmark=results.benchmark,
        protocol=results.protocol,
        metric=result.metric,
        complete=results.complete,
        runs=len(result.runs),
        clips=result.clips,
        mean=result.mean,
        std=result.std,
        low=result.interval95[0],
        high=result.interval95[1],
        params=cost.params,
        macs=cost.macs,
        bytes=cost.bytes,
        seconds=cost.seconds,
        latency=latency.milliseconds if latency else None,
        optimized=latency.optimized_milliseconds if latency else None,
        device=latency.device if latency else None,
        labels=config.labels,
        predictions=None,
    )
