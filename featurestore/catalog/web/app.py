"""The pages' addresses, and what every answer keeps: no script but its own, no frame, no other host's name.

GET  /                          list and search; ?q= and filters; part=results for the list alone
GET  /view/NAME                 a view; /view/NAME/now for what the store holds of it, alone
GET  /service/NAME              a service; POST .../lookup and .../explain where there is a server to ask
GET  /source/NAME
GET  /lineage?of=NAME           what a thing is made of, and what depends on it
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from featurestore.catalog.web import asking
from featurestore.catalog.web.pages import Pages
from featurestore.errors import FeatureStoreError, InvalidRequest, PermissionDenied, Unauthenticated, Unavailable

HERE = Path(__file__).parent

BODY_BYTES_MAX = 65_536
"""Of a form."""

HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
"""Of every answer."""

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine for itself. A page of somebody else's that lets a name of its own lead here is not answered."""


def application(pages: Pages, *, hosts: tuple[str, ...]) -> Starlette:
    """The catalog as an ASGI application.

    Args:
        pages: what they show.
        hosts: names under which it may be asked; "*" for any.
    """
    site = _Site(pages)
    routes = [
        Route("/", site.index),
        Route("/view/{name}", site.view),
        Route("/view/{name}/now", site.now),
        Route("/source/{name}", site.source),
        Route("/service/{name}", site.service),
        Route("/service/{name}/lookup", site.lookup, methods=["POST"]),
        Route("/service/{name}/explain", site.explain, methods=["POST"]),
        Route("/lineage", site.lineage),
        Route("/healthz", lambda _request: PlainTextResponse("ok")),
        Mount("/static", _Static(directory=HERE / "static")),
    ]
    middleware = [
        Middleware(_Headers),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
    ]
    return Starlette(routes=routes, middleware=middleware, exception_handlers={404: site.missing})


class _Headers:
    """Adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS.items()]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _Static(StaticFiles):
    """Files that a browser keeps: their addresses change with them."""

    def file_response(self, *arguments: Any, **settings: Any) -> Response:
        """One file."""
        response = super().file_response(*arguments, **settings)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


class _Site:
    """Requests to pages."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        digest = hashlib.blake2b(digest_size=6)
        for path in sorted((HERE / "static").iterdir()):
            digest.update(path.read_bytes())
        self._templates.globals |= {"version": digest.hexdigest(), "project": pages.project}

    def index(self, request: Request) -> Response:
        """List and search."""
        shown = self._pages.index(dict(request.query_params))
        part = request.query_params.get("part") == "results"
        return self._page("results.html" if part else "index.html", shown)

    def view(self, request: Request) -> Response:
        """A view."""
        return self._found("view.html", self._pages.view(request.path_params["name"]), request, measures=True)

    def now(self, request: Request) -> Response:
        """What the store holds of a view."""
        return self._found("now.html", self._pages.now(request.path_params["name"]), request, measures=True)

    def source(self, request: Request) -> Response:
        """A source."""
        return self._found("source.html", self._pages.source(request.path_params["name"]), request)

    def service(self, request: Request) -> Response:
        """A service."""
        return self._found("service.html", self._pages.service(request.path_params["name"]), request)

    def lineage(self, request: Request) -> Response:
        """What comes from what."""
        try:
            return self._page("lineage.html", self._pages.lineage(request.query_params.get("of", "")))
        except InvalidRequest as error:
            return self._page("lineage.html", {**self._pages.lineage(""), "error": error}, status=404)

    def missing(self, request: Request, _error: Exception) -> Response:
        """No such page."""
        return self._page("missing.html", {"path": request.url.path, "title": "Not found"}, status=404)

    async def lookup(self, request: Request) -> Response:
        """Values of an entity."""
        return await self._ask(request, asking.look_up_form, "answer")

    async def explain(self, request: Request) -> Response:
        """Why a feature of an entity has its value."""
        return await self._ask(request, asking.explain_form, "explanation")

    async def _ask(
        self, request: Request, ask: Callable[[asking.Server, str, Mapping[str, str]], Any], shown_as: str
    ) -> Response:
        """A form that was sent, answered below itself, or alone for the page's own script."""
        name = request.path_params["name"]
        shown = self._pages.service(name)
        server = self._pages.server
        if shown is None or server is None:
            return self.missing(request, Exception())
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return PlainTextResponse("forms of other sites are not answered", 403)
        form = await _form(request)
        status = 200
        try:
            shown = {**shown, shown_as: await run_in_threadpool(ask, server, name, form)}
        except FeatureStoreError as error:
            shown, status = {**shown, "error": error}, _status_of(error)
        part = request.headers.get("x-part") == "answer"
        shown["typed"] = {key: text for key, text in form.items() if key != asking.TOKEN_FIELD}
        return self._page("answer.html" if part else "service.html", shown, status=status)

    def _found(
        self, template: str, shown: Mapping[str, Any] | None, request: Request, *, measures: bool = False
    ) -> Response:
        if shown is None:
            return self.missing(request, Exception())
        return self._page(template, shown, after=BackgroundTask(self._pages.measure) if measures else None)

    def _page(
        self, template: str, shown: Mapping[str, Any], *, status: int = 200, after: BackgroundTask | None = None
    ) -> Response:
        text = self._templates.get_template(template).render(shown)
        return HTMLResponse(text, status, headers={"cache-control": "no-store"}, background=after)


async def _form(request: Request) -> dict[str, str]:
    """Fields of a form."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return {}
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def _status_of(error: FeatureStoreError) -> int:
    """Of HTTP."""
    if isinstance(error, Unauthenticated):
        return 401
    if isinstance(error, PermissionDenied):
        return 403
    if isinstance(error, InvalidRequest):
        return 400
    return 503 if isinstance(error, Unavailable) else 502
