import copy
import os
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qaudio.deploy import cpp_kernel
from qaudio.deploy.fused_layers import Stage, forms, worth_measuring
from qaudio.quaternion.algebra import real_matrix
from qaudio.quaternion.layers import QConv2d

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it takes GCC's or Clang's vectors")
sizes = st.integers(1, 40)


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """No kernel is known yet, and the cache is empty."""
    monkeypatch.setenv("QAUDIO_CACHE", str(tmp_path / "cache"))
    cpp_kernel.kernel.cache_clear()
    yield tmp_path / "cache" / "kernels"
    cpp_kernel.kernel.cache_clear()


def kernel() -> cpp_kernel.Kernel:
    found = cpp_kernel.kernel()
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
    if ends == "pool":
        height, width = max(height, 2), max(width, 2)
    x, weight = torch.randn(batch, 4 * fed, height, width), torch.randn(4 * out, fed, 3, 3)
    scale, shift = torch.randn(4 * out), torch.randn(4 * out)
    expected = F.conv2d(x.double(), real_matrix(weight.double()), padding=1)
    expected = expected * scale[:, None, None] + shift[:, None, None]
    shortcut = torch.randn(expected.shape) if ends == "shortcut" else None
    expected = expected if shortcut is None else expected + shortcut
    expected = expected.relu() if relu else expected
    if ends == "pool":
        expected = F.avg_pool2d(expected, 2)
    found = kernel()(
        x, kernel().pack(weight), scale, shift, shortcut, relu=relu, pool=2 if ends == "pool" else 1
    )
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-4)


def layer_of(fed: int, out: int) -> tuple[torch.Tensor, ...]:
    """Weight, scale and shift."""
    return kernel().pack(torch.randn(out, fed // 4, 3, 3)), torch.ones(out), torch.zeros(out)


def test_nothing_gives_nothing():
    found = kernel()(torch.zeros(0, 8, 6, 4), *layer_of(8, 12), relu=True, pool=2)
    assert found.shape == (0, 12, 3, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, w, a, b: (x.bfloat16(), w, a, b), "x must be float32 of shape"),
        (lambda x, w, a, b: (x.double(), w, a, b), "not torch.float64"),
        (lambda x, w, a, b: (x.to("meta"), w, a, b), "on meta"),
        (lambda x, w, a, b: (x.mT.contiguous().mT, w, a, b), "contiguous"),
        (lambda x, w, a, b: (x[:, :4].contiguous(), w, a, b), "weight must be"),
        (lambda x, w, a, b: (x, w.half(), a, b), "weight must be"),
        (lambda x, w, a, b: (x, w, a, b[:4]), r"shift must be float32 of shape \(12,\)"),
        (lambda x, w, a, b: (x, w, a, b, torch.zeros(2, 12, 6, 4)), "shortcut"),
        (lambda x, w, a, b: (x[:, :, :1].contiguous(), w, a, b), "maps of 1×4 cannot be pooled"),
    ],
)
def test_what_it_would_misread_is_refused(change, said):
    arguments = change(torch.zeros(2, 8, 6, 4), *layer_of(8, 12))
    with pytest.raises(ValueError, match=said):
        kernel()(*arguments, relu=True, pool=2)


def test_a_shortcut_has_the_results_shape():
    with pytest.raises(ValueError, match="shortcut must be"):
        kernel()(torch.zeros(2, 8, 6, 4), *layer_of(8, 12), torch.zeros(2, 12, 6, 3), relu=True)


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


def test_under_autocast_it_stays_float32():
    layer = QConv2d(8, 8, 3, padding=1).requires_grad_(False)
    first, second = (Stage(layer, None, form, (1, 8, 9, 7)) for form in ("matrix", "tiled"))
    x = torch.randn(1, 8, 9, 7)
    with torch.autocast("cpu", torch.bfloat16):
        between = first(x)
        found = second(between)
    assert (between.dtype, found.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(found, layer(between.float()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_defaults_of_the_process_do_not_matter(anew, default):
    try:
        torch.set_default_dtype(default)
        with torch.device("meta"):
            assert kernel().works()
    finally:
        torch.set_default_dtype(torch.float32)


def test_only_layers_that_it_computes_have_the_form():
    taken = QConv2d(8, 8, 3, padding=1).requires_grad_(False)
    assert "tiled" in forms(taken) and "tiled" not in forms(taken, compile=False)
    assert "tiled" not in forms(taken, torch.bfloat16)
    for other in (
        nn.Conv2d(8, 8, 3, padding=1), QConv2d(8, 8, 3, padding=1).double(),
        QConv2d(8, 8, 1), QConv2d(8, 8, 3), QConv2d(8, 8, (3, 1)),
        QConv2d(8, 8, 3, padding=1, stride=2), QConv2d(8, 8, 3, padding=1, dilation=2),
        QConv2d(8, 8, 3, padding=(1, 0)),
    ):  # fmt: skip
        assert "tiled" not in forms(other.requires_grad_(False))


@pytest.mark.parametrize(
    ("channels", "count", "parallel", "others"),
    [(124, 2, True, False), (128, 2, True, True), (124, 2, False, True), (124, 1, False, False)],
)
def test_grouped_products_are_measured_where_they_may_win(
    channels, count, parallel, others, threads, monkeypatch
):
    threads(count)
    monkeypatch.setattr(kernel(), "parallel", parallel)
    layer = QConv2d(channels, 128, 3, padding=1).requires_grad_(False)
    names = worth_measuring(layer, forms(layer))
    assert "tiled" in names and "matrix" in names
    assert ("grouped" in names) is others
    assert "grouped" in worth_measuring(layer, forms(layer, compile=False))


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
    (kept,) = anew.glob("*.so")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    cpp_kernel.kernel.cache_clear()
    assert kernel().works()
    assert {*anew.iterdir()} == {kept, kept.with_suffix(".sha256")}


@pytest.mark.parametrize("spoil", ["text", "cut", "bit", "no hash", "no text"])
def test_a_spoilt_file_is_made_anew_and_never_opened(anew, spoil, monkeypatch):
    kernel()
    (kept,) = anew.glob("*.so")
    whole = kept.read_bytes()
    kept.unlink()  # the file that is loaded stays as it is
    flipped = bytes([whole[4000] ^ 1])
    contents = {"text": b"\x7fELF, and no more", "cut": whole[: len(whole) // 2],
                "bit": whole[:4000] + flipped + whole[4001:]}  # fmt: skip
    kept.write_bytes(contents.get(spoil, whole))
    if spoil == "no hash":
        kept.with_suffix(".sha256").unlink()
    elif spoil == "no text":
        kept.with_suffix(".sha256").write_bytes(b"\xff" * 64)
    opened, load = [], cpp_kernel.Kernel
    monkeypatch.setattr(cpp_kernel, "Kernel", lambda path: opened.append(path) or load(path))
    cpp_kernel.kernel.cache_clear()
    assert kernel().works()
    assert kept not in opened
    assert kept.read_bytes() == whole


@pytest.mark.parametrize("linked", ["kernels", ".so", ".sha256"])
def test_nothing_is_stored_through_a_link(anew, tmp_path, linked):
    kernel()
    (kept,) = anew.glob("*.so")
    path = anew if linked == "kernels" else kept.with_suffix(linked)
    other = path.rename(tmp_path / "other")
    path.symlink_to(other)
    files = [one for one in (other, *other.rglob("*")) if one.is_file()]
    for one in files:
        one.write_text("another's")
    other.chmod(0o755)
    cpp_kernel.kernel.cache_clear()
    assert kernel().works()
    assert {one.read_text() for one in files} == {"another's"}
    assert other.stat().st_mode & 0o777 == 0o755


def test_a_pipe_in_the_place_of_a_hash_is_not_waited_for(anew):
    kernel()
    (kept,) = anew.glob("*.so")
    kept.with_suffix(".sha256").unlink()
    os.mkfifo(kept.with_suffix(".sha256"))
    assert not cpp_kernel._is_ours(kept)
    cpp_kernel.kernel.cache_clear()
    assert kernel().works()


def test_the_cache_of_libraries_is_this_users_alone(anew, monkeypatch):
    before = os.umask(0)
    try:
        kernel()
    finally:
        os.umask(before)
    assert anew.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in anew.iterdir()} == {0o600}
    (kept,) = anew.glob("*.so")
    assert cpp_kernel._is_ours(kept)
    for path in (kept, kept.with_suffix(".sha256"), anew):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)
        assert not cpp_kernel._is_ours(kept)
        path.chmod(mode)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not cpp_kernel._is_ours(kept)


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
    assert cpp_kernel.kernel() is None
    layer = QConv2d(8, 8, 3, padding=1).requires_grad_(False)
    assert "tiled" not in forms(layer)
    with pytest.raises(RuntimeError, match="does not work on this machine"):
        Stage(layer, None, "tiled", (1, 8, 4, 4))


def test_an_open_quotation_is_no_compiler(anew, monkeypatch):
    monkeypatch.setenv("CXX", "g++ '")
    assert kernel().works()  # by one that is found


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("to[n] = c - d;", "to[n] = c + d;"),
        ("n += count * LANES)", "n += 2 * count * LANES)"),
        ("convolve<4>(source, plane", "convolve<2>(source, plane"),
        ("0.25f", "0.5f"),
        ("row[n] + other[n]", "row[n] - other[n]"),
    ],
)
def test_one_that_computes_something_else_is_not_used(anew, monkeypatch, tmp_path, right, wrong):
    text = cpp_kernel.SOURCE.read_text()
    assert text.count(right) == 1
    source = tmp_path / "tiled.cpp"
    source.write_text(text.replace(right, wrong))
    monkeypatch.setattr(cpp_kernel, "SOURCE", source)
    assert cpp_kernel.kernel() is None
