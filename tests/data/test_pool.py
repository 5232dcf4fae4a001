import shutil

import numpy as np
import pytest
import soundfile
import torch

import qaudio
from qaudio.data.pool import Mixing, PoolSampler, read_ids
from qaudio.errors import DataError
from tests.support.loaders import ids

RATE = 8000


@pytest.fixture
def pool(tmp_path):
    """Sources of tones: `long` with two recordings of 4 s, `short` with eight of .25 s, `kept`."""
    folder = tmp_path / "pool"
    for source, count, seconds, pitch in (
        ("long", 2, 4.0, 200), ("short", 8, 0.25, 800), ("kept", 6, 1.0, 1600),
    ):  # fmt: skip
        (folder / source / "deep").mkdir(parents=True)
        for n in range(count):
            time = np.arange(round(seconds * RATE)) / RATE
            sound = 0.5 * np.sin(2 * np.pi * (pitch + n) * time)
            soundfile.write(folder / source / "deep" / f"{n}_{10000 + n}.wav", sound, RATE)
    return folder


def data(root, **settings):
    settings = {"test_sources": ["kept"], "seconds": 1.0, "sample_rate": RATE, "seed": 0} | settings
    found = qaudio.AudioPool(str(root), **settings)
    found.setup()
    return found


def crops(found, count=None):
    return [item for batch in found.train_dataloader() for item in batch["waveform"]][:count]


def sources(found, role):
    return {name.split("/")[0] for name in ids(found.whole_clips(role))}


def test_pool_holds_whole_sources_out(pool) -> None:
    found = data(pool, validation_sources=["short"], holdout="validation")
    assert sources(found, "training") == {"long"} and sources(found, "scored") == {"short"}
    assert sources(data(pool), "scored") == {"kept"}


def test_pool_draws_sources_by_the_root_of_their_hours(pool) -> None:
    found = data(pool)
    draws = found._draws(found._items("training"))
    ids = [clip.id for clip, _ in found._items("training")]
    share = {name: sum(p for p, i in zip(draws, ids, strict=True) if i.startswith(name))
             for name in ("long", "short")}  # fmt: skip
    assert share["long"] / share["short"] == pytest.approx((8 / 2) ** 0.5)
    assert sum(share.values()) == pytest.approx(1)


def test_pool_epoch_is_as_long_as_asked_or_as_the_training_sources(pool) -> None:
    assert len(crops(data(pool, epoch_clips=37))) == 37
    assert len(crops(data(pool))) == 10  # seconds of sound, in crops of one


def test_pool_crops_are_the_same_for_a_seed_and_new_in_every_epoch(pool) -> None:
    settings = {"epoch_clips": 8, "mixing": Mixing(probability=0.5)}
    one, other = (torch.stack(crops(data(pool, **settings))) for _ in range(2))
    assert torch.equal(one, other)
    loader = data(pool, **settings).train_dataloader()
    loader.sampler.set_epoch(1)
    assert not torch.equal(torch.cat([batch["waveform"] for batch in loader]), one)
    assert not torch.equal(torch.stack(crops(data(pool, **settings, seed=1))), one)


def test_pool_pads_short_recordings_or_joins_others_of_their_source(pool) -> None:
    padded = data(pool, epoch_clips=64, mixing=Mixing(probability=0, join=0))
    joined = data(pool, epoch_clips=64, mixing=Mixing(probability=0, join=1))
    silent = [float((crop.abs() < 1e-4).float().mean()) for crop in crops(padded)]
    full = [float((crop.abs() < 1e-4).float().mean()) for crop in crops(joined)]
    assert max(silent) > 0.7 and max(full) < 0.2


def test_pool_mixtures_hold_two_recordings(pool) -> None:
    def tones(crop):  # of the two sources
        spectrum = torch.fft.rfft(crop).abs()
        return spectrum[195:210].max() > 20 and spectrum[790:815].max() > 20

    mixed = data(pool, epoch_clips=64, mixing=Mixing(probability=1))
    alone = data(pool, epoch_clips=64, mixing=Mixing(probability=0))
    assert sum(map(tones, crops(mixed))) > 10
    assert not any(map(tones, crops(alone)))


def test_pool_scores_the_start_of_held_out_recordings(pool) -> None:
    found = data(pool, seconds=0.5, augment=qaudio.data.augment.WaveformAugment(gain_db=20.0))
    (batch,) = found.test_dataloader()
    expected, _ = soundfile.read(pool / "kept" / "deep" / "0_10000.wav", dtype="float32")
    assert batch["label"].shape == (6, 0)
    torch.testing.assert_close(
        batch["waveform"][0], torch.from_numpy(expected[:4000]), atol=1e-4, rtol=0
    )


def test_pool_keeps_decoded_sound_in_two_bytes_a_sample(pool, tmp_path) -> None:
    found = data(pool, cache_dir=str(tmp_path / "cache"))
    clip = found.clips[0]
    assert found.cache.get(clip.path, RATE).dtype == np.int16
    size = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.npy"))
    assert size < 2 * RATE * (8 + 2 + 6) + 16 * 200


def test_pool_tells_what_is_heard(pool, tmp_path) -> None:
    (pool / "sources.csv").write_text("source,licence\nlong,CC0\nother,CC BY 4.0\n")
    found = data(pool, overlap_check="by ear").heard()
    assert found == {
        "sources": {
            "long": {"recordings": 2, "hours": 0.002, "licence": "CC0"},
            "short": {"recordings": 8, "hours": 0.001, "licence": None},
        },
        "hours": 0.003,
        "held_out": ["kept"],
        "overlap_check": "by ear",
    }


def test_pool_leaves_out_recordings_of_given_ids(pool, tmp_path) -> None:
    ids = tmp_path / "ids.csv"
    ids.write_text("freesound_id,fold\n10000,1\n10007,2\n")
    with pytest.warns(UserWarning, match="its id is to be left out"):
        found = data(pool, exclude_ids=str(ids))
    names = {clip.path.name for clip in found.clips}
    assert names == {f"{n}_{10000 + n}.wav" for n in range(1, 7)}
    assert read_ids(str(ids)) == {"10000", "10007"}


def test_pool_sampler_shares_its_draws_among_processes() -> None:
    draws = np.array([0.5, 0.25, 0.25])
    whole = list(PoolSampler(draws, 11, 3))
    parts = [list(PoolSampler(draws, 11, 3, ranks=2, rank=rank)) for rank in (0, 1)]
    assert [key for pair in zip(*parts, strict=True) for key in pair][:11] == whole
    counts = np.bincount([key[1] for key in PoolSampler(draws, 4000, 0)])
    np.testing.assert_allclose(counts / 4000, draws, atol=0.03)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"test_sources": ["none"]},
            "no source 'none' to hold out; there is alone, kept, long, short",
        ),
        ({"test_sources": ["kept", "long"]}, "every source is held out"),
        ({"test_sources": ["alone"]}, "'alone' is a single recording"),
        (
            {"validation_sources": ["long"], "holdout": "validation"},
            "long: fewer than 5 recordings",
        ),
        ({"table": "table.csv"}, "table.csv: expected columns source and licence"),
    ],
)
def test_pool_that_cannot_be_used_is_refused(settings, said, pool, monkeypatch) -> None:
    monkeypatch.chdir(pool.parent)
    if "every" in said:
        shutil.rmtree(pool / "short")
    else:
        (pool / "alone").mkdir()
        soundfile.write(pool / "alone" / "x.wav", np.ones(RATE), RATE)
    (pool.parent / "table.csv").write_text("name,url\na,b\n")
    with pytest.raises(DataError, match=said):
        data(pool, **settings)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.csv", "source,licence,licence\nlong,a,b\n", "two columns are named 'licence'"),
        ("t.csv", "source,licence\nlong,a,b\n", "row 2: 3 cells under 2 columns"),
        ("t.tsv", "source\tlicence\nlong\n", "row 2: 1 cells under 2 columns"),
        ("t.csv", 'source,licence\nlong,"cc\n', "is not readable"),
        ("t.csv", f"source,licence\nlong,{'x' * 5000}\n", "a licence of 5000 characters"),
    ],
)
def test_pool_reads_its_table_as_every_table_is_read(name, text, said, pool) -> None:
    (pool.parent / name).write_text(text)
    with pytest.raises(DataError, match=said):
        data(pool, table=str(pool.parent / name))


def test_pool_refuses_a_table_that_is_too_large(pool, monkeypatch) -> None:
    monkeypatch.setattr("qaudio.data.tables.MOST_CELLS", 10)
    (pool.parent / "t.csv").write_text("source,licence\n" + "long,cc0-1.0\n" * 10)
    with pytest.raises(DataError, match="over 10 cells"):
        data(pool, table=str(pool.parent / "t.csv"))


def test_pool_without_sound_or_sources_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        data(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no sound; expected: SOURCE/"):
        data(tmp_path / "empty")
    soundfile.write(tmp_path / "empty" / "x.wav", np.ones(RATE), RATE)
    with pytest.raises(DataError, match="its 1 recordings lie in no folder of a source"):
        data(tmp_path / "empty")


def test_pool_whose_every_id_is_excluded_is_refused(pool, tmp_path) -> None:
    (tmp_path / "ids.txt").write_text("\n".join(str(10000 + n) for n in range(8)))
    with pytest.raises(DataError, match=r"ids of .*ids.txt leave nothing of 16"):
        data(pool, exclude_ids=str(tmp_path / "ids.txt"))
    (tmp_path / "none.txt").write_text("a b 12\n")
    with pytest.raises(DataError, match="holds no id"):
        data(pool, exclude_ids=str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    "settings",
    [{"seconds": None}, {"segment_hop": 0.5}, {"epoch_clips": 0}, {"test_sources": []},
     {"validation_sources": ["kept"]}],
)  # fmt: skip
def test_pool_refuses_settings_that_contradict_it(settings, pool) -> None:
    with pytest.raises(ValueError, match=r"AudioPool|epoch_clips|test_sources"):
        data(pool, **settings)


@pytest.mark.parametrize("settings", [{"probability": 1.1}, {"alpha": 0}, {"join": -0.1}])
def test_mixing_refuses_settings_out_of_range(settings) -> None:
    with pytest.raises(ValueError, match="Mixing: "):
        Mixing(**settings)
