"""`bincount serve`: a run answers over HTTP, programs and people."""

from importlib.util import find_spec

from bincount import run
from bincount.config import ServeConfig
from bincount.errors import BadInput

#: What the extra `serve` brings.
NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def serve(config: ServeConfig) -> None:
    """Serve the run until SIGTERM or Ctrl-C. Raises BadInput where it cannot."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BadInput(f"{', '.join(missing)} not installed: pip install 'bincount[serve]'")
    limits = config.serve
    if limits.photos > limits.queue:
        raise BadInput(f"serve.photos={limits.photos}: must not be above serve.queue={limits.queue}")
    folder = run.find(config.run, config.runs)
    run.weights(folder)
    from bincount.serving import process

    process.serve(folder, limits, config.decode, process.listen(limits.host, limits.port))
