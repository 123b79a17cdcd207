"""`bincount doctor`: what is in order, what is not, and that it tells so where anything may be broken."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from conftest import Bucket
from packaging.specifiers import SpecifierSet
from s3_server import KEY, SECRET

from bincount import cli, machine, run
from bincount.checkup import environment, places
from bincount.checkup.finding import Check, Finding, Mark
from bincount.doctor import shown
from bincount.storage import objects

#: What torch tells on a machine like that of the tests.
TORCH = {
    "torch": "2.9",
    "threads": 1,
    "cuda": None,
    "cpu_bf16": False,
    "gpus": [],
    "gpu_bf16": False,
    "warned": [],
}
H200 = {"name": "NVIDIA H200", "memory": 150e9}

Doctor = Callable[..., tuple[int, dict[str, list[str]], str]]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Runs `bincount doctor` in an empty folder, where torch tells what TORCH does.

    Gives its exit code, each line by what was looked at, and what went to standard error.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "probe", lambda: (TORCH, ""))
    monkeypatch.setattr(environment, "_seen_by_driver", list)

    def ask(*words: str) -> tuple[int, dict[str, list[str]], str]:
        capsys.readouterr()
        code = cli.main(["doctor", *words])
        told = capsys.readouterr()
        lines: dict[str, list[str]] = {}
        for line in told.out.splitlines():
            mark, what, _ = line.split(maxsplit=2)
            assert mark in ("ok", "hint", "bad")
            lines.setdefault(what, []).append(line)
        return code, lines, told.err

    return ask


def test_on_a_fresh_machine_nothing_is_wrong_and_it_says_how_to_begin(doctor: Doctor, tmp_path: Path) -> None:
    code, lines, err = doctor()
    assert (code, err) == (0, "")
    assert lines["data"] == ["hint  data         no data in data/drawn yet: bincount prepare"]
    assert lines["run"] == ["hint  run          no run in runs yet: bincount train"]
    assert "none: trains on the CPU in 32 bits" in lines["GPU"][0]
    assert "runs is not there yet, and can be made" in lines["runs"][0]
    assert f"torch {metadata.version('torch')}" in lines["packages"][0]
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_and_a_run_in_order(doctor: Doctor, small_data: Path, small_run: Path) -> None:
    code, lines, _ = doctor(f"data.root={small_data}", f"run={small_run}", f"runs={small_run.parents[1]}")
    assert code == 0
    splits = json.loads((small_data / "index.json").read_bytes())["splits"]
    told = ", ".join(f"{splits[name]['samples']} {name}" for name in ("train", "val", "test"))
    assert f"{small_data}: {told}; its index has the right digest" in lines["data"][0]
    assert "are there, each as long as the index says" in lines["shards"][0]
    assert "train 48x48, val 48x48, test 48x48 pixels" in lines["photos"][0]
    assert f"{small_run}: it loads, and tells " in lines["run"][0]
    assert " of a drawn bin of 3 (" in lines["run"][0]
    latest = doctor(f"runs={small_run.parents[1]}")[1]
    assert f"{small_run}: it loads" in latest["run"][0]


@pytest.fixture
def broken(small_data: Path, tmp_path: Path) -> Path:
    """A copy of the small data set, to be broken."""
    return Path(shutil.copytree(small_data, tmp_path / "broken"))


def test_shards_that_are_missing_or_cut_short_are_named(doctor: Doctor, broken: Path) -> None:
    (broken / "train/bins-000000.tar").unlink()
    os.truncate(broken / "test/bins-000000.tar", 5000)
    code, lines, err = doctor(f"data.root={broken}")
    assert code == 1
    assert lines["data"][0].startswith("ok")
    assert "test/bins-000000.tar ends before byte" in lines["shards"][0]
    assert "train/bins-000000.tar is not there, " in lines["shards"][0]
    assert ": copy them again, or prepare again" in lines["shards"][0]
    assert err.startswith("bincount: ")
    assert " not in order: see what its line says" in err


def test_a_photo_that_does_not_decode_is_named(doctor: Doctor, broken: Path) -> None:
    for shard in (broken / "val").glob("*.tar"):
        content = shard.read_bytes()
        shard.write_bytes(content.replace(b"\xff\xd8\xff", b"\x00\x00\x00"))
    code, lines, _ = doctor(f"data.root={broken}")
    assert code == 1
    assert " of val cannot be read: not a JPEG or PNG: copy its shard again" in lines["photos"][0]


def test_an_index_that_is_another_ones_is_bad(doctor: Doctor, broken: Path) -> None:
    (broken / "index.parquet").write_bytes(b"something else")
    code, lines, _ = doctor(f"data.root={broken}")
    assert code == 1
    assert "bad   data" in lines["data"][0]
    assert "is not the one that index.json names: prepare the data set again" in lines["data"][0]
    assert "runs" in lines


@pytest.mark.parametrize(
    ("words", "what", "told"),
    [
        (["data.root=nowhere"], "data", "there is no such folder: make it with `bincount prepare`"),
        (["run=nowhere/a"], "run", "nowhere/a is no run"),
        (["runs=file/runs"], "runs", "is a file: name a folder"),
        (["runs=s3://bucket/runs"], "runs", "is not a folder"),
        (["out=file/x"], "out", "file/x"),
    ],
)
def test_what_was_asked_for_and_is_not_there_is_bad(
    doctor: Doctor, tmp_path: Path, words: list[str], what: str, told: str
) -> None:
    (tmp_path / "file").touch()
    code, lines, _ = doctor(*words)
    assert code == 1
    assert lines[what][0].startswith("bad")
    assert told in lines[what][0]


def test_a_damaged_checkpoint_is_a_line(doctor: Doctor, tmp_path: Path, small_run: Path) -> None:
    copy = Path(shutil.copytree(small_run, tmp_path / "runs/default/a"))
    (copy / run.BEST).write_bytes(b"not a checkpoint")
    code, lines, _ = doctor("run=default/a")
    assert code == 1
    assert "cannot be read, it may be damaged" in lines["run"][0]


def test_out_is_written_to_and_left_as_it_was(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    code, lines, _ = doctor("out=out")
    assert code == 0
    assert lines["out"] == ["ok    out          out can be written to"]
    assert list((tmp_path / "out").iterdir()) == []


def test_s3_is_listed_read_and_written_to_only_where_asked(
    doctor: Doctor, bucket: Bucket, small_data: Path
) -> None:
    shutil.copytree(small_data, bucket.folder / "bins")
    before = sorted(bucket.folder.rglob("*"))
    code, lines, err = doctor(f"data.root={bucket.address}/bins")
    assert (code, err) == (0, "")
    assert "found (AWS_ACCESS_KEY_ID), asking 127.0.0.1" in lines["credentials"][0]
    assert f"{bucket.address}/bins can be listed and read (" in lines["S3"][0]
    assert "are there, each as long as the index says" in lines["shards"][0]
    assert "out" not in lines
    code, lines, _ = doctor(f"s3={bucket.address}", f"out={bucket.address}/new")
    assert code == 0
    assert f"{bucket.address}/new can be written to" in lines["out"][0]
    assert sorted(bucket.folder.rglob("*")) == before
    told = str(lines)
    assert SECRET not in told
    assert KEY not in told


def test_s3_that_refuses_or_is_empty_is_a_line(
    doctor: Doctor, bucket: Bucket, no_aws: pytest.MonkeyPatch
) -> None:
    code, lines, _ = doctor(f"s3={bucket.address}")
    assert code == 1
    assert f"{bucket.address} can be listed, and holds nothing" in lines["S3"][0]
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    code, lines, err = doctor(f"s3={bucket.address}/bins")
    assert code == 1
    assert "access denied: check AWS_PROFILE" in lines["S3"][0]
    assert "another-secret" not in f"{lines}{err}"
    no_aws.delenv("AWS_ACCESS_KEY_ID")
    assert "requests are not signed" in doctor(f"s3={bucket.address}")[1]["credentials"][0]


def test_an_endpoint_that_does_not_answer_is_told_without_its_password(
    doctor: Doctor, bucket: Bucket, no_aws: pytest.MonkeyPatch
) -> None:
    no_aws.setattr(objects, "TRIES", 1)
    no_aws.setenv("AWS_ENDPOINT_URL", "http://somebody:pass-word@127.0.0.1:9")
    code, lines, err = doctor(f"s3={bucket.address}")
    assert code == 1
    assert "no whole answer in 1 tries" in lines["S3"][0]
    assert "asking 127.0.0.1" in lines["credentials"][0]
    assert "pass-word" not in f"{lines}{err}"


def gpu_line(monkeypatch: pytest.MonkeyPatch, probed: dict[str, Any], driver: list[str]) -> Finding:
    monkeypatch.setattr(environment, "probe", lambda: (probed, ""))
    monkeypatch.setattr(environment, "_seen_by_driver", lambda: driver)
    (found,) = environment.gpu()
    return found


def test_a_gpu_is_told_with_its_driver_and_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    there = TORCH | {"gpus": [H200], "gpu_bf16": True, "cuda": "13.2"}
    found = gpu_line(monkeypatch, there, ["NVIDIA H200, 575.1"])
    assert found.mark is Mark.OK
    assert "NVIDIA H200 (150.0 GB); driver 575.1, CUDA 13.2; launcher=gpu trains on it in bf16" in found.told
    old = gpu_line(monkeypatch, there | {"gpu_bf16": False}, [])
    assert (old.mark, old.fix) == (Mark.HINT, "launcher.precision=16-mixed is quicker")


def test_a_gpu_that_torch_cannot_use_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu_line(monkeypatch, TORCH, ["NVIDIA H200, 575.1"])
    assert found.mark is Mark.BAD
    assert "torch 2.9 is built for the CPU alone" in found.told
    warned = TORCH | {"cuda": "13.2", "warned": ["CUDA initialization: the driver is too old"]}
    assert "cannot use it: CUDA initialization" in gpu_line(monkeypatch, warned, ["T4, 440.1"]).told
    assert gpu_line(monkeypatch, {}, ["T4, 440.1"]).mark is Mark.HINT


@pytest.mark.parametrize(
    ("needed", "told"),
    [
        ("numpy>=99", "does not do: pip install 'numpy>=99'"),
        ("no-such-package>=1", "is not installed: pip install 'no-such-package>=1'"),
    ],
)
def test_a_package_that_is_missing_or_too_old_is_named(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, needed: str, told: str
) -> None:
    asked = ["numpy>=1", "wandb>=99; extra == 'wandb'"]
    monkeypatch.setattr(metadata, "requires", lambda name: [*asked, needed] if name == "bincount" else [])
    code, lines, _ = doctor()
    assert code == 1
    assert told in lines[needed.partition(">")[0]][0]
    assert "packages" not in lines


def test_a_torchvision_made_for_another_torch_is_bad(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_torch_of_torchvision", lambda: SpecifierSet("==2.0.1"))
    code, lines, _ = doctor()
    assert code == 1
    assert "is made for torch==2.0.1, and torch is" in lines["torchvision"][0]
    assert "pip install 'torch==2.0.1'" in lines["torchvision"][0]


def test_little_room_memory_and_time_are_told(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LEAST_DISK", 1e18)
    monkeypatch.setattr(environment, "LEAST_MEMORY", 1e18)
    monkeypatch.setattr(environment, "_processor_limit", lambda: 0.5)
    code, lines, _ = doctor()
    assert code == 1
    assert "make room" in lines["disk"][0]
    assert lines["runs"][0].startswith("bad")
    assert lines["memory"][0].startswith("hint")
    assert "the container has the time of 0.5: OMP_NUM_THREADS=1" in lines["processors"][0]
    monkeypatch.setattr(environment, "_processor_limit", lambda: None)
    monkeypatch.setattr(machine, "processors", lambda: 0)
    assert "they get in each other's way" in doctor()[1]["processors"][0]


@pytest.mark.parametrize(
    ("error", "told"), [(ValueError("two\nlines"), "ValueError: two lines"), (OSError(), "OSError")]
)
def test_a_check_that_fails_is_a_line_and_stops_no_other(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail() -> Any:
        raise error

    monkeypatch.setattr(places, "trained", lambda *_: fail())
    monkeypatch.setattr(environment, "memory", fail)
    code, lines, err = doctor()
    assert code == 1
    assert told in lines["memory"][0]
    assert lines["run"][0].startswith("bad")
    assert "GPU" in lines
    assert err == "bincount: 2 of 10 are not in order: see what its line says\n"


def test_a_check_tells_what_it_found_before_it_failed() -> None:
    def look() -> Any:
        yield Finding(Mark.OK, "one", "fine")
        raise RuntimeError("no more")

    assert [found.mark for found in Check("two", look).findings()] == [Mark.OK, Mark.BAD]


def test_marks_in_colour_are_for_terminals_alone() -> None:
    found = Finding(Mark.BAD, "disk", "full [really]", "make room")
    assert shown(found, on_terminal=False).plain == "bad   disk         full [really]: make room"
    on_terminal = shown(found, on_terminal=True)
    assert on_terminal.plain == "✗ disk         full [really]: make room"
    assert "red" in str(on_terminal.spans[0].style)


@pytest.mark.parametrize(
    ("package", "content", "told"),
    [
        (
            "torch",
            "raise ImportError('libcudart.so.13: no such file')",
            "torch        cannot be imported: ImportError: libcudart",
        ),
        ("torch", "import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ended by signal 4"),
        (
            "torchvision",
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "torchvision::nms does not exist",
        ),
    ],
)
@pytest.mark.slow
def test_it_works_where_torch_cannot_be_imported(
    tmp_path: Path, small_data: Path, small_run: Path, package: str, content: str, told: str
) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(content)
    words = [f"data.root={small_data}", f"run={small_run}", f"runs={small_run.parents[1]}"]
    done = subprocess.run(
        [sys.executable, "-m", "bincount", "doctor", *words],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (bad,) = [line for line in done.stdout.splitlines() if line.startswith("bad")]
    assert told in bad
    assert "pip install --force-reinstall torch torchvision" in bad
    assert "one of each split decodes" in done.stdout
    assert "was not tried, as torch cannot be imported" in done.stdout
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_torch_is_asked_in_a_process_of_its_own() -> None:
    environment.probe.cache_clear()
    found, failure = environment.probe()
    assert failure == ""
    assert found["torch"].startswith(metadata.version("torch"))
    assert found["threads"] >= 1
    assert list(environment.torch())[-1].mark is Mark.OK
