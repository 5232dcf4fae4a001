import copy
import os
import shutil
import subprocess

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qaudio.quaternion import QConv2d, tiled
from qaudio.quaternion.algebra import real_matrix
from qaudio.quaternion.fast import Stage, forms

sizes = st.integers(1, 40)


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """No kernel is known yet, and the cache is empty."""
    monkeypatch.setenv("QAUDIO_CACHE", str(tmp_path / "cache"))
    tiled.kernel.cache_clear()
    yield tmp_path / "cache" / "kernels"
    tiled.kernel.cache_clear()


def kernel() -> tiled.Kernel:
    found = tiled.kernel()
    assert found is not None, "this machine has no C++ compiler that makes the kernel"
    return found


@settings(deadline=None, max_examples=150)
@given(
    batch=st.integers(1, 3), fed=st.integers(1, 9), out=st.integers(1, 11), height=sizes,
    width=sizes, relu=st.booleans(), ends=st.sampled_from(["", "pool", "shortcut"]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_convolution_and_what_follows_it(
    batch, fed, out, height, width, relu, ends, seed
):
    torch.manual_seed(seed)
    x, weight = torch.randn(batch, 4 * fed, height, width), torch.randn(4 * out, fed, 3, 3)
    scale, shift = torch.randn(4 * out), torch.randn(4 * out)
    expected = F.conv2d(x.double(), real_matrix(weight.double()), padding=1)
    expected = expected * scale[:, None, None] + shift[:, None, None]
    shortcut = torch.randn(expected.shape) if ends == "shortcut" else None
    expected = expected if shortcut is None else expected + shortcut
    expected = expected.relu() if relu else expected
    if ends == "pool":
        if min(height, width) < 2:
            return
        expected = F.avg_pool2d(expected, 2)
    found = kernel()(
        x, kernel().pack(weight), scale, shift, shortcut, relu=relu, pool=2 if ends == "pool" else 1
    )
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_threads_gives_the_same(threads, count):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 16, 101, 64), kernel().pack(torch.randn(24, 4, 3, 3))
    one, zero = torch.ones(24), torch.zeros(24)
    threads(1)
    expected = kernel()(x, weight, one, zero, relu=True, pool=2)
    threads(count)
    assert torch.equal(kernel()(x, weight, one, zero, relu=True, pool=2), expected)


def test_values_that_are_no_numbers_are_not_hidden():
    x = torch.zeros(1, 4, 6, 6)
    x[0, 1, 3, 3] = torch.nan
    found = kernel()(
        x, kernel().pack(torch.ones(8, 1, 3, 3)), torch.ones(8), torch.zeros(8), relu=True
    )
    assert found[..., 2:5, 2:5].isnan().all()
    assert found[..., 0, 0].isfinite().all()


def test_only_layers_that_it_computes_have_the_form():
    taken = QConv2d(8, 8, 3, padding=1).requires_grad_(False)
    assert "tiled" in forms(taken) and "tiled" not in forms(taken, compile=False)
    assert "tiled" not in forms(taken, torch.bfloat16)
    for other in (
        nn.Conv2d(8, 8, 3, padding=1), QConv2d(8, 8, 1), QConv2d(8, 8, 3), QConv2d(8, 8, (3, 1)),
        QConv2d(8, 8, 3, padding=1, stride=2), QConv2d(8, 8, 3, padding=1, dilation=2),
        QConv2d(8, 8, 3, padding=(1, 0)),
    ):  # fmt: skip
        assert "tiled" not in forms(other.requires_grad_(False))


def test_other_ways_to_eight_products_are_tried_for_wide_layers_alone():
    for channels, tried in ((124, False), (128, True)):
        layer = QConv2d(channels, 128, 3, padding=1).requires_grad_(False)
        assert ("products" in forms(layer)) is ("grouped" in forms(layer)) is tried
        assert "products" in forms(layer, compile=False)


def test_it_takes_maps_of_any_layout():
    layer = QConv2d(8, 8, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 8, 12, 10)
    made = Stage(layer, None, "tiled", x.shape, relu=True, shortcut=True)
    expected = F.relu(layer(x) + x)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=layout)
        for stage in (made, copy.deepcopy(made)):
            torch.testing.assert_close(stage(given, given), expected, rtol=0, atol=1e-5)


def test_it_is_compiled_once(anew, monkeypatch):
    assert kernel().works()
    (kept,) = anew.iterdir()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    tiled.kernel.cache_clear()
    assert kernel().works()
    assert list(anew.iterdir()) == [kept]


def test_a_spoilt_file_is_made_anew(anew):
    kernel()
    (kept,) = anew.iterdir()
    size = kept.stat().st_size
    kept.unlink()  # the file that is loaded stays as it is
    kept.write_bytes(b"\x7fELF, and no more")
    tiled.kernel.cache_clear()
    assert kernel().works()
    assert kept.stat().st_size == size


def test_a_cache_that_cannot_be_written_is_no_obstacle(anew):
    anew.parent.write_text("a file in the folder's place")
    assert kernel().works()


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", None])
def test_without_a_compiler_there_is_none(anew, monkeypatch, compiler):
    if compiler is None:
        monkeypatch.setattr(shutil, "which", lambda *_: None)
        monkeypatch.delenv("CXX", raising=False)
    else:
        monkeypatch.setitem(os.environ, "CXX", compiler)
    assert tiled.kernel() is None
    layer = QConv2d(8, 8, 3, padding=1).requires_grad_(False)
    assert "tiled" not in forms(layer)
    with pytest.raises(RuntimeError, match="does not work on this machine"):
        Stage(layer, None, "tiled", (1, 8, 4, 4))


def test_one_that_computes_something_else_is_not_used(anew, monkeypatch, tmp_path):
    text = tiled.SOURCE.read_text()
    assert text.count("to[n] = c - d;") == 1
    wrong = tmp_path / "tiled.cpp"
    wrong.write_text(text.replace("to[n] = c - d;", "to[n] = c + d;"))
    monkeypatch.setattr(tiled, "SOURCE", wrong)
    assert tiled.kernel() is None
