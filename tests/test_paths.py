import errno
import os
import threading
from pathlib import Path

import pytest

from qaudio import paths
from qaudio.cli import main
from qaudio.paths import expanded, replace_folder, replacing, write_whole


@pytest.fixture
def there(tmp_path):
    path = tmp_path / "there"
    path.write_text("old")
    return path


def test_the_new_content_comes_at_the_end_and_all_at_once(there):
    with replacing(there) as file:
        file.write(b"new")
        file.flush()
        assert there.read_text() == "old"
    assert there.read_text() == "new"
    assert [path.name for path in there.parent.iterdir()] == ["there"]


def test_write_whole_makes_the_folders_and_replaces_a_link_only_where_asked_to(there, tmp_path):
    write_whole(tmp_path / "a" / "b", "ä")
    assert (tmp_path / "a" / "b").read_bytes() == "ä".encode()
    for follow in (True, False):
        link = tmp_path / f"link{follow}"
        link.symlink_to(there)
        write_whole(link, b"new", follow)
        assert link.is_symlink() == follow
        assert link.read_bytes() == b"new"


def test_what_fails_leaves_the_old_content_and_nothing_else(there):
    with pytest.raises(RuntimeError, match="spoilt"), replacing(there) as file:
        file.write(b"half")
        raise RuntimeError("spoilt")
    assert there.read_text() == "old"
    assert [path.name for path in there.parent.iterdir()] == ["there"]


def test_the_content_is_on_the_disk_before_it_has_the_name(there, monkeypatch):
    done = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: done.append(there.read_text()) or real(file))
    with replacing(there) as file:
        file.write(b"new")
    assert done == ["old"]


def test_a_link_stays_a_link(there):
    link = there.with_name("link")
    link.symlink_to(there)
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert there.read_text() == "new"


def test_a_link_that_is_not_to_be_followed_is_replaced(there):
    link, loop = there.with_name("link"), there.with_name("loop")
    link.symlink_to(there)
    loop.symlink_to(loop)
    for path in (link, loop):
        with replacing(path, follow=False) as file:
            file.write(b"new")
        assert path.read_text() == "new" and not path.is_symlink()
    assert there.read_text() == "old"


def test_a_link_to_itself_is_an_error_that_names_it(there):
    loop = there.with_name("loop")
    loop.symlink_to(loop)
    with pytest.raises(OSError, match=r"a link that leads to itself: '.*loop'"), replacing(loop):
        pass


def test_a_new_file_is_as_readable_as_the_users_others(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "new"):
            pass
    finally:
        os.umask(before)
    expected = 0o666 if os.name == "nt" else 0o640  # Windows knows no groups
    assert (tmp_path / "new").stat().st_mode & 0o777 == expected


def test_an_error_names_the_file_that_was_asked_for(there):
    with (
        pytest.raises(FileExistsError, match=r"something else than a file: "),
        replacing(there.parent),
    ):
        pass
    with pytest.raises(OSError, match=r"No space left on device: '.*there'$"), replacing(there):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=r"below'$"), replacing(there / "below"):
        pass
    assert there.read_text() == "old"


def test_several_writers_at_once_leave_one_whole_file(there):
    def write(letter):
        for _ in range(20):
            with replacing(there) as file:
                for _ in range(50):
                    file.write(letter * 1000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    found = {there.read_bytes() for _ in range(200)}
    for thread in threads:
        thread.join()
    assert found <= {b"old", b"a" * 50_000, b"b" * 50_000}
    assert there.read_bytes() in (b"a" * 50_000, b"b" * 50_000)


# Folders.


def fill(folder: Path, content: str) -> None:
    (folder / "sub").mkdir()
    (folder / "a").write_text(content)
    (folder / "sub" / "b").write_text(content)


def content(folder: Path) -> set[str]:
    return {path.read_text() for path in (folder / "a", folder / "sub" / "b")}


@pytest.fixture(params=["in one step", "in two"])
def steps(request, monkeypatch):
    """Also as on a system that cannot exchange two names."""
    if request.param == "in two":
        monkeypatch.setattr(paths, "_exchanged", lambda new, folder: False)


def test_a_folder_is_replaced_and_nothing_is_left(tmp_path, steps):
    for word in ("one", "two"):
        replace_folder(tmp_path / "folder", lambda new, word=word: fill(new, word))
        assert content(tmp_path / "folder") == {word}
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "dog.ogg").write_text("a recording")
    with pytest.raises(NotADirectoryError, match=r"dog\.ogg"):
        replace_folder(tmp_path / "dog.ogg", lambda new: fill(new, "one"))
    assert (tmp_path / "dog.ogg").read_text() == "a recording"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_to_be_kept_is_in_the_new_folder_too(tmp_path, steps):
    folder = tmp_path / "folder"
    replace_folder(folder, lambda new: fill(new, "one"))
    (folder / "kept" / "deep").mkdir(parents=True)
    (folder / "kept" / "deep" / "c").write_text("old")
    (folder / "d").write_text("old")
    replace_folder(folder, lambda new: fill(new, "two"), keep=("kept", "d", "missing"))
    assert content(folder) == {"two"}
    assert [(folder / name).read_text() for name in ("kept/deep/c", "d")] == ["old", "old"]
    assert not (folder / "missing").exists()


def test_a_folder_that_cannot_be_filled_leaves_the_old_one(tmp_path, steps):
    replace_folder(tmp_path / "folder", lambda new: fill(new, "one"))

    def full(new):
        fill(new, "two")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device: '.*folder'$"):
        replace_folder(tmp_path / "folder", full)
    assert content(tmp_path / "folder") == {"one"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_is_never_missing_while_it_is_replaced(tmp_path):
    folder = tmp_path / "folder"
    replace_folder(folder, lambda new: fill(new, "one"))
    missing, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            if not folder.exists():
                missing.append(1)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(200):
        replace_folder(folder, lambda new: fill(new, "two"))
    stop.set()
    thread.join()
    assert not missing or os.name == "nt"  # which has no such call


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    replace_folder(tmp_path / "folder", lambda new: fill(new, "one"))
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    replace_folder(tmp_path / "link", lambda new: fill(new, "two"))
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "folder") == {"two"}


def test_a_folder_that_appears_meanwhile_is_replaced_too(tmp_path, monkeypatch):
    folder, real = tmp_path / "folder", os.replace

    def after_another(new, target):
        if not folder.exists():
            (folder / "other").mkdir(parents=True)
        real(new, target)

    monkeypatch.setattr(os, "replace", after_another)
    replace_folder(folder, lambda new: (new / "ours").touch())
    assert [path.name for path in folder.iterdir()] == ["ours"]
    assert list(tmp_path.iterdir()) == [folder]


def test_expanded_leaves_the_home_of_nobody_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/x") == tmp_path / "x"
    assert expanded("~nosuchuser/x") == Path("~nosuchuser/x")


@pytest.mark.parametrize("name", ["~nosuchuser/x", "~nosuchuser/x.wav"])
def test_the_home_of_nobody_is_one_line(name, capsys):
    for command in (["info"], ["verify"], ["predict"], ["finetune", "--show-recipe"]):
        capsys.readouterr()
        assert main([*command, name]) == 1
        assert capsys.readouterr().err.count("\n") == 1
