"""What runs in SageMaker's containers: jobs of two hosts, rehearsed here, and what they are told."""

import contextlib
import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, Answering, Asked, NewFolder
from killing import differences
from rehearsal import Host, stage
from trouble import wait_until

from bincount import container, run
from bincount.errors import BadInput, BincountError
from bincount.run import LAST
from bincount.training.sealed import read
from launch import requests, service_model
from launch import start as starting

HOSTS = ("algo-1", "algo-2")

#: Of 68 photos an epoch takes 8 steps of two ranks with 4 each; after three nothing has got better for two.
WORDS = ["model=resnet18", "data.image_size=32", "data.batch_size=4", "data.workers=1", "optimizer.lr=0.001"]
WORDS += ["data.augment.shift=0.1", "data.augment.zoom=0.1", "launcher=sagemaker", "launcher.nodes=2"]
WORDS += ["launcher.accelerator=cpu", "launcher.devices=1", "launcher.precision=32-true"]
WORDS += ["data.root=s3://mine/bins", "trainer.max_epochs=50", "trainer.checkpoint_every=5"]
WORDS += ["trainer.stop_after=2", "trainer.min_delta=10"]
END = 24

#: What `launch/submit.py` has to be told to send a job.
SENT = ["launcher.output=s3://mine/jobs", "launcher.role=arn:aws:iam::123456789012:role/bincount"]

FAULTS = str(Path(__file__).parent / "container_faults")


class Job:
    """A job whose hosts run; its folder has that of each host."""

    def __init__(self, hosts: list[Host]):
        self.hosts = hosts
        self.first, self.second = hosts

    def end(self, seconds: float = 180) -> tuple[list[int], float]:
        """Wait for its end; gives the exit codes, and the seconds until all that they started was gone."""
        ends = [host.end(seconds) for host in self.hosts]
        return [code for code, _ in ends], sum(taken for _, taken in ends)

    @property
    def told(self) -> str:
        return "\n".join(f"--- {host.name}\n{host.told}" for host in self.hosts)

    def last_steps(self) -> list[int]:
        """The last step that each host began."""
        return [int((host.ml / "output/steps.txt").read_text().split()[-1]) for host in self.hosts]


@pytest.fixture(scope="module")
def start(small_data: Path, new_folder: NewFolder) -> Callable[..., contextlib.AbstractContextManager[Job]]:
    """Starts a job of two hosts, from the request that `launch/submit.py VERB WORDS` sends.

    ``data``: what is at s3://mine/bins, as channel ``data``; ``checkpoints``: at the job's place for them.
    """

    @contextlib.contextmanager
    def start(
        *words: str,
        verb: str = "train",
        job: str = "job",
        data: Path | None = None,
        checkpoints: Path | None = None,
        fails: str = "",
        **more: Any,
    ) -> Iterator[Job]:
        channel = ["launcher.input=File"] if data else []
        made, _ = starting.composed(verb, [*words, *SENT, *channel], name=job)
        request = requests.request(made)
        service_model.check("sagemaker", requests.operation(made), request)
        top = new_folder("job")
        for address, content in requests.uploads(made).items():
            place = top / address.removeprefix("s3://")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        uploaded = {"s3://mine": top / "mine", "s3://mine/bins": data, made.checkpoints: checkpoints}
        held = {address: place for address, place in uploaded.items() if address and place}
        environment = {"PYTHONPATH": FAULTS, "REHEARSAL_FAILS": fails}
        with stage():
            hosts = [
                Host.from_request(request, held, top / name, name, environment=environment, **more)
                for name in HOSTS
            ]
            try:
                yield Job(hosts)
            finally:
                for host in hosts:
                    host.kill()

    return start


Start = Callable[..., contextlib.AbstractContextManager[Job]]


@pytest.fixture(scope="module")
def prepared(start: Start, new_folder: NewFolder) -> Path:
    """The data set that a job of two hosts prepared, each its part."""
    out = new_folder("prepared") / "data"
    with start(*SMALL, "workers=0", f"out={out}", "launcher.nodes=2", verb="prepare") as job:
        codes, _ = job.end()
    assert codes == [0, 0], job.told
    assert "part 2/2 is done" in job.second.told
    return out


@pytest.fixture(scope="module")
def whole(start: Start, prepared: Path) -> Job:
    """A job that nothing disturbed, on the data set of the job before."""
    with start(*WORDS, data=prepared) as job:
        codes, _ = job.end()
    assert codes == [0, 0], job.told
    return job


@pytest.mark.slow
def test_two_hosts_train_and_stop_early_at_the_same_step(whole: Job) -> None:
    log = whole.first.log
    assert f"training stops after step {END}: no better for 2 epochs (trainer.stop_after)" in log
    assert whole.last_steps() == [END - 1, END - 1]
    assert any(line.startswith("epoch 3 of 50  loss ") for line in log)


@pytest.mark.slow
def test_the_first_host_has_the_model_and_its_run_and_the_second_has_nothing(whole: Job) -> None:
    model = whole.first.ml / "model"
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert read(model / name)["global_step"]
        assert (model / name).read_bytes() == (whole.first.run / name).read_bytes()
    results = json.loads((model / "evaluation/test/results.json").read_bytes())
    assert results["samples"] == 14
    for name in ("config.yaml", "environment.json", "log.txt", "metrics.csv", "report.html"):
        assert (model / name).stat().st_size
    assert "root: /opt/ml/input/data/data" in (model / "config.yaml").read_text()
    assert not list((model / "checkpoints").glob("previous.ckpt"))
    assert not any(path.is_symlink() for path in (whole.first.ml / "checkpoints").rglob("*"))
    for folder in ("model", "checkpoints"):
        assert list((whole.second.ml / folder).iterdir()) == []
    assert [host.failure for host in whole.hosts] == [None, None]


@pytest.mark.slow
def test_a_job_that_is_interrupted_on_any_host_is_gone_on_with_exactly(
    start: Start, whole: Job, small_data: Path, tmp_path: Path
) -> None:
    with start(*WORDS, data=small_data, job="first") as job:
        wait_until(lambda: _saved(job.first), 90)
        job.second.main.send_signal(signal.SIGTERM)
        codes, seconds = job.end()
        assert codes == [128 + signal.SIGTERM] * 2, job.told
        assert seconds < 30  # then torchrun would have killed the ranks
        log = job.first.log
        stopped = next(line for line in log if line.startswith("training stops after step "))
        step = int(stopped.split()[4].strip(":"))
        assert stopped.endswith("SIGTERM on rank 1")
        assert read(job.first.run / LAST)["global_step"] == step < END
        assert not list((job.first.run / "checkpoints").glob(".*"))
        assert log[-1].endswith("goes on where it is started again with the same checkpoints")
        assert [host.failure for host in job.hosts] == [None, None]
        job.first.upload(tmp_path / "kept")
        job.second.upload(tmp_path / "kept")

    again = "launcher.checkpoints=s3://mine/jobs/first/checkpoints"
    with start(*WORDS, again, data=small_data, job="second", checkpoints=tmp_path / "kept") as job:
        codes, _ = job.end()
    assert codes == [0, 0], job.told
    assert f"going on from {Path('/opt/ml/checkpoints/runs/default/first') / LAST}" in job.first.told
    assert int((job.first.ml / "output/steps.txt").read_text().split()[0]) == step
    assert differences(whole.first.ml / "model", job.first.ml / "model") == []


def _saved(host: Host) -> bool:
    with contextlib.suppress(StopIteration):
        return (host.run / LAST).exists()
    return False


@pytest.mark.slow
def test_an_error_within_a_step_is_the_failure_of_both_hosts_in_one_line(
    start: Start, small_data: Path
) -> None:
    with start(*WORDS, data=small_data, fails="rank 1 in step 2") as job:
        codes, _ = job.end()
    assert codes == [1, 1], job.told
    line = "ValueError: this photo is upside down (BINCOUNT_DEBUG=1 shows where)"
    assert [host.failure for host in job.hosts] == [line, line]
    assert job.first.log[-1] == line
    assert "Traceback" not in job.told


@pytest.mark.slow
def test_without_a_data_set_neither_host_trains(start: Start, tmp_path: Path) -> None:
    with start(*WORDS, "data.root=/nowhere") as job:
        codes, _ = job.end()
    assert codes == [2, 2], job.told
    assert job.first.failure is not None
    assert job.first.failure.startswith("data.root=/nowhere: there is no such folder")
    assert "\n" not in job.first.failure
    assert job.first.failure == job.second.failure


@pytest.mark.slow
def test_a_lost_host_ends_the_other(start: Start, small_data: Path) -> None:
    with start(*WORDS, "launcher.stalled_after=5", data=small_data) as job:
        wait_until(lambda: _saved(job.first), 90)
        for each in job.second.family():
            os.kill(each.pid, signal.SIGKILL)
        codes, seconds = job.end()
    assert codes == [1, -signal.SIGKILL], job.told
    assert seconds < 90
    assert job.first.failure == "rank 1 on algo-2 does not answer any more: it was killed"


@pytest.mark.slow
def test_two_hosts_prepare_the_data_set_that_one_command_would(prepared: Path, small_data: Path) -> None:
    assert _digests(prepared) == _digests(small_data)


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.mark.slow
def test_what_fails_to_prepare_is_told_where_processing_jobs_tell_it(start: Start, tmp_path: Path) -> None:
    words = ["source=folder", f"source.images={tmp_path / 'none'}", f"out={tmp_path / 'out'}"]
    with start(*words, "launcher.nodes=2", verb="prepare") as job:
        codes, _ = job.end()
    assert codes == [2, 2], job.told
    for host in job.hosts:
        message = (host.ml / "output/message").read_text()
        assert message.startswith("source.images")
        assert "\n" not in message


@pytest.mark.slow
def test_a_data_set_that_an_earlier_job_made_is_kept_where_both_are_the_same(
    ml: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the step of a pipeline that is executed again, with a newer image say."""
    from omegaconf import OmegaConf

    from bincount import compose

    out = ml / "bins"
    config = ml / "processing/input/config/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(OmegaConf.to_yaml(compose.compose("prepare", [*SMALL, "workers=0", f"out={out}"])))
    monkeypatch.setenv("BINCOUNT_MADE", f"{ml}/jobs/made")
    assert container.main(["prepare"]) == 0
    made = _digests(out)
    assert container.main(["prepare"]) == 0
    assert f"{out} is made already" in capsys.readouterr().out
    assert _digests(out) == made
    monkeypatch.setenv("BINCOUNT_MADE", f"{ml}/jobs/of-another-configuration")
    assert container.main(["prepare"]) == 2
    assert "is a data set already" in (ml / "output/message").read_text()


def compose_to(path: Path, *words: str) -> Path:
    from omegaconf import OmegaConf

    from bincount import compose

    path.parent.mkdir(parents=True)
    path.write_text(OmegaConf.to_yaml(compose.compose("train", words), resolve=True))
    return path


@pytest.mark.slow
def test_the_stock_train_program_starts_it_too(start: Start, small_data: Path, tmp_path: Path) -> None:
    """As AWS's images are set up: `train` of the sagemaker-training toolkit runs a script of ours."""
    script = tmp_path / "train.py"
    script.write_text('import sys\nfrom bincount.container import main\nsys.exit(main(["train"]))\n')
    words = [*WORDS, "trainer.max_epochs=1", "trainer.stop_after=null"]
    toolkit = {"command": ["train"], "hyperparameters": {"sagemaker_program": '"train.py"'}}
    with start(*words, data=small_data, brought={"code": script}, **toolkit) as job:
        codes, _ = job.end()
    assert codes == [0, 0], job.told
    assert "Reporting training SUCCESS" in job.first.told
    assert job.last_steps() == [7, 7]
    assert (job.first.ml / "model/report.html").exists()


# --- what it is told --------------------------------------------------------------------------------------


@pytest.fixture
def ml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for /opt/ml in this process."""
    monkeypatch.setattr(container, "ML", tmp_path)
    monkeypatch.setattr(container, "RUNS", tmp_path / "checkpoints/runs")
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "'trian': one of train, prepare, evaluate, serve stands here, and all else in a file"),
        (
            ["train", "seed=1"],
            "'train seed=1': one of train, prepare, evaluate, serve stands here, and all else in a file",
        ),
        ([], "'': one of train, prepare, evaluate, serve stands here, and all else in a file"),
        (
            ["train"],
            "there is no {ml}/input/data/config/config.yaml: the channel `config` of the job brings it",
        ),
    ],
)
def test_what_cannot_run_is_told_in_the_failure_file(
    ml: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert container.main(words) == 2
    told = told.format(ml=ml)
    assert (ml / "output/failure").read_text() == told
    assert capsys.readouterr().err == f"bincount: {told}\n"


def test_a_failure_is_cut_to_what_is_shown(ml: Path) -> None:
    container._tell(ml / "output/failure", "ü" * 2000)
    assert (ml / "output/failure").read_text() == "ü" * 512


def test_the_hosts_come_from_the_file_or_from_the_toolkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resourceconfig.json"
    assert container._cluster(file) == (("algo-1",), "algo-1", None)
    monkeypatch.setenv("SM_HOSTS", '["algo-2", "algo-1"]')
    monkeypatch.setenv("SM_CURRENT_HOST", "algo-2")
    monkeypatch.setenv("SM_NETWORK_INTERFACE_NAME", "eth0")
    assert container._cluster(file) == (("algo-1", "algo-2"), "algo-2", "eth0")
    file.write_text('{"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth1"}')
    assert container._cluster(file) == (("algo-1",), "algo-1", "eth1")
    for content in ("{", "{}", '{"hosts": 3, "current_host": "a"}', '{"hosts": ["a"], "current_host": "b"}'):
        file.write_text(content)
        with pytest.raises(BincountError, match=r"resourceconfig\.json"):
            container._cluster(file)


def test_the_run_of_the_checkpoints_is_gone_on_with(ml: Path) -> None:
    assert container._begun("a") is None
    for name, taken in {"old": "old", "a": "a"}.items():
        folder = ml / f"checkpoints/runs/default/{name}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        found = container._begun("a")
        assert found is not None
        assert found.name == taken
    with pytest.raises(BadInput, match="the checkpoints are of 2 runs, a, old"):
        container._begun("b")


def test_what_a_checkpoint_holds_cannot_change(tmp_path: Path) -> None:
    compose_to(tmp_path / "run/config.yaml", *WORDS)
    config = container._config("train", tmp_path / "run/config.yaml")
    container._check_same(config, tmp_path / "run")
    compose_to(tmp_path / "new/config.yaml", *WORDS, "optimizer.lr=0.5", "trainer.max_epochs=60")
    config = container._config("train", tmp_path / "new/config.yaml")
    with pytest.raises(BadInput, match=r"optimizer.lr=0.5: the checkpoints are of run run, .* with 0.001"):
        container._check_same(config, tmp_path / "run")


def test_a_run_keeps_its_title_wherever_it_is_unpacked(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    begun = run.create(str(tmp_path), "mine", OmegaConf.create({}))
    assert run.title(begun) == f"mine/{begun.name}"
    assert run.title(begun.rename(tmp_path / "model")) == f"mine/{begun.name}"
    for earlier in ("{}", "", "[]"):
        (tmp_path / "model/environment.json").write_text(earlier)
        assert run.title(tmp_path / "model") == f"{tmp_path.name}/model"


def test_as_many_hosts_as_nodes(ml: Path) -> None:
    compose_to(ml / "input/data/config/config.yaml", *WORDS)
    with pytest.raises(BadInput, match=r"launcher\.nodes=2: the job has 1 instances"):
        container._train_config("job", 1)


def test_secrets_become_variables_and_are_told_nowhere(
    no_aws: pytest.MonkeyPatch, answering: Callable[..., Answering], capfd: pytest.CaptureFixture[str]
) -> None:
    secrets = {"plain": "s3cr3t-1", "of/console": '{"OTHER": "x", "TOKEN": "s3cr3t-2"}'}

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        name = json.loads(asked.body)["SecretId"]
        if name not in secrets:
            return 400, {}, b'{"__type": "ResourceNotFoundException", "message": "no such secret"}'
        return 200, {}, json.dumps({"Name": name, "SecretString": secrets[name]}).encode()

    for name, value in {
        "AWS_ENDPOINT_URL": answering(answer).endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-west-1",
        "WANDB_API_KEY": "",
        "TOKEN": "",
    }.items():
        no_aws.setenv(name, value)
    container._read_secrets()
    no_aws.setenv("BINCOUNT_SECRETS", "WANDB_API_KEY=plain, TOKEN=of/console")
    container._read_secrets()
    assert (os.environ["WANDB_API_KEY"], os.environ["TOKEN"]) == ("s3cr3t-1", "s3cr3t-2")
    for wanted, told in {
        "A=none": "secret none for A cannot be read: .*no such secret",
        "WANDB_API_KEY=of/console": "secret of/console has no text for WANDB_API_KEY",
        "A": "BINCOUNT_SECRETS: 'A' is not VARIABLE=SECRET",
    }.items():
        no_aws.setenv("BINCOUNT_SECRETS", wanted)
        with pytest.raises(BadInput, match=told) as error:
            container._read_secrets()
        assert "s3cr3t" not in str(error.value)
    assert "s3cr3t" not in "".join(capfd.readouterr())
