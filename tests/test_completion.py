"""What the Tab key offers, asked for as the shells ask, and typed into real ones."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bincount import cli
from bincount.completion import complete
from bincount.config import VERBS, WATCHED


def offered(line: str) -> list[str]:
    """What the last word of the line can become, the name of the program left out."""
    *before, current = line.split(" ")
    return complete(before, current).found


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("", ["prepare", "train", "evaluate", "predict", "completion", "help"]),
        ("eva", ["evaluate"]),
        ("-", ["--help", "--version"]),
        ("completion ", ["bash", "zsh"]),
        ("help pred", ["predict"]),
        ("train model=", ["resnet18", "resnet34", "resnet50", "timm", "vit_b_16"]),
        ("train model=resnet3", ["resnet34"]),
        ("train objective=o", ["ordinal"]),
        ("train optimizer.", ["optimizer.lr=", "optimizer.betas="]),
        ("train optimizer=sgd optimizer.", ["optimizer.lr=", "optimizer.momentum="]),
        ("train experiment=abid2018 optimizer.", ["optimizer.momentum="]),
        ("train experiment=abid2018 optimizer=adamw optimizer.b", ["optimizer.betas="]),
        ("train launcher=sagemaker launcher.input=", ["s3", "File", "FastFile"]),
        ("train tra", ["trainer."]),
        ("train data.", ["data.root=", "data.augment."]),
        ("train data.augment.f", ["data.augment.flip="]),
        ("train see", ["seed="]),
        ("train mod", ["model=", "model."]),
        ("train model.freeze=", ["true", "false"]),
        ("train trainer.evaluate=", ["train", "val", "test", "null"]),
        ("train optimizer.lr=", ["0.001"]),
        ("train -", ["--cfg", "--help", "-m", "--multirun"]),
        ("evaluate -", ["--cfg", "--help"]),
        ("train --cfg ", ["job"]),
        ("train -m model=resnet18,resnet3", ["resnet18,resnet34"]),
        ("evaluate decode=", ["mode", "median", "mean", "null"]),
        ("evaluate split=t", ["train", "test"]),
        ("prepare source=folder source.im", ["source.images="]),
        ("prepare overflow=", ["skip", "class", "unlabelled"]),
    ],
)
def test_what_is_offered(line: str, some: list[str]) -> None:
    key, equals, _ = line.rpartition(" ")[2].partition("=")
    assert {f"{key}={each}" if equals else each for each in some} <= set(offered(line))
    assert all(each.startswith(line.rpartition(" ")[2]) for each in offered(line))


def test_nothing_is_offered_that_cannot_be() -> None:
    for line in (
        "train model=vgg",
        "train optimizer.momentum=",
        "tarin ",
        "completion bash ",
        "train nonsense=",
    ):
        assert offered(line) == []
    assert "optimizer.momentum=" not in offered("train optimizer.")
    assert "model=" not in offered("train model=resnet18 mod")
    assert "-m" not in offered("evaluate -")


def test_every_verb_and_every_key_of_it_can_be_completed() -> None:
    for verb in VERBS:
        assert verb in offered("")
        waiting, seen = offered(f"{verb} "), set()
        while waiting:
            key = waiting.pop()
            seen.add(key)
            waiting += [each for each in offered(f"{verb} {key}") if each not in seen and key.endswith(".")]
        assert "trainer.max_epochs=" in seen or verb != "train"
        assert all(key.endswith(("=", ".")) for key in seen)


def test_values_of_paths_are_left_to_the_shell() -> None:
    for word in ("data.root=", "data.root=~/b", "model.weights=w", "runs="):
        assert complete(["train"], word) == ([], True)
    assert complete(["predict"], "photos=ph") == ([], True)
    assert complete(["explore"], "sql=sel") == ([], False)


def test_runs_are_offered_the_newest_first(tmp_path: Path) -> None:
    for name in ("default/20260101-000000-aaaa", "best/20260202-000000-bbbb", "default/20260303-000000-cccc"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "default/empty").mkdir()
    (tmp_path / "latest").symlink_to("default/20260303-000000-cccc")
    runs = ["default/20260303-000000-cccc", "best/20260202-000000-bbbb", "default/20260101-000000-aaaa"]
    for verb, key in (("evaluate", "run"), ("train", "resume")):
        told = complete([verb, f"runs={tmp_path}"], f"{key}=")
        assert told == ([f"{key}={each}" for each in ["latest", *runs]], False)
    assert complete(["evaluate", f"runs={tmp_path}"], "run=b").found == [f"run={runs[1]}"]
    assert complete(["evaluate", f"runs={tmp_path}"], "run=/tmp/") == ([], True)


def test_the_monitors_offered_are_those_there_are() -> None:
    told = complete(["train"], "trainer.monitor=").found
    assert told == [f"trainer.monitor={name}" for name in WATCHED]


@pytest.mark.parametrize(
    ("line", "breaks", "told"),
    [
        ("bincount train model=resnet1", "=:", "words resnet18"),
        ("bincount train model=resnet1", "", "words model=resnet18"),
        ("bincount train see", "=:", "more seed="),
        ("bincount train data.root='my da", "=:", "files"),
        ("bincount train 'model=resnet1", "=:'\"", "words model=resnet18"),
        ('bincount train model="resnet1', "=:'\"", "words resnet18"),
        ("bincount  tra", " \t\n\"'><=;|&(:", "words train"),
        ('bincount train "model=resnet1', "=", "words resnet18"),
    ],
)
def test_a_shell_is_told_what_comes_after_its_last_break(
    line: str, breaks: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", "reply", line, breaks]) == 0
    assert capsys.readouterr().out.split() == told.split()


@pytest.mark.parametrize("words", [[], ["fish"], ["bahs"], ["bash", "zsh"]])
def test_another_shell_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", *words]) == 2
    assert "name the shell: " in capsys.readouterr().err


def test_a_tab_imports_no_hydra_and_no_torch() -> None:
    program = "import sys; from bincount.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    words = ["completion", "reply", "bincount train launcher=gpu launcher.precision=", "="]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert not loaded & {"hydra", "omegaconf", "yaml", "torch", "numpy", "pyarrow", "lightning", "rich"}


#: How each shell is started with nothing of the user's.
STARTED = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}


class Shell:
    """An interactive shell in a terminal of its own, which completes bincount."""

    def __init__(self, name: str, cwd: Path):
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"no {name} on this machine")
        inner, outer = pty.openpty()
        bin_folder = Path(sys.executable).parent
        env = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(cwd), "TERM": "dumb", "PS1": "$ "}
        self._terminal = inner
        self._process = subprocess.Popen(
            [path, *STARTED[name]],
            stdin=outer,
            stdout=outer,
            stderr=outer,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        os.close(outer)
        self._type(f'eval "$(bincount completion {name})"; echo rea""dy\r')
        self._until(r"ready")

    def completed(self, typed: str) -> list[str]:
        """The words of the line after a Tab, as the shell would run them."""
        # Then to the line's start and to its end; the shell takes these keys when it has completed.
        self._type(f"{typed}\t\x01printf '<%s>' \x05\rprintf '%s\\n' do''ne\r")
        told = self._until(r"done")
        return re.findall(r"<([^<>%]*)>", told)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def _type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def _until(self, sign: str) -> str:
        told, end = "", time.monotonic() + 20
        while not re.search(sign, told):
            assert time.monotonic() < end, told
            if select.select([self._terminal], [], [], 0.1)[0]:
                told += os.read(self._terminal, 65536).decode(errors="replace")
        return told


@pytest.mark.slow
@pytest.mark.parametrize("name", STARTED)
def test_tab_in_a_real_shell(name: str, tmp_path: Path) -> None:
    (tmp_path / "my bins").mkdir()
    run = tmp_path / "runs/default/20260101-000000-aaaa"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    shell = Shell(name, tmp_path)
    try:
        for typed, words in {
            "bincount eval": ["bincount", "evaluate"],
            "bincount train model=resnet3": ["bincount", "train", "model=resnet34"],
            "bincount train see": ["bincount", "train", "seed="],
            "bincount train optimizer=sgd optimizer.mom": [
                "bincount",
                "train",
                "optimizer=sgd",
                "optimizer.momentum=",
            ],
            "bincount train data.root=my": ["bincount", "train", "data.root=my bins"],
            "bincount evaluate run=def": ["bincount", "evaluate", "run=default/20260101-000000-aaaa"],
            "bincount train --mul": ["bincount", "train", "--multirun"],
            "bincount train 'model=resnet3": ["bincount", "train", "model=resnet34"],
            "bincount train -m model=timm,resnet3": ["bincount", "train", "-m", "model=timm,resnet34"],
            "bincount train model.freeze=t": ["bincount", "train", "model.freeze=true"],
        }.items():
            told = shell.completed(typed)
            assert [word.removesuffix("/") for word in told] == words  # a shell may take it away again
    finally:
        shell.close()


def test_the_scripts_say_how_they_are_used(capsys: pytest.CaptureFixture[str]) -> None:
    for name in STARTED:
        assert cli.main(["completion", name]) == 0
        assert f'eval "$(bincount completion {name})"' in capsys.readouterr().out
