"""Files and folders that are written whole or not at all."""

import os
import platform
from pathlib import Path

import pytest

from atrous.files import find_folder, remove_leftovers, replacing_folder, sync_folder, write_atomically


class Cut(BaseException):
    """The process ends here."""


def write(folder: Path, text: str) -> None:
    with replacing_folder(folder) as new:
        (new / "file").write_text(text)
        sync_folder(new)


def read(folder: Path) -> str | None:
    found = find_folder(folder)
    return (found / "file").read_text() if found else None


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new/a.bin"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_killed_process_left_is_removed_and_what_others_write_is_not(tmp_path: Path) -> None:
    if (process := os.fork()) == 0:
        os._exit(0)
    os.waitpid(process, 0)
    names = [f".{platform.node()}-{number}-{32 * 'a'}.tmp" for number in (process, os.getpid())]
    for name in (*names, f".elsewhere-{process}-{32 * 'a'}.tmp", "mine.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [names[1], f".elsewhere-{process}-{32 * 'a'}.tmp", "mine.tmp"]
    )


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_folder_whose_writing_fails_is_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    write(tmp_path / "a", "old")

    def fail(new: Path) -> None:
        (new / "file").write_text("half")
        raise error

    with pytest.raises(error), replacing_folder(tmp_path / "a") as new:
        fail(new)
    assert read(tmp_path / "a") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("rename", [1, 2])
def test_a_folder_cut_off_at_a_rename_is_found_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rename: int
) -> None:
    write(tmp_path / "a", "old")
    calls, replace = iter(range(1, 9)), Path.replace

    def cut(path: Path, target: Path) -> Path:
        if next(calls) == rename:
            raise Cut
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with pytest.raises(Cut):
            write(tmp_path / "a", "new")
    kept = "old" if rename == 1 else "new"
    assert read(tmp_path / "a") == kept
    with pytest.raises(Cut), replacing_folder(tmp_path / "a"):  # cut off once more, while the next one is written
        raise Cut
    assert read(tmp_path / "a") == kept
    write(tmp_path / "a", "newest")
    assert read(tmp_path / "a") == "newest"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_first_folder_cut_off_while_it_is_written_is_none(tmp_path: Path) -> None:
    (tmp_path / ".a.new").mkdir()
    assert find_folder(tmp_path / "a") is None


def test_a_folder_whose_parent_is_missing_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "gone/a", "new")


def test_a_link_to_a_folder_stays_one_however_often_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk/a", "old")
    (tmp_path / "link").symlink_to("disk/a")
    for text in ("new", "newer"):
        write(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert read(tmp_path / "link") == read(tmp_path / "disk/a") == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["a"]


def test_a_link_to_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/a")
    write(tmp_path / "link", "first")
    assert read(tmp_path / "disk/a") == "first"
