import io
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from qaudio.data.archive import Archive, install
from qaudio.data.benchmarks.audioset import AudioSet
from qaudio.data.benchmarks.esc50 import ESC50
from qaudio.data.benchmarks.folder import AudioFolder
from qaudio.data.benchmarks.gtzan import GTZAN
from qaudio.data.benchmarks.ravdess import RAVDESS, speech_names
from qaudio.download import CHUNK, Download
from qaudio.errors import DataError, DownloadError
from tests.support.server import serving


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("QAUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    with serving() as server:
        yield server


def zipped(files):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return held.getvalue()


def offered(server, files, top="top"):
    server.files["/a.zip"] = files if isinstance(files, bytes) else zipped(files)
    return Archive(Download("a.zip", f"{server.url}/a.zip"), top, "CC0")


@pytest.mark.filterwarnings("ignore:.*left out")
def test_esc10_is_downloaded_and_read(server, esc50_tree, monkeypatch, tmp_path):
    content = {
        f"ESC-50-master/{path.relative_to(esc50_tree)}": path.read_bytes()
        for path in esc50_tree.rglob("*.*")
    }
    there = offered(server, content, ESC50.archive.top)
    monkeypatch.setattr(ESC50, "archive", there)
    data = ESC50(str(tmp_path / "new" / "ESC-50"), esc10=True, download=True, sample_rate=8000)
    data.prepare_data()
    assert data.labels == ["dog", "rain", "clock_tick"]
    assert data.left_out == []
    data.prepare_data()
    assert len(server.requests) == 1
    assert not there.item.path.exists()


def encrypted():
    """An archive whose member says that it is encrypted."""
    content = bytearray(zipped({"top/a.wav": b"x"}))
    for start, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(start) + at] |= 1
    return bytes(content)


def packed_otherwise():
    """An archive whose member is packed by a method that there is none of."""
    content = bytearray(zipped({"top/a.wav": b"x"}))
    for start, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        content[content.index(start) + at] = 77
    return bytes(content)


@pytest.mark.parametrize("made", [encrypted, packed_otherwise])
def test_members_that_cannot_be_unpacked_are_refused(server, tmp_path, made):
    with pytest.raises(DataError, match=r"a\.zip is no whole zip file"):
        install(offered(server, made()), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_unpacks_to_more_than_the_disk_holds_is_refused_before(server, tmp_path, monkeypatch):
    free = lambda path: SimpleNamespace(free=1000)  # noqa: E731
    monkeypatch.setattr("qaudio.data.archive.shutil.disk_usage", free)
    with pytest.raises(DataError, match="unpacks to 1200 bytes, of which 1000 are free"):
        install(offered(server, {"top/a": bytes(600), "top/b": bytes(600)}), tmp_path / "new")


@pytest.mark.filterwarnings("ignore:.*left out")
def test_ravdess_is_downloaded_and_read(server, monkeypatch, tmp_path):
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(800), 8000, format="WAV")
    names = [name for name in speech_names() if name[12:17] == "01-01"]
    content = {f"Actor_{name[-2:]}/{name}.wav": sound.getvalue() for name in names}
    offer = offered(server, content, RAVDESS.archive.top)
    monkeypatch.setattr(RAVDESS, "archive", offer)
    data = RAVDESS(str(tmp_path / "RAVDESS"), download=True, sample_rate=8000)
    data.prepare_data()
    assert len(data.left_out) == 1440 - len(names)


def test_official_addresses_and_checksums():
    assert ESC50.archive.item.url == "https://github.com/karolpiczak/ESC-50/archive/master.zip"
    assert "zenodo.org/records/1188976" in RAVDESS.archive.item.url
    assert len(RAVDESS.archive.item.md5) == 32


def test_a_broken_download_leaves_no_folder_and_is_taken_up(server, tmp_path):
    big = np.random.default_rng(0).bytes(40 * CHUNK)
    offer, root = offered(server, {"top/big.bin": big}), tmp_path / "root"
    server.breaks = [20 * CHUNK, 0]
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        install(offer, root)
    assert not root.exists()
    install(offer, root)
    assert (root / "big.bin").read_bytes() == big
    assert server.asked("/a.zip")[-1] == f"bytes={20 * CHUNK}-"


@pytest.mark.parametrize(
    "name", ["top/../../evil", "/evil", "..\\evil", "top/..", "C:/evil", "top/../evil"]
)
def test_nothing_is_written_outside_the_folder(server, tmp_path, name):
    offer = offered(server, {"top/good": b"1", name: b"2"})
    with pytest.raises(DataError, match="outside of itself"):
        install(offer, tmp_path / "deep" / "root")
    assert not list(tmp_path.rglob("evil"))
    assert not list(tmp_path.rglob("good"))


def test_a_damaged_archive_is_named(server, tmp_path):
    content = bytearray(zipped({"top/a": b"x" * 1000}))
    content[200] ^= 1
    for damaged in (bytes(content), b"no zip file"):
        server.files["/a.zip"] = damaged
        item = Download(f"{len(damaged)}.zip", f"{server.url}/a.zip")
        with pytest.raises(DataError, match="no whole zip file"):
            install(Archive(item, "top", "CC0"), tmp_path / "root")
        assert not (tmp_path / "root").exists()
        assert not (tmp_path / ".root.unpacking").exists()


def test_a_link_to_a_folder_elsewhere_is_filled(server, tmp_path):
    for n, target in enumerate((tmp_path / "empty", tmp_path / "missing")):
        link = tmp_path / f"link{n}"
        link.symlink_to(target)
        if n == 0:
            target.mkdir()
        install(offered(server, {"top/a": b"1"}), link)
        assert link.is_symlink()
        assert (target / "a").read_bytes() == b"1"


def test_a_mount_point_is_refused_before_the_download(server, tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path / "disk")
    with pytest.raises(DataError, match=r"is a mount point: name a folder in it, such as .*disk"):
        install(offered(server, {"top/a": b"1"}), tmp_path / "disk")
    assert not server.requests


def test_an_archive_of_another_folder_is_kept_and_named(server, tmp_path):
    offer = offered(server, {"main/a": b"1"})
    with pytest.raises(DataError, match="holds no files in a folder top"):
        install(offer, tmp_path / "root")
    assert not (tmp_path / "root").exists()
    assert offer.item.path.exists()


def test_a_folder_with_files_is_left_alone(server, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mine").touch()
    install(offered(server, {"top/a": b"1"}), tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["mine"]
    assert not server.requests


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (AudioSet, r"YouTube videos.*eval_segments\.csv"),
        (GTZAN, "no licence and no official host.*genres/GENRE"),
        (AudioFolder, "your own recordings.*CLASS/FILE"),
    ],
)
def test_what_may_not_be_downloaded_says_what_is_expected_where(module, reason, tmp_path):
    with pytest.raises(DataError, match=f"is not downloaded: .*{reason}"):
        module(str(tmp_path), download=True)
