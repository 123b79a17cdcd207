"""Imports only go down: what a module may touch is known from where it lies."""

import ast
from pathlib import Path

import bincount

PACKAGE = Path(bincount.__file__).parent

#: From the bottom up. A module may import from layers below its own, and its neighbours in one folder.
LAYERS = [
    {"answer", "errors", "machine"},
    {"client", "progress", "storage", "words"},
    {"config", "run"},
    {"compose", "data", "engines", "model", "training"},
    {"answering"},
    {"checks", "comparison", "counter", "exported", "fit", "health", "page", "pictures", "space"},
    {"heatmap"},
    {"counting", "exploring", "exporting", "report", "study"},
    {"auditing", "checkup", "scoring", "trials"},
    {"ranking", "serving"},
    {"audit", "container", "doctor", "evaluate", "explore", "export", "predict", "prepare", "pretraining"}
    | {"serve", "sweep", "train"},
    {"completion"},
    {"cli"},
    {"__main__"},
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}

#: train begins with a pre-training, which prepares its collages, and ends by evaluating; a sweep checks as
#: train does; a container runs a verb.
ALLOWED = {("train", "pretraining"), ("pretraining", "prepare"), ("train", "evaluate"), ("sweep", "train")}
ALLOWED |= {("container", verb) for verb in ("train", "prepare", "evaluate", "serve")}

#: What pure modules may not know.
PURE = {
    "data/plan.py",
    "data/balance.py",
    "data/splits.py",
    "data/ids.py",
    "model/decoding.py",
    "model/guessing.py",
    "model/metrics.py",
    "model/objectives.py",
}
NOT_PURE = {"lightning", "hydra", "omegaconf", "pathlib", "os", "io", "pyarrow"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = str(node.module)
            found |= {f"{module}.{alias.name}" if module == "bincount" else module for alias in node.names}
    return found


def part(name: str) -> str:
    """The layer's word in a dotted name of ours: bincount.data.plan -> data."""
    return name.split(".")[1]


def modules() -> list[tuple[str, set[str]]]:
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return [(path.relative_to(PACKAGE).as_posix(), imports(path)) for path in paths]


def test_every_module_has_a_layer() -> None:
    assert {name.split("/")[0].removesuffix(".py") for name, _ in modules()} == set(HEIGHT)


def test_imports_only_go_down() -> None:
    wrong = []
    for name, found in modules():
        own = name.split("/")[0].removesuffix(".py")
        for other in {part(each) for each in found if each.startswith("bincount.")} - {own, "__version__"}:
            if HEIGHT[other] >= HEIGHT[own] and (own, other) not in ALLOWED:
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_pure_modules_know_nothing_of_lightning_hydra_or_files() -> None:
    found = dict(modules())
    assert {name: found[name] & NOT_PURE for name in PURE} == {name: set() for name in PURE}


def test_nothing_in_the_package_imports_launch() -> None:
    assert all(each.split(".")[0] != "launch" for _, found in modules() for each in found)
