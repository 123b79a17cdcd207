"""`bincount export`: a run becomes one file, ONNX or torch.export, that is checked against it."""

import torch

from bincount import __version__, progress, run, storage
from bincount.config import ExportConfig
from bincount.counter import load
from bincount.errors import BadInput, BincountError
from bincount.exported import SUFFIXES, Facts
from bincount.exporting import checking, graph, opening


def export(config: ExportConfig) -> None:
    """Write ``config.out``; it is kept only where it tells what the run tells."""
    suffix = SUFFIXES[config.format]
    out = storage.folder(config.out or f"counter{suffix}")
    if out.suffix != suffix:
        raise BadInput(f"out={config.out}: a file of format={config.format} ends in {suffix}")
    graph.check_installed(config.format)
    folder = run.find(config.run, config.runs)
    counter = load(folder, device="cpu", decoding=config.decode)
    facts = Facts(
        counts=tuple(counter.counts.names),
        image_size=counter.image_size,
        shortest_side=counter.stored.shortest_side,
        decoding=counter.decoding,
        run=f"{folder.parent.name}/{folder.name}",
        weights=storage.sha256(run.weights(folder)),
        version=__version__,
    )
    pixels, whose = checking.photos_of(folder, counter, config.check.photos)
    write = graph.write_onnx if config.format == "onnx" else graph.write_program
    threads = torch.get_num_threads()
    with storage.written_whole(out) as partial:
        write(graph.program_of(counter), facts, partial)
        file = opening.open_file(partial, config.format, threads)
        found = checking.difference(counter, file, pixels)
        if not (found.probability <= config.check.tolerance and found.counts == 0):
            raise BincountError(
                f"{out} is not kept: on {whose} a probability differs by {found.probability:.2g} from the "
                f"run's (check.tolerance={config.check.tolerance:g}), and {found.counts:,} counts differ"
            )
    _tell(f"{out}: {out.stat().st_size / 1e6:,.1f} MB, {config.format}, of {facts.run}")
    _tell(f"checked on {whose}: counts equal, probabilities differ by at most {found.probability:.1e}")
    if config.check.rounds:
        for batch in (1, checking.BATCH):
            told = checking.speed(counter, file, pixels, batch, config.check.rounds)
            at_once = "photo by photo" if batch == 1 else f"{batch} at once"
            _tell(f"{at_once}: {told.file:,.0f} photos/s, eager torch {told.eager:,.0f} (threads: {threads})")


def _tell(line: str) -> None:
    progress.out.print(line, soft_wrap=True)
