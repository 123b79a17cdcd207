"""report.html, the model card and the page of several runs: whole, self-contained, readable by anybody."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bincount import cli, report, run
from bincount.compose import compose
from bincount.data.index import Index
from bincount.model.published import PUBLISHED
from bincount.report import galleries
from bincount.report.repeating import command, prepare_words, train_words
from bincount.report.scored import Scored, chance_of_difference, interval
from bincount.report.summary import sentences

#: What a page may weigh, as it is sent by mail and opened on a phone.
MOST_BYTES = 2_000_000

#: What accessibility checkers grade as keeping somebody out.
SERIOUS = {"serious", "critical"}


class Page(HTMLParser):
    """The parts of a page that tests look at."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append("")
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.headings[-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_run, tmp_path / "runs" / "default" / small_run.name)


# --- the page of a run --------------------------------------------------------------------------------


def test_the_summary_comes_first_and_every_part_is_there(small_run: Path) -> None:
    page = Page(text(small_run / "report.html"))
    wanted = [
        "Run default/",
        "In short",
        "Split test: 14 photos",
        "Split test: by count",
        "Split test: what is",
    ]
    wanted += ["Split test: what its", "Split test: photos", "Most certain, and wrong"]
    wanted += ["Learning", "Training health", "Data", "Configuration", "Environment", "How to repeat it"]
    wanted += ["What the words mean"]
    found = iter(page.headings)
    for title in wanted:
        assert any(heading.startswith(title) for heading in found), title


def test_the_page_is_one_small_file_that_asks_for_nothing(small_run: Path) -> None:
    path = small_run / "report.html"
    page = Page(text(path))
    assert path.stat().st_size < MOST_BYTES
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        source = attrs.get("src") or ""
        assert source.startswith("data:image/") or not source
        assert not (attrs.get("href") or "#x").startswith(("http", "//"))
    assert "url(" not in text(path)
    assert "@import" not in text(path)


def test_the_page_says_which_parts_are_what(small_run: Path) -> None:
    page = Page(text(small_run / "report.html"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(page.of("main")) == 1
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("caption")) == len(page.of("table")) > 5
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.of("th"))
    assert all(attrs.get("alt") for attrs in page.of("img"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {f"#{id}" for id in ids} >= {attrs["href"] for attrs in page.of("a")}


def test_pictures_are_told_with_their_figures(small_run: Path) -> None:
    results = json.loads((small_run / "evaluation/test/results.json").read_bytes())
    told = " ".join(str(attrs["alt"]) for attrs in Page(text(small_run / "report.html")).of("img"))
    for each in results["per_count"]:
        if each["samples"]:
            assert f"of {each['count']}: {each['accuracy']:.1%}, {each['rmse']:.3f}" in told
    for count, row in enumerate(results["confusion"]):
        if any(row):
            assert f"{count} is told as {int(np.argmax(row))} in {max(row)} of {sum(row)}" in told
    assert "Three line charts" in told


def test_figures_stand_beside_baselines_and_published_ones(small_run: Path) -> None:
    page = text(small_run / "report.html")
    assert all(each.name in page for each in PUBLISHED)
    assert "guessing at random" in page
    assert "commonest count, " in page


def test_the_page_says_how_to_repeat_the_run(small_run: Path, small_data: Path) -> None:
    page, card = (text(small_run / name) for name in ("report.html", "MODEL_CARD.md"))
    index = Index.open(str(small_data))
    for told in ("seed=0", "model=resnet18", "data.image_size=32", "bincount evaluate run=latest split=test"):
        assert told in page
        assert told in card
    assert "source.photos=96" in page
    assert "source.difficulty" not in page, "what is so by default is not said"
    assert index.digest in page
    assert f"torch=={metadata.version('torch').partition('+')[0]}" in page


@pytest.mark.slow
def test_old_runs_without_the_newer_files_have_a_report(run_copy: Path) -> None:
    for path in ("gallery.json", "counts.png"):
        (run_copy / "evaluation/test" / path).unlink()
    results = run_copy / "evaluation/test/results.json"
    found = json.loads(results.read_bytes())
    del found["source"]
    results.write_text(json.dumps(found))
    report.write(run_copy)
    assert "Split test: what is taken for what" in text(run_copy / "report.html")


@pytest.mark.slow
def test_a_run_whose_data_are_gone_has_a_report(run_copy: Path, tmp_path: Path) -> None:
    config = run.saved_config(run_copy)
    config.data.root = str(tmp_path / "gone")
    (run_copy / "config.yaml").write_text(OmegaConf.to_yaml(config))
    report.write(run_copy)
    assert "cannot be read any more from here" in text(run_copy / "report.html")
    assert "cannot be read any more from here" in text(run_copy / "MODEL_CARD.md")


@pytest.mark.slow
def test_what_a_file_says_is_no_html(run_copy: Path) -> None:
    config = run.saved_config(run_copy)
    config.experiment = "<script>alert(1)</script>"
    (run_copy / "config.yaml").write_text(OmegaConf.to_yaml(config))
    report.write(run_copy)
    assert "<script" not in text(run_copy / "report.html")


def test_a_run_that_was_not_evaluated_has_a_report_and_no_card(run_copy: Path) -> None:
    shutil.rmtree(run_copy / "evaluation")
    (run_copy / "MODEL_CARD.md").unlink()
    report.write(run_copy)
    assert "In short" not in text(run_copy / "report.html")
    assert not (run_copy / "MODEL_CARD.md").exists()


@pytest.mark.slow
def test_a_pre_training_has_its_curves(run_copy: Path) -> None:
    before = run_copy / run.PRETRAINING
    before.mkdir()
    shutil.copy(run_copy / "metrics.csv", before)
    report.write(run_copy)
    page = Page(text(run_copy / "report.html"))
    assert page.headings.index("Learning from collages first") < page.headings.index("Learning")
    assert sum("Three line charts" in str(picture["alt"]) for picture in page.of("img")) == 2
    assert (run_copy / "evaluation" / "collages.png").exists()


def test_training_faults_are_told(run_copy: Path) -> None:
    page = text(run_copy / "report.html")
    assert "overfitting" in page
    assert "waiting for data" in page


# --- the card -----------------------------------------------------------------------------------------


def test_the_card_has_the_usual_headings_and_the_figures(small_run: Path) -> None:
    card = text(small_run / "MODEL_CARD.md")
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    wanted = ["What it is", "Intended use", "Data", "Training", "Evaluation", "Limits", "How to repeat it"]
    assert headings == wanted
    results = json.loads((small_run / "evaluation/test/results.json").read_bytes())
    for each in results["per_count"]:
        if each["samples"]:
            assert f"| {each['count']} | {each['samples']} | {100 * each['accuracy']:.1f}% |" in card
    assert f"{100 * results['accuracy']:.1f}%" in card
    assert "drawn bins alone" in card


# --- sentences ----------------------------------------------------------------------------------------


def scored(folder: Path, **changes: Any) -> Scored:
    read = Scored.read(folder / "evaluation/test")
    return Scored(**{**vars(read), "results": {**read.results, **changes}})


def test_no_better_than_not_looking_is_said_so(small_run: Path) -> None:
    told = " ".join(sentences(scored(small_run, accuracy=0.1)))
    assert "no better than not looking at the photos at all" in told


def test_published_figures_are_no_measure_for_drawn_bins(small_run: Path) -> None:
    assert "published" not in " ".join(sentences(scored(small_run)))
    assert "published" in " ".join(sentences(scored(small_run, source="folder")))


@given(st.integers(0, 2000), st.integers(1, 2000))
def test_the_interval_holds_the_share_and_lies_in_0_to_1(right: int, more: int) -> None:
    low, high = interval(right, right + more)
    assert 0 <= low <= right / (right + more) <= high <= 1


def test_the_interval_is_wilsons() -> None:
    assert interval(30, 100) == pytest.approx((0.2189, 0.3958), abs=1e-4)


def test_chance_is_that_of_a_fair_coin() -> None:
    assert chance_of_difference(0, 0) == 1
    assert chance_of_difference(5, 5) == 1
    assert chance_of_difference(10, 0) == pytest.approx(2 / 2**10)
    assert chance_of_difference(2, 8) == pytest.approx(2 * 56 / 2**10)


# --- galleries ----------------------------------------------------------------------------------------


def answers(count: list[int], told: list[int], certainty: list[float] | None) -> Scored:
    probabilities = None
    if certainty is not None:
        probabilities = np.zeros((len(count), 6), dtype=np.float32)
        probabilities[np.arange(len(count)), told] = certainty
    ids = [str(number) for number in range(len(count))]
    names = {"names": list("012345")}
    return Scored(Path(), names, ids, np.array(count), np.array(told), probabilities)


def test_galleries_are_of_the_surest() -> None:
    chosen = galleries.choose(answers([1, 2, 3, 4], [1, 3, 3, 5], [0.5, 0.9, 0.8, 0.95]))
    assert chosen[galleries.CERTAIN_WRONG].tolist() == [3, 1]
    assert chosen[galleries.CERTAIN_RIGHT].tolist() == [2, 0]
    assert chosen[galleries.RANDOM].tolist() == [0, 1, 2, 3]
    assert chosen[galleries.BY_COUNT].tolist() == [0, 1, 2, 3]


def test_what_is_right_is_not_of_one_count_alone() -> None:
    chosen = galleries.choose(answers([0] * 9 + [1], [0] * 9 + [1], [0.9] * 9 + [0.3]))
    assert chosen[galleries.CERTAIN_RIGHT].tolist() == [0, 1, 2, 3, 9]


def test_without_probabilities_the_largest_errors_are_shown() -> None:
    chosen = galleries.choose(answers([1, 2, 5], [1, 3, 0], None))
    assert chosen[galleries.FURTHEST].tolist() == [2, 1]
    assert galleries.CERTAIN_WRONG not in chosen


def test_photos_of_the_galleries_lie_beside_with_heat(small_run: Path) -> None:
    where = small_run / "evaluation/test"
    shown = json.loads((where / "gallery.json").read_bytes())
    ids = {each["id"] for of in shown.values() for each in of}
    assert {path.name for path in (where / "gallery").iterdir()} == {
        f"{id}{ending}" for id in ids for ending in (".jpg", ".heat.jpg")
    }
    predicted = pq.read_table(where / "predictions.parquet").to_pylist()
    by_id = {row["id"]: row for row in predicted}
    for each in shown[galleries.RANDOM]:
        assert (each["count"], each["told"]) == (
            str(by_id[each["id"]]["count"]),
            str(by_id[each["id"]]["predicted"]),
        )
        assert each["probability"] == pytest.approx(by_id[each["id"]][f"p_{each['told']}"])


# --- words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["seed=7", "data.root=/some/where (old)/bins,2", "model=resnet50", "model.weights=imagenet"],
        ["experiment=abid2018", "data.batch_size=32"],
        ["model=timm", "model.architecture=convnext_tiny", "optimizer=sgd", "scheduler=plateau"],
        ["data.image_size=[96,128]", "trainer.max_hours=2.5", "data.cache=~/cache", "objective=focal"],
        ["optimizer.lr=1e-5", "optimizer.betas=[0.8,0.9]", "trainer.clip_gradient=1"],
    ],
)
def test_the_words_make_the_same_configuration_again(words: list[str]) -> None:
    saved = compose("train", words)
    again = train_words(saved)
    assert compose("train", again) == saved
    assert len(again) <= len(words)


def test_a_configuration_of_an_older_version_is_told_as_far_as_it_goes() -> None:
    saved = compose("train", ["seed=7"])
    del saved["sweep"]
    del saved.trainer["ema"]
    saved.trainer.forgotten = 3
    assert train_words(saved) == ["seed=7"]


def test_the_words_of_a_data_set_make_it_again(small_data: Path, tmp_path: Path) -> None:
    index = Index.open(str(small_data))
    words = prepare_words(index.summary, str(tmp_path / "again"))
    assert words is not None
    assert cli.main(["prepare", *words]) == 0
    assert Index.open(str(tmp_path / "again")).digest == index.digest


def test_shards_made_elsewhere_have_no_command() -> None:
    assert prepare_words({"source": {"name": "shards"}}, "here") is None


def test_commands_are_for_a_shell() -> None:
    assert command("train", ["data.root=my bins", "seed=1"]) == "bincount train 'data.root=my bins' seed=1"


# --- several runs -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_runs_have_a_page_side_by_side(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = shutil.copytree(run_copy, run_copy.with_name("other"))
    config = run.saved_config(other)
    config.optimizer.lr = 0.123
    (other / "config.yaml").write_text(OmegaConf.to_yaml(config))
    runs = run_copy.parents[1]
    words = [f"run=[{run_copy},{other}]", f"runs={runs}", "data.workers=0"]
    assert cli.main(["evaluate", *words]) == 0
    assert f"side by side: {runs / 'comparison.html'}" in capsys.readouterr().out
    written = text(runs / "comparison.html")
    page = Page(written)
    assert "0.123" in written
    assert "may be chance" in written
    assert run_copy.name in written
    links = [str(attrs["href"]) for attrs in page.of("a") if not str(attrs["href"]).startswith("#")]
    assert [(runs / link).resolve() for link in links] == [
        folder / "report.html" for folder in (run_copy, other)
    ]


# --- in a browser -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "light"), (390, "dark")])
def test_a_browser_finds_nothing_that_keeps_somebody_out(
    run_copy: Path, small_data: Path, width: int, scheme: str
) -> None:
    """axe-core's rules, on a desktop, on a phone and in the dark; and nothing sticks out on a phone."""
    sync_api = pytest.importorskip("playwright.sync_api")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    chromium = (
        os.environ.get("BINCOUNT_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    )
    if chromium is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or BINCOUNT_CHROMIUM=PATH")
    side_by_side, folder = run_copy.parent / "comparison.html", run_copy / "evaluation/test"
    report.write_comparison(side_by_side, {"a": run_copy, "b": run_copy}, "test")
    words = [f"predictions={folder}/predictions.parquet", f"data.root={small_data}"]
    assert cli.main(["evaluate", *words]) == 0
    pages = [run_copy / "report.html", side_by_side, folder / "predictions.evaluation/report.html"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for path in pages:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(path.as_uri())
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = axe.Axe().run(page).response["violations"]
            assert [each["id"] for each in found if each["impact"] in SERIOUS] == []
        browser.close()
