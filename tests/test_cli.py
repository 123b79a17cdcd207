"""The command line: help without delay, mistakes answered in one line."""

import signal
import subprocess
import sys

import pytest

from bincount import __version__, cli


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(words)
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(*words, capsys=capsys)
    assert code == 0
    assert all(f"  {verb} " in out for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_a_verb_shows_commands_groups_and_keys(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(verb, "--help", capsys=capsys)
    assert code == 0
    assert f"bincount {verb}" in out
    assert "defaults:" not in out
    if verb == "train":
        assert "model=resnet34 | resnet18" in out
        assert "batch_size: 64" in out


def test_help_shows_the_keys_of_the_options_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    _, by_default, _ = run("prepare", "--help", capsys=capsys)
    _, out, _ = run("prepare", "source=folder", "max_count=3", "--help", capsys=capsys)
    assert "\nsource/synthetic:" in by_default
    assert "\nsource/folder:" in out
    assert "  labels: null" in out
    assert "source/synthetic:" not in out
    assert run("prepare", "source=nowhere", "--help", capsys=capsys) == (0, by_default, "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version", capsys=capsys) == (0, f"bincount {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "trian: there is no such verb: did you mean train?"),
        (["xyzzy"], f"there is {', '.join(sorted(cli.VERBS))}"),
        (
            ["train", "optimzer.lr=1"],
            "optimzer.lr: there is no such key in `train`: did you mean optimizer.lr?",
        ),
        (["train", "lr=1"], "did you mean optimizer.lr?"),
        (["train", "+new.key=1"], "new: there is no such key in `train`"),
        (["train", "modle=resnet18"], "modle: there is no such key in `train`: did you mean model?"),
        (["train", "model=resnet43"], "model=resnet43: there is no such model: did you mean resnet34?"),
        (["train", "model=timm"], "model.architecture is not given: add model.architecture=…"),
        (["train", "model.architecture=x"], "model=timm would have it"),
        (["train", "optimizer.momentum=0.9"], "optimizer=sgd would have it"),
        (["train", "optimizer.lr=high"], "optimizer.lr=high: must be a number"),
        (["train", "optimizer.lr=[1"], "optimizer.lr=[1: this value cannot be read; quote it"),
        (["train", "optimizer.lr=0"], "optimizer.lr=0.0: must be above 0"),
        (["train", "data.batch_size=0"], "data.batch_size=0: must be 1 or above"),
        (["train", "data.image_size=[1,2,3]"], "data.image_size=[1, 2, 3]: give pixels"),
        (["train", "launcher.precision=fp8"], "must be one of auto, 32-true, bf16-mixed, 16-mixed"),
        (["train", "model"], "model: write model=VALUE in one word; `bincount train --help` shows the keys"),
        (["train", "--gpu"], "--gpu: there is no such option: write key=value"),
        (["train", "--cfg", "all"], "write --cfg job"),
        (["--versoin"], "--versoin: there is no such option: did you mean --version?"),
        (["optimizer.lr=1"], "optimizer.lr=1: write the verb first, one of prepare"),
        (["complete"], "did you mean completion?"),
        (["train", "--multi-run"], "--multi-run: there is no such option: did you mean --multirun?"),
        (["train", "--data.root=x"], "--data.root=x: there is no such option: write data.root=x"),
        (["train", "--resume", "latest"], "--resume: there is no such option: write resume=VALUE"),
        (["train", "optimizer.lr", "0.1"], "optimizer.lr: write optimizer.lr=VALUE in one word"),
        (["train", "optimizer.lr=", "0.1"], "optimizer.lr= 0.1: write optimizer.lr=0.1 in one word"),
        (["train", "sgd"], "sgd: write optimizer=sgd"),
        (["train", "launcher=GPU"], "did you mean gpu?"),
        (["train", "model=null"], "model=null: there is no such model"),
        (["train", "trainer.epochs=3"], "did you mean trainer.max_epochs?"),
        (["train", "optimizer.learning_rate=3"], "did you mean optimizer.lr?"),
        (["train", "data.augmnet.flip=0.5"], "did you mean data.augment.flip?"),
        (["train", "data.zzz=1"], "there is no such key in `train`: data has root, batch_size"),
        (["train", "seed=null"], "seed=null: must have a value"),
        (["train", "data.workers=two"], "data.workers=two: must be a whole number"),
        (["train", "data.augment=3"], "data.augment=3: has keys of its own"),
        (["train", "launcher.precision=bf16"], "; did you mean bf16-mixed?"),
        (
            ["evaluate", "decode=medain"],
            "decode=medain: must be one of mode, median, mean; did you mean median?",
        ),
        (["prepare", "merge=ture"], "merge=ture: must be true or false"),
        (["predict", "photos=here", "otu=x"], "otu: there is no such key in `predict`: did you mean out?"),
        (["train", "experiment=nope"], "experiment=nope: there is no such experiment"),
        (["prepare", "overflow=clas"], "overflow=clas: must be one of skip, class, unlabelled"),
        (["prepare", "source.labels=x.csv"], "source=folder would have it"),
        (["prepare", "source=folder"], "source.images is not given: add source.images=…"),
        (["predict"], "photos is not given: add photos=…"),
        (["predict", "photos=here", "runs=nowhere"], "there are no photos there"),
        (["evaluate", "runs=nowhere"], "there is no run in nowhere yet: train one"),
        (["evaluate", "run=nowhere/a"], "nowhere/a is no run"),
        (["train", "resume=latest", "runs=nowhere"], "there is no run in nowhere yet"),
        (
            ["train", "data.root=nowhere"],
            "data.root=nowhere: there is no such folder: make it with `bincount prepare`",
        ),
        (["train", "data.root=ftp://bucket/bins"], "ftp://bucket/bins is no address"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(*words, capsys=capsys)
    assert (code, out) == (2, "")
    assert told in err
    assert err.startswith("bincount: ")
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINCOUNT_DEBUG", "1")
    with pytest.raises(cli.BadInput):
        cli.main(["trian"])


def test_who_reads_only_the_beginning_is_left_alone() -> None:
    program = f"{sys.executable} -m bincount train --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert int(done.stdout) in (0, 128 + signal.SIGPIPE)


def test_an_unforeseen_failure_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(cli, "_help", fail)
    code, _, err = run(capsys=capsys)
    assert code == 1
    assert err == "bincount: RuntimeError: two lines (BINCOUNT_DEBUG=1 shows where)\n"


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["train", "--cfg", "job"], ["train", "optimzer.lr=1"]]
)
def test_torch_is_not_imported_to_answer(words: list[str]) -> None:
    program = "import sys; from bincount.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
