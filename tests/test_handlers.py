"""A run in SageMaker's own images: their inference toolkit calls our handlers, and answers as we serve."""

import base64
import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import NewFolder
from making import declaring, jpeg
from starlette.testclient import TestClient

from bincount.compose import compose, typed
from bincount.counter import load
from bincount.serving.app import build
from bincount.serving.judging import judge_of
from bincount.serving.service import Service

toolkit = pytest.importorskip("sagemaker_inference.default_handler_service")

INFERENCE = "from bincount.serving.handlers import input_fn, model_fn, output_fn, predict_fn\n"


class Context:
    """What the model server tells of a request, and is told of its answer."""

    def __init__(self, model_dir: Path, **headers: str):
        self.system_properties = {"model_dir": str(model_dir)}
        self.request_processor = [self]
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.status, self.kind = 200, ""

    def get_request_properties(self) -> dict[str, str]:
        return self.headers

    def set_response_status(self, code: int, phrase: str) -> None:
        self.status = code

    def set_response_content_type(self, n: int, kind: str) -> None:
        self.kind = kind


class Hosted:
    """The toolkit's service, as its model server drives it."""

    def __init__(self, model_dir: Path):
        self._model_dir, self._service = model_dir, toolkit.DefaultHandlerService()
        self._service.initialize(Context(model_dir))

    def ask(self, body: bytes, kind: str = "image/jpeg", accept: str = "*/*") -> tuple[int, str, Any]:
        """Status, type and body of the answer."""
        context = Context(self._model_dir, Content_Type=kind, Accept=accept)
        (told,) = self._service.handle([{"body": bytearray(body)}], context)
        return context.status, context.kind, told


@pytest.fixture(scope="module")
def hosted(small_run: Path, new_folder: NewFolder) -> Iterator[Hosted]:
    code = new_folder("code")
    (code / "inference.py").write_text(INFERENCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(code))
        patch.setenv("PYTHONPATH", "")
        yield Hosted(small_run)
    sys.modules.pop("inference", None)


@pytest.fixture(scope="module")
def served(small_run: Path) -> Iterator[TestClient]:
    limits = typed("serve", compose("serve", ["serve.threads=1"])).serve
    counter = load(small_run, device="cpu")
    judge = judge_of(small_run, counter.counts, limits.error_rate, limits.check_from)
    name = f"{small_run.parent.name}/{small_run.name}"
    with TestClient(build(Service(counter, judge, name, limits))) as client:
        yield client


def in_json(**body: Any) -> bytes:
    return json.dumps(body).encode()


def text_of(photo: bytes) -> str:
    return base64.b64encode(photo).decode()


def same(a: Any, b: Any) -> None:
    """Two answers with the same keys, whose numbers differ in their last digits at the most."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    else:
        assert a == (pytest.approx(b, abs=1e-5) if isinstance(a, float) else b)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (jpeg(400, 300), "image/jpeg"),
        (in_json(photo=text_of(jpeg())), "application/json"),
        (
            in_json(photos=[text_of(jpeg(seed=n)) for n in range(5)], expected=[0, None, 2, 3, 4]),
            "application/json",
        ),
    ],
)
def test_the_toolkit_answers_as_the_service_does(
    hosted: Hosted, served: TestClient, body: bytes, kind: str
) -> None:
    status, told_kind, told = hosted.ask(body, kind)
    answer = served.post("/invocations", content=body, headers={"Content-Type": kind})
    assert (status, told_kind) == (200, "application/json")
    same(json.loads(told), answer.json())


def test_it_answers_in_csv(hosted: Hosted, served: TestClient) -> None:
    body = in_json(photos=[text_of(jpeg(seed=n)) for n in range(3)], expected=2)
    status, kind, told = hosted.ask(body, "application/json", "text/csv")
    headers = {"Content-Type": "application/json", "Accept": "text/csv"}
    answer = served.post("/invocations", content=body, headers=headers)
    assert (status, kind) == (200, "text/csv")
    rows, expected = (list(csv.DictReader(io.StringIO(text))) for text in (told.decode(), answer.text))
    assert [row["count"] for row in rows] == [row["count"] for row in expected]
    same([float(row["p_wrong"]) for row in rows], [float(row["p_wrong"]) for row in expected])


@pytest.mark.parametrize(
    ("body", "kind", "accept", "status"),
    [
        (jpeg()[:-200], "image/jpeg", "*/*", 422),
        (declaring(jpeg(), 60_000, 60_000), "image/jpeg", "*/*", 413),
        (b"", "image/jpeg", "*/*", 422),
        (jpeg(), "text/html", "*/*", 415),
        (b"{", "application/json", "*/*", 422),
        (in_json(photo=text_of(jpeg()), expected=99), "application/json", "*/*", 422),
        (jpeg(), "image/jpeg", "image/png", 406),
    ],
)
def test_what_the_service_refuses_the_toolkit_refuses_with_the_same_line(
    hosted: Hosted, served: TestClient, body: bytes, kind: str, accept: str, status: int
) -> None:
    found, _, told = hosted.ask(body, kind, accept)
    answer = served.post("/invocations", content=body, headers={"Content-Type": kind, "Accept": accept})
    assert found == status == answer.status_code
    assert told.splitlines()[0] == answer.json()["error"]


def test_a_folder_without_a_run_is_told(tmp_path: Path, hosted: Hosted) -> None:
    with pytest.raises(Exception, match="checkpoint"):
        Hosted(tmp_path)
