"""Every command in the README runs, on fewer photos and steps than a user would have."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import Bucket
from making import write_photos, write_records

from bincount import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]

#: What makes a command of minutes one of seconds.
QUICK = {
    "train": [
        "model=resnet18",
        "data.image_size=32",
        "data.batch_size=4",
        "data.workers=0",
        "trainer.max_epochs=1",
    ],
    "experiment=best": ["pretrain.epochs=1", "pretrain.photos=300"],
}


def test_the_readme_has_commands_and_what_they_name_exists() -> None:
    assert len(COMMANDS) >= 10
    for path in re.findall(r"\]\(([^):]+)\)", README):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`((?:bincount|conf|tests)/[\w/]*(?:\.py)?)`", README):
        assert (ROOT / name).exists(), name


def test_the_tree_in_the_readme_names_every_module() -> None:
    rows = [row for row in README.splitlines() if row.startswith("| `")]
    named = set(re.findall(r"([\w]+)\.py", " ".join(rows)))
    modules = {
        path.stem
        for path in (ROOT / "bincount").rglob("*.py")
        if not path.stem.startswith("__") and path.parent.name != "training"
    }
    assert modules == named


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_has_the_targets(command: str) -> None:
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.slow
def test_every_bincount_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    monkeypatch.chdir(tmp_path)
    ids = [f"{n:05d}" for n in range(1, 121)]
    counts = {id: n % 7 for n, id in enumerate(ids)}
    write_photos(Path("photos"), ids)
    write_records(Path("records"), counts)
    Path("labels.csv").write_text("id,count\n" + "".join(f"{id},{count}\n" for id, count in counts.items()))
    for folder, made in (("bin-images", "photos"), ("metadata", "records")):
        shutil.copytree(made, bucket.server.folder / "aft-vbi-pds" / folder)
    (bucket.server.folder / "mine").mkdir()
    Path("file_list.json").write_text(json.dumps({"3": ["data/metadata/00004.json", "00011.json"]}))
    for command in COMMANDS:
        words = shlex.split(command)
        if words[0] != "bincount" or words[1] == "serve":  # which ends when it is stopped: test_serve_live.py
            continue
        whole = "--help" in words or "resume=latest" in words
        quick = [] if whole else [each for word in words for each in QUICK.get(word, [])]
        given = {word.partition("=")[0] for word in words}
        extra = [word for word in quick if word.partition("=")[0] not in given]
        assert cli.main([*words[1:], *extra]) == 0, command
    assert json.loads(Path("runs/latest/evaluation/test/results.json").read_bytes())["samples"] > 0
    assert len(Path("counts.csv").read_text().splitlines()) == 121
