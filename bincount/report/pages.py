"""The pages: of a run, of predictions made elsewhere, and of runs side by side; each is one file."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from bincount import run, storage
from bincount.comparison import number, percent
from bincount.compose import keys
from bincount.data.index import Index
from bincount.page import contents, document, heading, line, listed, table
from bincount.report import audited, card, facts, figures, galleries, learning, summary
from bincount.report.scored import Scored, chance_of_difference, evaluations

SHORT, MEANING, CHANCE, SETTINGS = "In short", "What the words mean", "Could it be chance?", "How they differ"

#: A difference that chance makes less often than this is taken for one.
RARE = 0.05

#: Keys that say nothing about how runs differ.
OF_ONE_RUN = {"runs", "resume"}


def write(folder: Path) -> None:
    """Gather what lies in a run's folder into its ``report.html`` and ``MODEL_CARD.md``."""
    name = f"{folder.parent.name}/{folder.name}"
    saved, scored = run.saved_config(folder), evaluations(folder)
    found = facts.read_environment(folder)
    first = scored[0].results if scored else None
    address, digest = str(saved.data.root), first["index_digest"] if first else None
    index = facts.opened(address)
    parts = [f"<h1>Run {escape(name)}</h1>", line(_what(saved, found, index))]
    body: list[str] = []
    if scored:
        body += [heading(2, SHORT), short(scored[0])]
    for each in scored:
        body += evaluation(each)
    body += learning.sections(folder, str(saved.trainer.monitor))
    body += facts.data(address, index, digest if first and first["data"] == address else None)
    body += facts.configuration(saved, (folder / "config.yaml").read_text(encoding="utf-8"))
    body += facts.environment(found)
    body += facts.repeat(saved, found, index, [each.folder.name for each in scored], digest)
    body += meanings()
    storage.write_text(
        folder / "report.html", document(f"bincount run {name}", [*parts, _contents(body), *body])
    )
    if scored:
        storage.write_text(folder / "MODEL_CARD.md", card.text(name, saved, found, scored, index))


def write_scored(folder: Path) -> None:
    """Write ``report.html`` beside the figures of answers made elsewhere."""
    scored = Scored.read(folder)
    results = scored.results
    told = f"The answers of {results['predictions']} against the counts of {results['labels']}."
    if left_out := summary.left_out(results):
        told += f" Left out of all figures: {left_out}."
    body = [heading(2, SHORT), short(scored), *evaluation(scored), *meanings()]
    name = Path(str(results["predictions"])).name
    parts = [f"<h1>Answers {escape(name)}</h1>", line(told), _contents(body), *body]
    storage.write_text(folder / "report.html", document(f"bincount: {name}", parts))


def write_comparison(path: Path, runs: Mapping[str, Path], split: str) -> None:
    """Write a page with runs, by name, side by side that were evaluated on the same photos."""
    scored = {name: Scored.read(folder / "evaluation" / split) for name, folder in runs.items()}
    results = {name: each.results for name, each in scored.items()}
    saved = {name: run.saved_config(folder) for name, folder in runs.items()}
    best = max(results, key=lambda name: results[name]["accuracy"] or 0)
    body = [heading(2, SHORT), listed(_ranked(scored, best))]
    body += [heading(2, "Figures"), figures.compared(results), _reports(path, runs)]
    body += _chances(scored, best) + _settings(saved) + meanings()
    title = f"{len(runs)} runs on {split}"
    parts = [f"<h1>{escape(title)}</h1>", _contents(body), *body]
    storage.write_text(path, document(f"bincount: {title}", parts))


def short(scored: Scored) -> str:
    """What there is to say of an evaluation, as a list."""
    told = "".join(f"<li>{escape(each)}</li>" for each in summary.sentences(scored))
    return f'<ul class="short">{told}</ul>'


def evaluation(scored: Scored) -> list[str]:
    """All that there is to see of an evaluation."""
    title = f"{scored.title}: {scored.results['samples']:,} photos"
    parts = [*figures.sections(scored), *audited.sections(scored), *galleries.sections(scored)]
    return [heading(2, title), *parts]


def meanings() -> list[str]:
    """The words that a newcomer may not know."""
    told = "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in summary.WORDS.items())
    return [heading(2, MEANING), f"<dl>{told}</dl>"]


def _what(saved: DictConfig, found: dict[str, object], index: Index | None) -> str:
    """A run in a line: what was trained, on what, when."""
    model = saved.model.get("architecture") or saved.model.name
    size = saved.data.image_size
    pixels = f"{size}" if isinstance(size, int) else " x ".join(map(str, size))
    photos = index.summary["splits"]["train"]["samples"] * saved.data.fraction if index else None
    on = f" on {round(photos):,} photos" if photos else ""
    return (
        f"A network ({model}, photos of {pixels} pixels) that counts the items in a bin from one photo, "
        f"trained{on} for up to {saved.trainer.max_epochs} epochs, started {found['started']}."
    )


def _contents(body: list[str]) -> str:
    """Links to the sections of a page."""
    titles = [part.partition(">")[2].partition("<")[0] for part in body if part.startswith("<h2")]
    return contents(titles)


def _reports(path: Path, runs: Mapping[str, Path]) -> str:
    links = []
    for name, folder in runs.items():
        report = folder / "report.html"
        inside = report.is_relative_to(path.parent)
        link = report.relative_to(path.parent).as_posix() if inside else report.as_uri()
        links.append(f'<li><a href="{escape(link)}">the report of {escape(name)}</a></li>')
    return f"<ul>{''.join(links)}</ul>"


def _ranked(scored: Mapping[str, Scored], best: str) -> list[str]:
    """A sentence on each run, the one with the most photos counted right first."""
    told = []
    for name in sorted(scored, key=lambda name: -(scored[name].results["accuracy"] or 0)):
        results = scored[name].results
        figures = f"{name}: {percent(results['accuracy'])} right, RMSE {number(results['rmse'])}"
        found = None if name == best else _chance(scored[best], scored[name])
        if found is None:
            told.append(f"{figures}.")
        else:
            told.append(
                f"{figures}; the difference to {best} {'is more than' if found < RARE else 'may be'} chance."
            )
    return told


def _only(one: Scored, other: Scored) -> tuple[int, int]:
    """Photos that only the one, and only the other, has right."""
    right, also = one.told == one.count, other.told == other.count
    return int((right & ~also).sum()), int((also & ~right).sum())


def _chance(one: Scored, other: Scored) -> float | None:
    """How often chance alone would make them differ so; None where they are of different photos."""
    return chance_of_difference(*_only(one, other)) if one.id == other.id else None


def _chances(scored: Mapping[str, Scored], best: str) -> list[str]:
    """Of each run beside the best, which photos only one of the two has right."""
    rows = []
    for name, each in scored.items():
        chance = _chance(scored[best], each)
        if name == best or chance is None:
            continue
        only_best, only_other = _only(scored[best], each)
        told = "more than chance" if chance < RARE else "may be chance"
        rows.append(("", name, f"{only_best:,}", f"{only_other:,}", f"{chance:.3f}", told))
    if not rows:
        return []
    return [
        heading(2, CHANCE),
        line(
            "Two runs that are equally good differ on the same photos by chance. The last figure is how "
            "often such a difference would come of chance alone (McNemar's exact test); it knows nothing of "
            "what another seed would give."
        ),
        table(
            ["beside", f"only {best} is right", "only this one is right", "chance", "so"],
            rows,
            f"Photos that only one of two runs has right, each beside {best}",
        ),
    ]


def _settings(saved: Mapping[str, DictConfig]) -> list[str]:
    """The keys in which the configurations differ."""
    names = sorted({key for each in saved.values() for key in keys(each)})
    rows = []
    for key in names:
        values = [str(OmegaConf.select(each, key, default="")) for each in saved.values()]
        if len(set(values)) > 1 and key not in OF_ONE_RUN:
            rows.append(("", key, *values))
    parts = [heading(2, SETTINGS)]
    if not rows:
        return [*parts, line("Their configurations are the same.")]
    return [*parts, table(["key", *saved], rows, "Keys with different values", words=True)]
