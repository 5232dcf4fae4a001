"""`qaudio pack`: a benchmark's clips as a few large files, to be streamed."""

import argparse

from qaudio.commands.common import Commands, positive, usage
from qaudio.data.benchmarks.registry import Registered, data_modules


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    sub = command(
        "pack", _pack, "pack a benchmark's clips into shards to train from (--data.packed)",
        "qaudio pack audioset data/AudioSet packed/AudioSet --sample-rate 32000 --set train=full",
    )  # fmt: skip
    sub.add_argument("benchmark", choices=_modules())
    sub.add_argument("root", help="its folder, as in --data.root")
    sub.add_argument("out", help="folder of the shards; packing again finishes a broken-off pack")
    sub.add_argument("--sample-rate", type=positive, help="Hz; resample now, not at every reading")
    sub.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="a setting of the data, as in --data.NAME: esc10=true, protocol=sample, table=my.csv",
    )  # fmt: skip
    sub.add_argument("--workers", type=positive, default=4, help="threads that decode (4)")
    sub.add_argument("--shard-mb", type=positive, default=64, help="megabytes of a shard (64)")


def _modules() -> dict[str, Registered]:
    """DataModules by their files' names."""
    return {one.module.rpartition(".")[2]: one for one in data_modules()}


def _pack(options: argparse.Namespace) -> int:
    pairs = [setting.partition("=") for setting in options.settings]
    if not all(name and equals for name, equals, _ in pairs):
        return usage("pack", "--set takes NAME=VALUE")
    import yaml

    from qaudio.data.pack import pack

    settings = {name: yaml.safe_load(value) for name, _, value in pairs}
    try:
        data = _modules()[options.benchmark].load()(options.root, **settings)
    except TypeError as error:
        return usage("pack", str(error).rpartition("() ")[2])
    facts = pack(
        data, options.out, sample_rate=options.sample_rate, workers=options.workers,
        shard_bytes=options.shard_mb << 20,
    )  # fmt: skip
    print(
        f"{options.out}: {len(facts['clips'])} clips of {facts['protocol']}, "
        f"{len(facts['left_out'])} left out"
    )
    return 0
