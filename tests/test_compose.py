"""The configuration: every file composes, every key is typed, paths are taken literally."""

from dataclasses import asdict, fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bincount import run
from bincount.compose import compose, conf_dir, groups, keys, options, typed
from bincount.config import REGISTRIES, VERBS, AdamW, Launcher, TimmModel, TrainConfig, path_keys
from bincount.errors import BadInput

#: What an option cannot do without.
NEEDED = {
    "timm": ["model.architecture=resnet18"],
    "folder": ["source.images=here"],
    "collage": ["source.cut=here"],
    "s3": ["source.bucket=s3://here"],
    "predict": ["photos=here"],
}

CHOICES = [(verb, group, option) for verb in VERBS for group in groups(verb) for option in options(group)]


@pytest.mark.parametrize(("verb", "group", "option"), CHOICES)
def test_every_option_composes_and_is_typed(verb: str, group: str, option: str) -> None:
    config = typed(verb, compose(verb, [f"{group}={option}", *NEEDED.get(option, [])]))
    if group in REGISTRIES:
        assert getattr(config, group).name == option


@pytest.mark.parametrize("verb", VERBS)
def test_every_key_of_the_schema_has_a_default_in_conf(verb: str) -> None:
    cfg = compose(verb, NEEDED.get(verb, []))
    assert {key.name for key in fields(VERBS[verb])} == set(cfg)


def test_options_bring_their_own_keys() -> None:
    config = typed(
        "train", compose("train", ["optimizer=adamw", "model=timm", "model.architecture=x", "launcher=gpu"])
    )
    assert isinstance(config, TrainConfig)
    assert isinstance(config.optimizer, AdamW)
    assert isinstance(config.model, TimmModel)
    assert isinstance(config.launcher, Launcher)
    assert config.launcher.accelerator == "gpu"


def test_conf_is_small_and_flat() -> None:
    files = list(conf_dir().rglob("*.yaml"))
    assert 20 <= len(files) <= 45  # one a verb, of which there are nine, and an option of a group each
    assert all(len(path.relative_to(conf_dir()).parts) <= 2 for path in files)


@pytest.mark.parametrize(
    "path",
    [
        "~/bins",
        "a,b",
        "a (copy)/b",
        "it's here",
        "with space",
        "a=b",
        "photos/*.jpg",
        "s3://bucket/a",
        "back\\",
        "back\\slash\\'quote",
    ],
)
@pytest.mark.parametrize("key", sorted(path_keys(TrainConfig) - {"resume"}))
def test_a_path_is_taken_literally(key: str, path: str) -> None:
    words = ["launcher=sagemaker"] if key.startswith("launcher.") else []
    assert OmegaConf.select(compose("train", [*words, f"{key}={path}"]), key) == path


def test_paths_can_be_quoted_lists_or_null() -> None:
    assert compose("evaluate", ["run=[a,b]"]).run == ["a", "b"]
    assert compose("evaluate", ["run='a,b'"]).run == "a,b"
    assert compose("evaluate", ["data.root=null"]).data.root is None


def test_no_experiment_is_the_default() -> None:
    assert compose("train", ["experiment=null"]) == compose("train", [])


def test_image_size_is_a_number_or_height_and_width() -> None:
    one = typed("train", compose("train", ["data.image_size=224"]))
    two = typed("train", compose("train", ["data.image_size=[224,244]"]))
    assert one.data.height_width == (224, 224)
    assert two.data.height_width == (224, 244)


def test_a_saved_configuration_is_read_back_equal(tmp_path: Path) -> None:
    config = typed("train", compose("train", ["data.image_size=[64,48]", "optimizer=sgd"]))
    folder = run.create(str(tmp_path), "default", OmegaConf.create(asdict(config)))
    assert typed("train", run.saved_config(folder)) == config


def test_resume_keeps_the_run_and_changes_only_what_is_said(tmp_path: Path) -> None:
    runs = f"runs={tmp_path}"
    first = compose("train", [runs, "model=resnet18", "optimizer=sgd", "data.batch_size=7"])
    folder = run.create(str(tmp_path), "default", first)
    again = compose("train", [runs, "resume=latest", "trainer.max_epochs=20"])
    changed = {key for key in keys(first) if OmegaConf.select(first, key) != OmegaConf.select(again, key)}
    assert changed == {"resume", "trainer.max_epochs"}
    assert (again.resume, again.trainer.max_epochs) == (str(folder), 20)
    assert compose("train", [runs, "resume=latest", "model=resnet18"]).model.name == "resnet18"
    with pytest.raises(BadInput, match="model=resnet50: resume goes on with the model of"):
        compose("train", [runs, "resume=latest", "model=resnet50"])


def test_a_run_that_was_saved_before_there_was_a_key_is_resumed_with_its_default(tmp_path: Path) -> None:
    first = compose("train", ["optimizer=sgd", "trainer.max_epochs=7"])
    old = OmegaConf.masked_copy(first, [str(key) for key in first if key != "sweep"])
    del old.trainer["evaluate"]
    run.create(str(tmp_path), "default", old)
    again = typed("train", compose("train", [f"runs={tmp_path}", "resume=latest"]))
    assert (again.trainer.evaluate, again.trainer.max_epochs) == ("test", 7)
    assert (again.sweep.name, again.optimizer.name) == ("grid", "sgd")
