"""Shards: ours byte by byte, and whatever another program may have put in a tar file."""

import hashlib
import io
import json
import tarfile
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import NewFolder
from hypothesis import given
from hypothesis import strategies as st
from making import declaring, encoded, jpeg, photo, write_shards

from bincount.data.foreign import read_samples
from bincount.data.shards import Sample
from bincount.storage import read_range

Members = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def folder(new_folder: NewFolder) -> Path:
    return new_folder("shards")


def written(root: Path, photos: int = 5, per_shard: int = 2) -> list[Sample]:
    of_id = {f"{n:05d}": (n, jpeg(40 + n, 32, n), 40 + n, 32) for n in range(photos)}
    return write_shards(root, "train", of_id, per_shard)


def found(folder: Path, members: Members) -> list[Sample | tuple[str, str]]:
    """What is found in a tar of these members."""
    with tarfile.open(folder / "foreign.tar", "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return list(read_samples(folder, "foreign.tar"))


def ids_and_counts(folder: Path, members: Members) -> list[tuple[str, int | None]]:
    samples = found(folder, members)
    assert all(isinstance(sample, Sample) for sample in samples), samples
    return [(sample.id, sample.count) for sample in samples if isinstance(sample, Sample)]


# --- our own ------------------------------------------------------------------------------------------


def test_every_offset_leads_to_the_bytes_that_were_written(tmp_path: Path) -> None:
    for n, sample in enumerate(written(tmp_path)):
        assert sample.shard == f"train/bins-{n // 2:06d}.tar"
        content = read_range(tmp_path / sample.shard, sample.jpeg_offset, sample.jpeg_length)
        assert content == jpeg(40 + n, 32, n)
        whole = read_range(tmp_path / sample.shard, sample.offset, sample.length)
        with tarfile.open(fileobj=io.BytesIO(whole + bytes(1024)), mode="r:") as tar:
            assert tar.getnames() == [f"{sample.id}.jpg", f"{sample.id}.json"]
            member = tar.extractfile(f"{sample.id}.json")
            assert member is not None
            assert json.load(member) == {"id": sample.id, "count": n}


def test_samples_lie_end_to_end(tmp_path: Path) -> None:
    samples = written(tmp_path, per_shard=10)
    assert samples[0].offset == 0
    for before, after in pairwise(samples):
        assert after.offset == before.offset + before.length


def test_the_same_photos_make_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        written(tmp_path / name)
        shards = sorted((tmp_path / name).rglob("*.tar"))
        digests.append([hashlib.sha256(shard.read_bytes()).hexdigest() for shard in shards])
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 3


@pytest.mark.parametrize("id", ["1", "x" * 95])
def test_a_member_has_a_header_of_one_block_and_a_whole_time(tmp_path: Path, id: str) -> None:
    (sample,) = write_shards(tmp_path, "train", {id: (3, jpeg(), 40, 32)}, 10)
    assert sample.jpeg_offset == sample.offset + 512
    with tarfile.open(tmp_path / sample.shard) as tar:
        for member in tar:
            assert member.mtime == 0
            assert isinstance(member.mtime, int)
            assert not member.pax_headers
            assert member.offset_data - member.offset == 512


def test_an_id_that_is_not_ascii_keeps_its_name_and_its_place(tmp_path: Path) -> None:
    photos = {id: (1, jpeg(seed=n), 40, 32) for n, id in enumerate(["fächer", "箱"])}
    samples = write_shards(tmp_path, "train", photos, 10)
    for n, sample in enumerate(samples):
        assert read_range(tmp_path / sample.shard, sample.jpeg_offset, sample.jpeg_length) == jpeg(seed=n)
    assert list(read_samples(tmp_path, samples[0].shard)) == samples


def test_a_photo_without_a_label_has_no_count(tmp_path: Path) -> None:
    (sample,) = write_shards(tmp_path, "unlabelled", {"7": (None, jpeg(), 40, 32)}, 10)
    with tarfile.open(tmp_path / sample.shard) as tar:
        member = tar.extractfile("7.json")
        assert member is not None
        assert json.load(member) == {"id": "7", "count": None}


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.integers(1, 9))
def test_offsets_hold_for_contents_of_any_length(folder: Path, lengths: list[int], per_shard: int) -> None:
    contents = [bytes([n + 1]) * length for n, length in enumerate(lengths)]
    photos = {f"p{n}": (n, content, 1, 1) for n, content in enumerate(contents)}
    samples = write_shards(folder, "any", photos, per_shard)
    for sample, content in zip(samples, contents, strict=True):
        assert read_range(folder / sample.shard, sample.jpeg_offset, sample.jpeg_length) == content


def test_indexing_our_own_shards_finds_what_was_written(tmp_path: Path) -> None:
    samples = written(tmp_path, per_shard=10)
    assert list(read_samples(tmp_path, samples[0].shard)) == samples


# --- shards made elsewhere ----------------------------------------------------------------------------


def test_the_count_comes_from_a_class_or_from_json(folder: Path) -> None:
    members = [
        ("a.jpg", jpeg()),
        ("a.cls", b"3"),
        ("b.json", b'{"count": 2}'),
        ("b.jpg", jpeg()),
        ("c.jpeg", jpeg()),
        ("c.cls", b" 4\n"),
        ("d.JPG", jpeg()),
        ("d.CLS", b"0"),
        ("e.jpg", jpeg()),
        ("e.json", b'{"count": "5"}'),
    ]
    assert ids_and_counts(folder, members) == [("a", 3), ("b", 2), ("c", 4), ("d", 0), ("e", 5)]


@pytest.mark.parametrize("order", [1, -1])
def test_json_without_a_count_does_not_hide_the_class(folder: Path, order: int) -> None:
    members = [("a.jpg", jpeg()), ("a.cls", b"3"), ("a.json", b'{"weight": 1}')][::order]
    assert ids_and_counts(folder, members) == [("a", 3)]


def test_the_id_comes_from_json_where_it_has_one(folder: Path) -> None:
    members: Members = []
    for n, fields in enumerate([{"id": "00017"}, {"id": 17}, {"id": None}, {"id": ""}, {"id": [1]}, {}]):
        members += [(f"k{n}.jpg", jpeg()), (f"k{n}.json", json.dumps({"count": n, **fields}).encode())]
    assert [id for id, _ in ids_and_counts(folder, members)] == ["00017", "17", "k2", "k3", "k4", "k5"]


def test_samples_in_folders_are_kept_apart(folder: Path) -> None:
    members = [("x/1.jpg", jpeg()), ("x/1.cls", b"1"), ("y/1.jpg", jpeg(seed=1)), ("y/1.cls", b"2")]
    assert ids_and_counts(folder, members) == [("1", 1), ("1", 2)]


def test_folders_hidden_files_and_other_members_are_passed_over(folder: Path) -> None:
    members = [
        ("._a.jpg", b"made by a Mac"),
        ("./a.jpg", jpeg()),
        ("./._a.cls", b"made by a Mac"),
        ("./a.seg.png", b"a mask"),
        ("./a.cls", b"2"),
    ]
    assert ids_and_counts(folder, members) == [("a", 2)]
    with tarfile.open(folder / "foreign.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("d"))
        directory = tarfile.TarInfo("e")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
    assert list(read_samples(folder, "foreign.tar")) == [("d", "has no .jpg member")]


def test_the_size_is_that_of_the_photo(folder: Path) -> None:
    (sample,) = found(folder, [("a.jpg", jpeg(48, 36)), ("a.cls", b"1")])
    assert isinstance(sample, Sample)
    assert (sample.width, sample.height) == (48, 36)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.cls", b"1")], "has no .jpg member"),
        ([("a.jpg", jpeg())], 'has no count: neither "count" in a .json member nor a .cls member'),
        ([("a.jpg", jpeg()), ("a.cls", b"-1")], "has no count"),
        ([("a.jpg", jpeg()), ("a.cls", b"two")], "has no count"),
        ([("a.jpg", jpeg()), ("a.cls", "²".encode())], "has no count"),
        ([("a.jpg", jpeg()), ("a.cls", b"9" * 5000)], "has no count"),
        ([("a.jpg", jpeg()), ("a.json", '{"count": "²"}'.encode())], "has no count"),
        ([("a.jpg", jpeg()), ("a.json", b'{"count": 1.5}')], "has no count"),
        ([("a.jpg", jpeg()), ("a.json", b'{"count": true}')], "has no count"),
        ([("a.jpg", jpeg()), ("a.json", b'{"count": 3000000000}')], "has no count"),
        ([("a.jpg", jpeg()), ("a.json", b'["count", 1]')], "has no count"),
        ([("a.jpg", jpeg()), ("a.json", b'{"count": 1')], "has no count"),
        ([("a.jpg", b""), ("a.cls", b"1")], "its JPEG header is damaged or truncated"),
        ([("a.jpg", jpeg()[:20]), ("a.cls", b"1")], "its JPEG header is damaged or truncated"),
        ([("a.jpg", encoded(photo(), "PNG")), ("a.cls", b"1")], "its JPEG header is damaged or truncated"),
        ([("a.jpg", declaring(jpeg(), 65000, 65000)), ("a.cls", b"1")], "65000x65000 pixels are too many"),
    ],
)
def test_a_sample_that_cannot_be_used_is_told_with_its_reason(
    folder: Path, members: Members, reason: str
) -> None:
    good = [("z.jpg", jpeg()), ("z.cls", b"1")]
    told, sample = found(folder, [*members, *good])
    assert isinstance(told, tuple)
    assert told[0] == "a"
    assert told[1].startswith(reason)
    assert isinstance(sample, Sample)
    assert sample.id == "z"


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, jpeg()])
def test_what_is_no_tar_is_refused(folder: Path, content: bytes) -> None:
    (folder / "no.tar").write_bytes(content)
    with pytest.raises(tarfile.TarError):
        list(read_samples(folder, "no.tar"))


def test_a_tar_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    samples = written(tmp_path, photos=3, per_shard=3)
    shard = tmp_path / samples[0].shard
    shard.write_bytes(shard.read_bytes()[: samples[2].jpeg_offset + 10])
    with pytest.raises(tarfile.TarError):
        list(read_samples(tmp_path, samples[0].shard))
