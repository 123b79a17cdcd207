"""`bincount prepare`, killed at any moment and started again: it ends with the bytes of one that was not."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Bucket, NewFolder
from making import prepare
from reading import contents
from s3_server import Server, serving
from test_prepare_out import members, wait_for

from bincount.data.index import Index

# --- at any step --------------------------------------------------------------------------------------

#: Runs the command in children, each killed one call later than the one before, until one comes to its end or
#: the last of ``calls`` was killed. `{}` in a word becomes the step. ``begun``: the words, and where it is
#: killed, of a command that goes before.
KILLING = """
import os, sys
from pathlib import Path
from killed_prepares import kill_at
from bincount import cli, compose
from bincount.storage import Folder

def run(words, *killed):
    child = os.fork()
    if child == 0:
        if killed:
            kill_at(*killed)
        os._exit(cli.main(["prepare", *words]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def at_each_call(owner, name, words, begun=(), calls=range(1, 99)):
    for call in calls:
        step = f"{owner.__name__}.{name}-{call}"
        if begun:
            assert run([word.format(step) for word in begun[0]], *begun[1:]) == -9
        code = run([word.format(step) for word in words], owner, name, call)
        assert code in (0, -9), code
        print(step, "was killed" if code else "came to its end", flush=True)
        if code == 0:
            break

compose.groups("prepare")
"""

#: Four shards.
WORDS = ["source.photos=12", "source.width=32", "source.height=32", "photos_per_shard=5", "workers=0"]


def killing(program: str, *words: str) -> list[tuple[str, bool]]:
    """Run KILLING with more lines; gives the steps, and whether the command was killed there."""
    command = [sys.executable, "-c", KILLING + program, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    told = [line.partition(" ") for line in done.stdout.splitlines()]
    return [(step, how == "was killed") for step, _, how in told if how in ("was killed", "came to its end")]


@pytest.fixture(scope="module")
def uninterrupted(new_folder: NewFolder) -> dict[str, bytes]:
    out = new_folder("uninterrupted") / "out"
    assert prepare(out, *WORDS, "seed=2") == 0
    return contents(out)


FRESH = """
from bincount.storage.objects import Objects

for name in ("write", "delete"):
    at_each_call(Objects, name, sys.argv[1:])
"""


@pytest.mark.slow
def test_on_s3_it_goes_on_wherever_it_was_killed(bucket: Bucket, uninterrupted: dict[str, bytes]) -> None:
    words = [*WORDS, "seed=2"]
    steps = killing(FRESH, *words, "out=" + bucket.address + "/{}")
    # Of each shard itself and its note; and the arguments, the catalogue, skipped.csv and both of the index.
    assert [step for step, killed in steps if killed] == [
        *(f"Objects.write-{n}" for n in range(1, 14)),
        "Objects.delete-1",
        "Objects.delete-2",
    ]
    for step, killed in steps:
        held = contents(bucket.folder / step)
        assert ("index.json" in held) == ("delete" in step or not killed)
        if killed:
            assert prepare(Path("unused"), *words, f"out={bucket.address}/{step}") == 0
        assert contents(bucket.folder / step) == uninterrupted


BEGIN_ANEW = """
from bincount.storage.objects import Objects

*words, kind = sys.argv[1:]
begun = [*words, "seed=1"]
others = [*words, "seed=2", "overwrite=true"]
if kind == "objects":
    at_each_call(Objects, "delete", others, (begun, Objects, "write", 9), range(1, 4))
elif kind == "half a folder":  # of 3 shards, with a note on each and on the catalogue, and the arguments
    at_each_call(os, "unlink", others, (begun, Folder, "write", 9), range(1, 9))
else:  # of 4 shards, with notes, and three files more
    at_each_call(os, "unlink", others, (begun, Folder, "delete", 1), range(1, 14, 3))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["half a folder", "a whole folder without its name", "objects"])
def test_half_a_data_set_whose_clearing_was_killed_is_never_mixed_with_the_next(
    kind: str, tmp_path: Path, uninterrupted: dict[str, bytes], request: pytest.FixtureRequest
) -> None:
    root, address = tmp_path, str(tmp_path)
    if kind == "objects":
        bucket: Bucket = request.getfixturevalue("bucket")
        root, address = bucket.folder, bucket.address
    steps = killing(BEGIN_ANEW, *WORDS, "out=" + address + "/{}", kind)
    assert len(steps) == {"half a folder": 8, "objects": 3}.get(kind, 5)
    for step, killed in steps:
        assert killed
        words = [*WORDS, "seed=2", f"out={address}/{step}"]
        # Without overwrite=true it may refuse to go on, but not make something of both.
        code = prepare(Path("unused"), *words)
        assert code in (0, 2)
        if code == 2:
            assert prepare(Path("unused"), *words, "overwrite=true") == 0
        assert contents(root / step) == uninterrupted


# --- at any moment ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Real:
    """The real bucket behind a server, and where data sets of it go."""

    server: Server
    #: Gives what follows ``out=`` for a name.
    out: Callable[[str], str]
    #: Gives the folder in which the data set of a name lies, and the one in which its draft does.
    lies: Callable[[str], Path]
    drafted: Callable[[str], Path]

    def start(self, name: str) -> "subprocess.Popen[str]":
        """Start the command in a session of its own."""
        words = ["source=s3", "source.bucket=s3://abid", "photos_per_shard=50", "shortest_side=null"]
        return subprocess.Popen(
            [sys.executable, "-m", "bincount", "prepare", *words, "workers=2", f"out={self.out(name)}"],
            env=os.environ | self.server.environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def real_server(abid: Path, new_folder: NewFolder) -> Iterator[Server]:
    folder = new_folder("real-s3")
    shutil.copytree(abid / "bucket", folder / "abid")
    (folder / "made").mkdir()
    with serving(folder, remember=3600) as server:
        yield server


@pytest.fixture(params=["bucket", "folder"])
def real(request: pytest.FixtureRequest, real_server: Server, tmp_path: Path) -> Real:
    if request.param == "folder":
        return Real(
            real_server,
            lambda name: f"{tmp_path}/{name}",
            lambda name: tmp_path / name,
            lambda name: tmp_path / f".{name}.partial",
        )
    made = real_server.folder / "made"
    return Real(
        real_server, lambda name: f"s3://made/{name}", lambda name: made / name, lambda name: made / name
    )


def whole_shards(draft: Path) -> dict[str, int]:
    """When each shard was written that is noted as whole."""
    notes = (draft / ".prepare").rglob("*.tar.parquet")
    names = [str(path.relative_to(draft / ".prepare")).removesuffix(".parquet") for path in notes]
    return {name: (draft / name).stat().st_mtime_ns for name in names}


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill the process, and see that its workers end by themselves."""
    process.kill()
    process.communicate()
    try:
        wait_for(lambda: not members(process.pid), seconds=20)
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.abid
def test_killed_ten_times_at_random_moments_it_makes_what_an_uninterrupted_run_makes(real: Real) -> None:
    start = time.monotonic()
    end_well(real.start("uninterrupted"))
    takes = time.monotonic() - start
    whole = contents(real.lies("uninterrupted"))
    tars = [name for name in whole if name.endswith(".tar")]
    assert len(tars) > 14

    drawn = random.Random(20)
    shares = [(n + drawn.random()) / 10 for n in range(10)]
    drawn.shuffle(shares)
    made, amid = 0, 0
    written: dict[str, int] = {}
    while shares:
        name, start = f"killed-{made}", time.monotonic()
        process = real.start(name)
        try:
            end_well(process, shares[-1] * takes)
        except subprocess.TimeoutExpired:
            kill(process)
            shares.pop()
            written = whole_shards(real.drafted(name)) | written
            amid += 0 < len(written) < len(tars)
        else:  # it had little left to do, or this machine has become quicker
            takes = min(takes, time.monotonic() - start) if not written else takes
        if contents(real.lies(name)).keys() == whole.keys():
            check_made(real, name, whole, written)
            made, written = made + 1, {}
            assert made < 20
    if written:
        end_well(real.start(name))
        check_made(real, name, whole, written)
    assert amid >= 1


def end_well(process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    """Wait for the command, which may tell how far it is, but no error."""
    told = process.communicate(timeout=seconds)[1]
    assert process.returncode == 0, told
    assert "bincount: " not in told


def check_made(real: Real, name: str, whole: dict[str, bytes], written: dict[str, int]) -> None:
    """The data set is that of an uninterrupted run, and no shard that was whole was written again."""
    lies = real.lies(name)
    assert contents(lies) == whole
    assert {shard: (lies / shard).stat().st_mtime_ns for shard in written} == written
    assert not any(path.name != name for path in lies.parent.iterdir() if name in path.name)
    Index.open(str(lies))
