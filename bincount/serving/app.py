"""The HTTP service: /ping and /invocations as SageMaker asks for them, a page for people, metrics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from bincount import __version__
from bincount.serving import page
from bincount.serving.answers import CSV, as_csv, as_json, wanted
from bincount.serving.documentation import REQUEST, RESPONSES, document
from bincount.serving.metrics import TYPE
from bincount.serving.reading import JSON, Asked, Holding, asked, discard, read_body
from bincount.serving.refusal import Refusal
from bincount.serving.service import Service
from bincount.serving.watching import FAILED, GONE, Watched, seen

#: Where there is something.
PATHS = ("/", "/ping", "/invocations", "/metrics", "/docs", "/openapi.json")


def build(service: Service) -> ASGIApp:
    """The service as an ASGI app; it begins to count as the app starts."""

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    told = "Counts the items in warehouse bins from photos, and says which stock records may be wrong."
    app = FastAPI(
        title="bincount",
        version=__version__,
        description=told,
        lifespan=living,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_answers_to_errors(app)
    _add_endpoints(app, service)
    _add_pages(app)
    return Watched(app, service, frozenset(PATHS))


def _add_endpoints(app: FastAPI, service: Service) -> None:
    @app.get("/ping", summary="Is it counting?", responses={503: {"description": "It ends, or is stuck."}})
    async def ping() -> Response:
        """200 once the model is loaded and has counted; 503 if it is about to end, or stuck in a batch."""
        state = "ending" if service.closed else "stuck" if service.stuck else "counting"
        return _json({"status": state, "run": service.name}, 200 if state == "counting" else 503)

    @app.post("/invocations", summary="Count photos", openapi_extra=REQUEST, responses=RESPONSES)
    async def invocations(request: Request, expected: int | None = None, heatmap: bool = False) -> Response:
        """Counts, probabilities, and for an expected quantity whether to check the bin.

        expected: what the record says of the photo, where the body does not say. heatmap: also where in
        each photo the evidence for its count lies, as rows of numbers from 0 to 1.
        """
        kind = wanted(request.headers.get("accept", ""))
        with service.held.by_request() as holding:
            reading = _read(request, service, holding, expected)
            found = await service.answer(seen(request).id, reading, heatmap)
        seen(request).told["photos"] = len(found)
        if kind == CSV:
            return Response(as_csv(found, service.counter.counts), media_type=CSV)
        return Response(as_json(found, service.counter.counts, service.name), media_type=JSON)

    @app.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Requests by status, latency, the queue, batches, photos; of all workers."""
        return Response(service.metrics.text(), headers={"Content-Type": TYPE})


async def _read(request: Request, service: Service, holding: Holding, expected: int | None) -> Asked:
    length, kind = request.headers.get("content-length"), request.headers.get("content-type", "")
    body = await read_body(request.stream(), length, service.limits, holding)
    seen(request).told["bytes"] = len(body)
    return await service.beside(partial(asked, body, kind, expected, service.limits))


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def people() -> Response:
        return page.response()

    described = document(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(described, media_type="text/html")


def _add_answers_to_errors(app: FastAPI) -> None:
    """Every refusal is one line of JSON, with the request's id."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        retry = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        whole = seen(request).whole
        if not whole and error.status != 408:
            whole = await discard(request.receive, request.headers.get("content-length"))
        return _error(request, error.status, error.told, retry if whole else {**retry, "Connection": "close"})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _error(request, 500, FAILED)

    @app.exception_handler(HTTPException)
    async def not_there(request: Request, error: HTTPException) -> Response:
        there = f"there is no such page; there are {', '.join(PATHS)}"
        method = f"{request.method[:20]} is not for this page"
        line = {404: there, 405: method}.get(error.status_code, str(error.detail))
        return _error(request, error.status_code, line, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _error(request, 422, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return _error(request, GONE, "the client went away")


def _error(request: Request, status: int, line: str, headers: dict[str, str] | None = None) -> Response:
    seen(request).told["error"] = line
    return _json({"error": line, "request": seen(request).id}, status, headers)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, JSON)
