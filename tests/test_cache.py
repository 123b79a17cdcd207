"""The cache of ranges on this machine's disk, and the pipe: the same bytes as reading directly."""

import multiprocessing
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from conftest import NewFolder
from hypothesis import given, settings
from hypothesis import strategies as st

from bincount.errors import BadInput, BincountError
from bincount.storage import Folder, Range, RangeReader, open_store
from bincount.storage import cache as cache_module
from bincount.storage.cache import Cached
from bincount.storage.pipe import Piped

CONTENTS = {"a.tar": bytes(range(256)) * 5, "split/b.tar": b"b" * 100, "empty.tar": b""}


class Counting(RangeReader):
    """Reads a folder, and keeps what was asked of it."""

    def __init__(self, folder: Path):
        self._folder = Folder(folder)
        self.asked: list[Range] = []

    def read_ranges(self, ranges: Iterable[Range]) -> Iterator[bytes | str]:
        for each in ranges:
            self.asked.append(each)
            yield from self._folder.read_ranges([each])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "BLOCK", 64)
    monkeypatch.setattr(cache_module, "EVERY", 4)


@pytest.fixture(scope="module")
def far(new_folder: NewFolder) -> Path:
    folder = new_folder("far")
    for name, content in CONTENTS.items():
        Folder(folder).write(name, content)
    return folder


ranges = st.builds(Range, st.sampled_from([*CONTENTS, "gone.tar"]), st.integers(0, 1300), st.integers(1, 400))


@settings(max_examples=60)
@given(st.lists(ranges, max_size=12), st.sampled_from([200, 10_000]))
def test_whatever_is_read_is_what_lies_there(
    far: Path, new_folder: NewFolder, wanted: list[Range], most: int
) -> None:
    direct = list(Folder(far).read_ranges(wanted))
    cached = Cached(Counting(far), new_folder("cache"), most, "1")
    assert list(cached.read_ranges(wanted)) == direct
    assert list(cached.read_ranges(wanted)) == direct


def test_what_was_read_once_is_not_asked_for_again(far: Path, tmp_path: Path) -> None:
    reader = Counting(far)
    wanted = [Range("a.tar", 10, 200), Range("split/b.tar", 0, 100), Range("a.tar", 0, 256)]
    direct = list(Folder(far).read_ranges(wanted))
    assert list(Cached(reader, tmp_path, 10_000, "1").read_ranges(wanted)) == direct
    assert reader.asked == [Range("a.tar", 0, 256), Range("split/b.tar", 0, 128)]
    assert list(Cached(reader, tmp_path, 10_000, "1").read_ranges(wanted)) == direct
    assert len(reader.asked) == 2


def test_only_what_is_missing_is_asked_for(far: Path, tmp_path: Path) -> None:
    reader = Counting(far)
    cached = Cached(reader, tmp_path, 10_000, "1")
    list(cached.read_ranges([Range("a.tar", 64, 64)]))
    assert list(cached.read_ranges([Range("a.tar", 0, 320)])) == [CONTENTS["a.tar"][:320]]
    list(cached.read_ranges([Range("a.tar", 0, 640)]))
    assert reader.asked == [
        Range("a.tar", 64, 64),
        Range("a.tar", 0, 320),  # around the block that is there, in one piece
        Range("a.tar", 320, 320),
    ]


def test_the_folder_stays_within_its_bound_and_keeps_what_was_used_last(far: Path, tmp_path: Path) -> None:
    cached = Cached(Counting(far), tmp_path, 512, "1")
    for start in range(0, 1280, 64):
        list(cached.read_ranges([Range("a.tar", start, 64)]))
        list(cached.read_ranges([Range("split/b.tar", 0, 64)]))
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) <= 512 + 4 * 64
    assert any(path.parent.name == "b.tar" for path in kept)
    assert not any(path.name == "000000" and path.parent.name == "a.tar" for path in kept)


def test_another_version_shares_no_block(far: Path, tmp_path: Path) -> None:
    reader = Counting(far)
    for version in ("1", "2"):
        list(Cached(reader, tmp_path, 10_000, version).read_ranges([Range("a.tar", 0, 64)]))
    assert len(reader.asked) == 2


def test_a_block_that_is_taken_away_meanwhile_is_read_from_afar(far: Path, tmp_path: Path) -> None:
    cached = Cached(Counting(far), tmp_path, 10_000, "1")
    wanted = [Range("a.tar", 0, 64), Range("a.tar", 64, 64), Range("a.tar", 0, 128)]
    list(cached.read_ranges(wanted))
    found = cached.read_ranges(wanted)
    assert next(found) == CONTENTS["a.tar"][:64]
    for path in tmp_path.rglob("0*"):
        path.unlink()
    assert list(found) == [CONTENTS["a.tar"][64:128], CONTENTS["a.tar"][:128]]


def _read_all(far: Path, folder: Path, turn: int) -> bool:
    starts = range(0, 1280, 64) if turn % 2 else range(1216, -1, -64)
    wanted = [Range("a.tar", start, 64) for start in starts] * 20
    cached = Cached(Folder(far), folder, 640, "1")
    return list(cached.read_ranges(wanted)) == list(Folder(far).read_ranges(wanted))


def test_several_processes_share_a_folder(far: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert all(pool.starmap(_read_all, [(far, tmp_path, turn) for turn in range(4)]))


# --- the pipe -----------------------------------------------------------------------------------------


@pytest.fixture
def aws(tmp_path: Path, far: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program ``aws`` that prints the file which the address names, and keeps its arguments."""
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    kept = tmp_path / "arguments"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{kept}"\n'
        f'for last; do :; done\nset -- "$5"\nexec cat "{far}/${{1#s3://bucket/}}"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    return kept


def test_a_pipe_gives_the_same_bytes_and_reads_an_object_once_in_a_row(aws: Path, far: Path) -> None:
    wanted = [Range("a.tar", 10, 20), Range("a.tar", 500, 64), Range("split/b.tar", 0, 400)]
    piped = Piped(open_store("s3://bucket"))
    assert list(piped.read_ranges(wanted)) == list(Folder(far).read_ranges(wanted))
    assert aws.read_text().count("s3://bucket/") == 2


def test_a_name_never_reaches_a_shell(aws: Path, tmp_path: Path) -> None:
    evil = f"$(touch {tmp_path}/evil); touch {tmp_path}/evil #.tar"
    with pytest.raises(BincountError, match="aws s3 cp s3://bucket/"):
        list(Piped(open_store("s3://bucket")).read_ranges([Range(evil, 0, 1)]))
    assert not (tmp_path / "evil").exists()
    assert f"s3://bucket/{evil}" in aws.read_text()


def test_a_pipe_needs_s3_and_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=f"data.reader=pipe reads from S3, and data.root={tmp_path} is not"):
        Piped(Folder(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(BadInput, match="there is no program aws: install awscli"):
        list(Piped(open_store("s3://bucket")).read_ranges([Range("a.tar", 0, 1)]))


def test_what_else_lies_in_the_folder_stays(far: Path, tmp_path: Path) -> None:
    mine = tmp_path / "thesis.txt"
    mine.write_bytes(b"m" * 2000)
    os.utime(mine, (0, 0))
    cached = Cached(Counting(far), tmp_path, 256, "1")
    for start in range(0, 1280, 64):
        list(cached.read_ranges([Range("a.tar", start, 64)]))
    assert mine.read_bytes() == b"m" * 2000


def test_where_nothing_can_be_kept_it_is_told_once_and_read_anew(
    far: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cached = Cached(Counting(far), tmp_path / "file", 10_000, "1")
    wanted = [Range("a.tar", 10, 200), Range("split/b.tar", 0, 100), Range("a.tar", 0, 256)]
    direct = list(Folder(far).read_ranges(wanted))
    assert [list(cached.read_ranges(wanted)) for _ in range(2)] == [direct, direct]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "nothing more can be kept there (Not a directory)"
    ]
