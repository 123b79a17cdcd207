"""`bincount serve`: a run answers over HTTP, programs and people."""

import secrets
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from bincount import exported, run, storage
from bincount.config import ServeConfig
from bincount.errors import BadInput, install, one_line

#: What the extra `serve` brings.
NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def serve(config: ServeConfig) -> None:
    """Serve the run until SIGTERM or Ctrl-C. Raises BadInput where it cannot."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BadInput(f"{', '.join(missing)} not installed: {install('serve')}")
    limits = config.serve
    if limits.photos > limits.queue:
        raise BadInput(f"serve.photos={limits.photos}: must not be above serve.queue={limits.queue}")
    folder = run.find(config.run, config.runs)
    run.weights(folder)
    if limits.onnx:
        limits = replace(limits, onnx=str(_its_file(limits.onnx, folder)))
    if limits.keep:
        kept = storage.folder(limits.keep_in) if limits.keep_in else folder / run.KEPT
        _check_writable(kept)
        limits = replace(limits, keep_in=str(kept))
    from bincount.serving import process

    process.serve(folder, limits, config.decode, process.listen(limits.host, limits.port))


def _its_file(name: str, folder: Path) -> Path:
    """The exported file of this name. Raises BadInput where it cannot be used, or is of another run."""
    path = storage.folder(name)
    if path.suffix != exported.SUFFIXES["onnx"]:
        raise BadInput(f"serve.onnx={name}: an ONNX file is needed: `bincount export format=onnx`")
    if exported.load(path).facts.weights != storage.sha256(run.weights(folder)):
        told = f"was exported from other weights than those of {folder}: export it again"
        raise BadInput(f"serve.onnx={name}: {told}")
    return path


def _check_writable(kept: Path) -> None:
    """Raise BadInput where nothing can be kept in this folder; makes it."""
    probe = kept / f".{secrets.token_hex(4)}.partial"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        told = f"serve.keep_in={kept}: nothing can be written there: {error.strerror or one_line(error)}"
        raise BadInput(told) from None
