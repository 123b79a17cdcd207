"""What is read of `conf/` line by line is what YAML and Hydra read."""

from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from bincount import run, words
from bincount.compose import compose, keys
from bincount.config import VERBS
from bincount.errors import BadInput

FILES = sorted(
    path.relative_to(words.conf_dir()).with_suffix("") for path in words.conf_dir().rglob("*.yaml")
)

#: What a verb cannot do without.
NEEDED = {"predict": ["photos=here"]}


def leaves(node: DictConfig, prefix: str = "") -> dict[str, object]:
    """Every key with its value; a list or a mapping in braces is a value."""
    found: dict[str, object] = {}
    for key in node:
        value = node._get_node(key)
        if isinstance(value, DictConfig) and len(value):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = OmegaConf.to_container(node)[key]
    return found


@pytest.mark.parametrize("name", [str(name) for name in FILES if name.parts[0] != "experiment"])
def test_lines_are_what_yaml_reads(name: str) -> None:
    loaded = OmegaConf.load(words.conf_dir() / f"{name}.yaml")
    assert isinstance(loaded, DictConfig)
    loaded = OmegaConf.masked_copy(loaded, [key for key in loaded if key != "defaults"])
    read = {line.key: yaml.safe_load(line.value) for line in words.lines(name) if not line.is_folder}
    assert read == leaves(loaded)


@pytest.mark.parametrize("verb", VERBS)
def test_groups_are_those_of_the_defaults_list(verb: str) -> None:
    primary = OmegaConf.to_container(OmegaConf.load(words.conf_dir() / f"{verb}.yaml"))
    assert isinstance(primary, dict)
    listed = [each for each in primary.get("defaults", []) if isinstance(each, dict)]
    assert words.groups(verb) == {group: option for each in listed for group, option in each.items()}


@pytest.mark.parametrize(
    ("verb", "typed"),
    [
        *((verb, []) for verb in VERBS),
        ("train", ["optimizer=sgd", "model=timm", "launcher=sagemaker"]),
        *(("train", [f"experiment={name}"]) for name in words.options("experiment")),
        ("prepare", ["source=s3", "source.bucket=s3://here"]),
    ],
)
def test_keys_are_those_that_hydra_composes(verb: str, typed: list[str]) -> None:
    composed = keys(compose(verb, [*typed, *NEEDED.get(verb, [])]))
    named = {"experiment", *(f"{group}.name" for group in words.groups(verb))}
    assert set(words.keys(verb, typed)) == set(composed) - named


def test_runs_are_the_folders_with_a_configuration(tmp_path: Path) -> None:
    assert words.runs(tmp_path / "nowhere") == []
    for name in ("a/20260101", "b/20260202", "a/20260303"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "a/no-run").mkdir()
    (tmp_path / "a/again").symlink_to("20260101")
    assert words.runs(tmp_path) == ["a/20260303", "b/20260202", "a/20260101"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("latset", "latset is no run: did you mean latest?"),
        ("default/20260101-000000-aaab", "did you mean default/20260101-000000-aaaa?"),
        ("TOP/defualt/20260101-000000-aaaa", "did you mean TOP/default/20260101-000000-aaaa?"),
        ("default", "name one of those in it, such as default/20260101-000000-aaaa"),
        ("TOP/default", "name one of those in it, such as default/20260101-000000-aaaa"),
        ("xyzzy", "xyzzy is no run: there is no config.yaml in it, nor in TOP/xyzzy"),
    ],
)
def test_a_mistyped_run_is_told_what_may_have_been_meant(tmp_path: Path, typed: str, told: str) -> None:
    folder = tmp_path / "default/20260101-000000-aaaa"
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    (tmp_path / "latest").symlink_to(folder)
    with pytest.raises(BadInput) as raised:
        run.find(typed.replace("TOP", str(tmp_path)), str(tmp_path))
    assert told.replace("TOP", str(tmp_path)) in str(raised.value)
