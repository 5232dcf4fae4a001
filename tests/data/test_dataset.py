from collections import Counter

import numpy as np
import pytest
import torch

from qaudio.data.audio import AudioCache
from qaudio.data.augment import WaveformAugment
from qaudio.data.clip import Clip
from qaudio.data.dataset import ClipDataset, EpochSampler, collate, cut


def bounds(length, size, hop):
    return [(one.start, one.stop) for one in cut(length, size, hop)]


@pytest.mark.parametrize(
    ("length", "size", "hop", "expected"),
    [
        (10, 5, 5, [(0, 5), (5, 10)]),
        (3, 5, 5, [(0, 5)]),  # short: padded later
        (5, 5, 5, [(0, 5)]),
        (12, 5, 5, [(0, 5), (5, 10)]),  # 2 new samples: less than half a hop
        (13, 5, 5, [(0, 5), (5, 10), (8, 13)]),
        (10, 4, 2, [(0, 4), (2, 6), (4, 8), (6, 10)]),
        (30, 10, 30, [(0, 10), (20, 30)]),
    ],
)
def test_a_clip_is_cut_into_segments(length, size, hop, expected):
    assert bounds(length, size, hop) == expected


def draws(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


def balanced(sizes, length, seed=0):
    ends = np.cumsum(sizes)
    classes = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    return EpochSampler(length, seed, shuffle=True, classes=classes)


def test_balanced_draws_give_every_class_its_share():
    found = draws(balanced([2, 8, 20], 30))
    classes = Counter("abc"[np.searchsorted([2, 10], key[1], "right")] for key in found)
    assert classes == {"a": 10, "b": 10, "c": 10}
    counts = Counter(key[1] for key in found)
    assert set(counts) >= set(range(10))  # every item of the small classes
    assert {counts[n] for n in (0, 1)} == {5}
    assert {counts[n] for n in range(2, 10)} == {1, 2}
    assert max(counts[n] for n in range(10, 30)) == 1


def test_balanced_draws_are_a_function_of_seed_and_epoch():
    assert draws(balanced([2, 8, 20], 30), 3) == draws(balanced([2, 8, 20], 30), 3)
    sampler = balanced([2, 8, 20], 30)
    draws(sampler, 1)
    assert draws(sampler, 3) == draws(balanced([2, 8, 20], 30), 3)
    assert draws(balanced([2, 8, 20], 30), 3) != draws(balanced([2, 8, 20], 30), 4)
    assert draws(balanced([2, 8, 20], 30), 3) != draws(balanced([2, 8, 20], 30, seed=1), 3)


def test_a_large_class_gives_other_items_in_other_epochs():
    sampler = balanced([1, 100], 20)
    first, second = ({key[1] for key in draws(sampler, n)} - {0} for n in (0, 1))
    assert len(first) == len(second) == 10
    assert first != second


@pytest.mark.parametrize(("length", "ranks"), [(9, 1), (9, 2), (9, 4), (8, 4), (3, 5)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_several_processes_share_an_order(length, ranks, shuffle):
    def shares(even):
        return [
            draws(EpochSampler(length, 1, shuffle, ranks=ranks, rank=rank, even=even), 3)
            for rank in range(ranks)
        ]

    scored = shares(even=False)
    assert sorted(key for share in scored for key in share) == [(3, n) for n in range(length)]
    trained = shares(even=True)
    assert len({len(share) for share in trained}) == 1
    keys = [key for share in trained for key in share]
    assert len(keys) < length + ranks
    assert len(set(keys)) == len(keys)
    assert sum(len(key) == 2 for key in keys) == length  # what comes again says so
    alone = draws(EpochSampler(length, 1, shuffle), 3)
    assert [key for keys in zip(*trained, strict=True) for key in keys][:length] == alone


def test_balanced_draws_are_shared_too():
    def share(rank):
        classes = [np.arange(2), np.arange(2, 10), np.arange(10, 30)]
        return draws(EpochSampler(30, 0, True, classes, ranks=2, rank=rank))

    alone = draws(balanced([2, 8, 20], 30))
    assert [key for keys in zip(share(0), share(1), strict=True) for key in keys] == alone


def test_a_class_without_items_is_passed_over():
    assert len(draws(balanced([3, 0, 3], 12))) == 12


def test_a_repeated_item_is_augmented_anew(write_sound, tmp_path):
    clip = Clip(write_sound("a.wav"), 0, "a", 1)
    dataset = ClipDataset(
        [(clip, (slice(None),))], 1, AudioCache(tmp_path / "cache"), 8000, 0.5, 0,
        WaveformAugment(roll=1.0), train=True,
    )  # fmt: skip
    keys = draws(balanced([1], 3))
    assert len(set(keys)) == 3
    assert [dataset[key]["repeat"] for key in keys] == [False, True, True]
    waveforms = [dataset[key]["waveform"] for key in keys]
    assert not torch.equal(waveforms[0], waveforms[1])
    assert not torch.equal(waveforms[1], waveforms[2])


def test_a_batch_says_how_many_segments_each_item_has(write_sound, tmp_path):
    one = Clip(write_sound("a.wav", seconds=1, seed=1), 0, "a", 1)
    two = Clip(write_sound("b.wav", seconds=2, seed=2), (0, 2), "b", 1)
    cache = AudioCache(tmp_path / "cache")
    for clips, labels in (((one,), [0]), ((two,), [[1, 0, 1]])):
        items = [(clip, cut(len(cache.get(clip.path, 8000)), 4000, 4000)) for clip in clips]
        dataset = ClipDataset(items, 3, cache, 8000, 0.5, 0)
        batch = collate([dataset[0, n] for n in range(len(items))])
        assert batch["label"].tolist() == labels
        whole = np.concatenate([cache.get(clip.path, 8000) for clip in clips])
        assert np.array_equal(batch["waveform"].flatten().numpy(), whole)
        assert batch["segments"] == [len(whole) // 4000]
