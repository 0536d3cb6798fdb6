"""The page's server: loopback only, one token, one cookie; tiles, JSON and server-sent events.

Whoever can open a connection to this port is not yet an analyst: the address printed at the start carries a token that
works once and is exchanged for a cookie that no other site's page can send. Every request's Host must be this address
(a name that was made to point here is refused), and what changes anything must come from the page itself.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scanner_io import __version__
from scanner_io.decision_codes import CODES
from scanner_io.errors import DataError, DeliveryError, ScannerError, StorageError
from scanner_io.model import Verdict

from . import codes, evidence, figures, training
from .images import TILE, Look, Material, Reduce, crc32, hatched, material_rgb, palettes, png, rendered
from .station import SECOND, OpenScan, Station, decision_told

STATIC = Path(__file__).parent / "static"
MAX_BODY = 256 << 10
SECURITY = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        b"frame-ancestors 'none'; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
)  # fmt: skip
REFUSED_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>scanlane console</title>"
    "<h1>This page is not open</h1><p>Open the address that <code>scanlane console</code> printed in its terminal; it "
    "works once. Press Enter there for a new one.</p></html>"
)


class Lock:
    """Who may in: tokens that work once, and the cookies they were exchanged for."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self.cookie = f"scanlane_console_{port}"
        self._tokens: set[str] = set()
        self._sessions: set[str] = set()

    def new_address(self) -> str:
        """Return an address with a new token; all earlier unused ones end."""
        token = secrets.token_urlsafe(32)
        self._tokens = {token}
        return f"http://127.0.0.1:{self.port}/?token={token}"

    def exchange(self, token: str) -> str | None:
        """Return a session for a token, which is used up; None if it is none."""
        for known in self._tokens:
            if hmac.compare_digest(known.encode(), token.encode()):
                self._tokens = set()
                session = secrets.token_urlsafe(32)
                self._sessions.add(session)
                return session
        return None

    def knows(self, session: str) -> bool:
        """Tell whether a cookie is of a session that was given."""
        return any(hmac.compare_digest(known.encode(), session.encode()) for known in self._sessions)


class Gate:
    """In front of everything: host, cookie, origin; and the headers of every answer."""

    def __init__(self, app: ASGIApp, lock: Lock) -> None:
        self._app = app
        self._lock = lock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in SECURITY if h[0] not in given)]
            await send(message)

        request = Request(scope)
        answer = self._answer(request)
        await (answer if answer is not None else self._app)(scope, receive, sent)

    def _answer(self, request: Request) -> Response | None:
        """Return why a request is not let through, or what exchanges its token; None for one that may pass."""
        if request.headers.get("host", "") not in self._lock.hosts:
            return JSONResponse({"error": "asked by another name than this address"}, 421)
        origin = request.headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in self._lock.hosts:
            return JSONResponse({"error": "asked by another site's page"}, 403)
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return JSONResponse({"error": "asked by another site's page"}, 403)
        if request.url.path == "/" and "token" in request.query_params:
            session = self._lock.exchange(request.query_params["token"])
            if session is not None:
                answer = RedirectResponse("/", 303)
                answer.set_cookie(self._lock.cookie, session, max_age=16 * 3600, httponly=True, samesite="strict")
                return answer
        if not self._lock.knows(_cookie(request, self._lock.cookie)):
            if request.url.path == "/":
                return Response(REFUSED_PAGE, 401, media_type="text/html")
            return JSONResponse({"error": "no session: open the address that `scanlane console` printed"}, 401)
        if request.method not in ("GET", "HEAD") and request.headers.get("x-scanlane") != "1":
            return JSONResponse({"error": "not asked by the console's own page"}, 403)
        return None


def _cookie(request: Request, name: str) -> str:
    try:
        jar = SimpleCookie(request.headers.get("cookie", ""))
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""


STATUS: tuple[tuple[type[ScannerError], int], ...] = ((StorageError, 507), (DataError, 409), (DeliveryError, 404))


def _failed(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
    return JSONResponse({"error": str(error)}, status)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _body(request: Request) -> dict[str, Any]:
    """Return the JSON object that was sent. Raises HTTPException."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise HTTPException(413, f"more than {MAX_BODY} bytes")
    try:
        value = msgspec.json.decode(data or b"{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise HTTPException(400, f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise HTTPException(400, "expected a JSON object")
    return value


class _DecisionAsked(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    scan_id: str
    sha256: str
    verdict: Verdict
    codes: tuple[int, ...] = ()
    note: str = ""


class _DownAsked(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    from_utc_ns: str
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class _WantAsked(msgspec.Struct, forbid_unknown_fields=True):
    rows: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class _ShiftAsked(msgspec.Struct, forbid_unknown_fields=True):
    phase: Literal["begun", "ended"]
    note: Annotated[str, msgspec.Meta(max_length=5000)] = ""


class _OpinionAsked(msgspec.Struct, forbid_unknown_fields=True):
    scan_id: str
    sha256: str
    verdict: Verdict
    note: Annotated[str, msgspec.Meta(max_length=5000)]
    blind: bool = True


def _converted(value: dict[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise HTTPException(400, str(error)) from error


Answer = Callable[[Request], Awaitable[Response]]


class Pages:
    """The endpoints."""

    def __init__(self, station: Station) -> None:
        self._station = station

    def routes(self) -> list[Route | Mount]:
        """Return where everything is."""
        return [
            Route("/", self.index),
            Route("/events", self.events),
            Route("/palettes.json", self.palettes),
            Route("/tile/{scan}/{sha256}/{energy}/{level:int}/{tx:int}/{ty:int}.{form}", self.tile),
            Route("/api/state", self.state),
            Route("/api/queue", self.queue),
            Route("/api/want", self.want, methods=["POST"]),
            Route("/api/scan/{scan}", self.scan),
            Route("/api/scan/{scan}/portal", self.portal),
            Route("/api/scan/{scan}/{sha256}/counts/{x:int}/{y:int}", self.counts),
            Route("/api/history", self.history),
            Route("/api/open", self.open, methods=["POST"]),
            Route("/api/here", self.here, methods=["POST"]),
            Route("/api/release", self.release, methods=["POST"]),
            Route("/api/decide", self.decide, methods=["POST"]),
            Route("/api/decision/{id}/{what}", self.decision, methods=["POST"]),
            Route("/api/draft", self.draft, methods=["POST"]),
            Route("/api/regions", self.regions, methods=["POST"]),
            Route("/api/settings", self.settings, methods=["POST"]),
            Route("/api/log", self.log, methods=["POST"]),
            Route("/api/earlier/{scan}", self.earlier),
            Route("/api/bundle/{scan}.zip", self.bundle),
            Route("/api/figures", self.figures),
            Route("/api/decisions.csv", self.decisions_csv),
            Route("/api/down", self.down, methods=["POST"]),
            Route("/api/shift", self.shift, methods=["POST"]),
            Route("/api/opinion", self.opinion, methods=["POST"]),
            Route("/api/training", self.training),
            Route("/api/training/{scan}", self.feedback),
            Mount("/static", _Static(directory=STATIC)),
        ]

    # -- reading

    async def index(self, request: Request) -> Response:
        """The page."""
        return Response((STATIC / "index.html").read_bytes(), media_type="text/html; charset=utf-8")

    async def events(self, request: Request) -> Response:
        """The stream of events."""
        last = request.headers.get("last-event-id", "")
        stream = self._station.events.listen(int(last) if last.isdigit() else None)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    async def state(self, request: Request) -> Response:
        """Return what a page that has just been loaded must know."""
        station = self._station
        entries = await run_in_threadpool(station.journal.entries, limit=30)
        return _fresh(
            {
                "analyst": station.analyst, "version": __version__, "services": station.services_told(),
                "open": station.current or None, "opening": station.opening(station.current),
                "decisions": [decision_told(e) for e in entries], "hold_s": station.hold_s,
                "settings": station.journal.kept(station.analyst, "settings", {}), "codes": codes.told(),
                "training": station.training is not None, "second": SECOND in station.services,
                **_shift(station), **station.queue(),
            }
        )  # fmt: skip

    async def queue(self, request: Request) -> Response:
        """Return the undecided scans."""
        return _fresh(self._station.queue())

    async def want(self, request: Request) -> Response:
        """Hear how far down the queue somebody looks."""
        asked: _WantAsked = _converted(await _body(request), _WantAsked)
        self._station.want(asked.rows)
        return _fresh({})

    async def scan(self, request: Request) -> Response:
        """Return what is shown of an opened scan."""
        return _fresh(await run_in_threadpool(self._station.meta, request.path_params["scan"]))

    async def portal(self, request: Request) -> Response:
        """Return the portal's series of an opened scan."""
        return _fresh(await run_in_threadpool(self._station.portal, request.path_params["scan"]))

    async def counts(self, request: Request) -> Response:
        """Return what the detector gave for one pixel, per energy."""
        path = request.path_params
        scan = self._station.ready(path["scan"], path["sha256"])
        names = [energy["name"] for energy in scan.meta["energies"]]
        seen = {n: p.counts_at(path["x"], path["y"]) for n, p in zip(names, scan.pyramids, strict=True)}
        told = {"scan_id": scan.scan_id, "sha256": path["sha256"], "x": path["x"], "y": path["y"], "counts": seen}
        return _fresh(told)

    async def history(self, request: Request) -> Response:
        """Return what was done here, of one scan or all."""
        asked = request.query_params.get("scan", "")
        lines = await run_in_threadpool(lambda: self._station.journal.history(scan_id=asked, limit=500))
        return _fresh({"lines": lines})

    async def palettes(self, request: Request) -> Response:
        """Return the colours of every palette."""
        return JSONResponse({name: table.tolist() for name, table in palettes().items()})

    async def tile(self, request: Request) -> Response:
        """Return a tile: 16-bit values, or 8-bit PNG for a browser that cannot show them."""
        return await run_in_threadpool(_tile, self._station, request)

    # -- doing

    async def open(self, request: Request) -> Response:
        """Begin to open a scan."""
        asked = await _body(request)
        scan = await run_in_threadpool(
            lambda: self._station.open(str(asked.get("scan_id", "")), ahead=bool(asked.get("ahead", False)))
        )
        return _fresh(scan.told())

    async def here(self, request: Request) -> Response:
        """Hear that somebody is at the page: a page that hangs does not send this."""
        self._station.acted()
        return _fresh({})

    async def release(self, request: Request) -> Response:
        """Give a scan back."""
        asked = await _body(request)
        await run_in_threadpool(self._station.release, str(asked.get("scan_id", "")))
        return _fresh({})

    async def decide(self, request: Request) -> Response:
        """Take a decision. The same id again is the same decision."""
        asked: _DecisionAsked = _converted(await _body(request), _DecisionAsked)
        if unknown := [c for c in asked.codes if c not in CODES]:
            raise HTTPException(400, f"decision codes {unknown}: expected numbers of {sorted(CODES)}")
        regions = tuple(self._station.journal.kept(self._station.kept_as(asked.scan_id), "regions", []))
        entry = await run_in_threadpool(
            lambda: self._station.decide(
                asked.id, asked.scan_id, asked.sha256, asked.verdict, codes=asked.codes, note=asked.note,
                regions=regions,
            )
        )  # fmt: skip
        return _fresh(decision_told(entry))

    async def decision(self, request: Request) -> Response:
        """Undo a decision, or stop sending it."""
        what = {"undo": self._station.undo, "give_up": self._station.give_up}.get(request.path_params["what"])
        if what is None:
            raise HTTPException(404, "expected undo or give_up")
        return _fresh(decision_told(await run_in_threadpool(what, request.path_params["id"])))

    async def draft(self, request: Request) -> Response:
        """Keep a decision that is being made, for a page that is loaded anew."""
        asked = await _body(request)
        name = self._station.kept_as(str(asked.get("scan_id", "")))
        await run_in_threadpool(self._station.journal.keep, name, "draft", asked.get("draft"))
        return _fresh({})

    async def regions(self, request: Request) -> Response:
        """Keep what was drawn on a scan; each change is a line of the history."""
        asked = await _body(request)
        scan = self._station.ready(str(asked.get("scan_id", "")), str(asked.get("sha256", "")))
        drawn = asked.get("regions", [])
        if not isinstance(drawn, list) or len(drawn) > 100:
            raise HTTPException(400, "regions: expected a list of at most 100")
        journal = self._station.journal

        def keep() -> None:
            name = self._station.kept_as(scan.scan_id)
            before = journal.kept(name, "regions", [])
            journal.keep(name, "regions", drawn)
            journal.note(self._station.analyst, "regions", scan.scan_id, old=before, new=drawn)

        await run_in_threadpool(keep)
        return _fresh({})

    async def settings(self, request: Request) -> Response:
        """Keep the analyst's settings."""
        asked = await _body(request)
        await run_in_threadpool(self._station.journal.keep, self._station.analyst, "settings", asked)
        return _fresh({})

    async def log(self, request: Request) -> Response:
        """Write down what was done on the page: enhancements used, first paint, tiles refused."""
        asked = await _body(request)
        kind = str(asked.pop("event", ""))
        if kind not in codes.PAGE_EVENTS:
            raise HTTPException(400, f"event {kind[:40]!r}: expected one of {sorted(codes.PAGE_EVENTS)}")
        scan_id = str(asked.pop("scan_id", ""))[:80]
        await run_in_threadpool(lambda: self._station.journal.note(self._station.analyst, kind, scan_id, page=asked))
        return _fresh({})

    # -- beside the decision

    async def earlier(self, request: Request) -> Response:
        """Return what is shown of a scan that was open here before."""
        return _fresh(await run_in_threadpool(self._station.earlier, request.path_params["scan"]))

    async def bundle(self, request: Request) -> Response:
        """Return the evidence bundle of an opened scan."""
        scan = self._station.ready(request.path_params["scan"])
        if scan.address == SECOND:
            raise DeliveryError(f"scan {scan.scan_id}: gives no evidence here, where what was found is withheld")
        data = await run_in_threadpool(evidence.bundle, self._station, scan)
        await run_in_threadpool(
            lambda: self._station.journal.note(
                self._station.analyst, "bundle", scan.scan_id, sha256=hashlib.sha256(data).hexdigest()
            )
        )
        name = f'attachment; filename="{scan.scan_id}.evidence.zip"'
        headers = {"Content-Disposition": name, "Cache-Control": "no-store"}
        return Response(data, media_type="application/zip", headers=headers)

    async def figures(self, request: Request) -> Response:
        """Return the figures of the last so many hours."""
        asked = request.query_params.get("hours", "24")
        hours = int(asked) if asked.isdigit() else 24
        now = time.time_ns()
        since = now - min(hours, 24 * 366) * figures.HOUR_NS
        return _fresh(await run_in_threadpool(figures.figures, self._station, since, now))

    async def decisions_csv(self, request: Request) -> Response:
        """Return all decisions as CSV."""
        text = await run_in_threadpool(figures.decisions_csv, self._station.journal)
        headers = {"Content-Disposition": 'attachment; filename="decisions.csv"', "Cache-Control": "no-store"}
        return Response(text, media_type="text/csv; charset=utf-8", headers=headers)

    async def down(self, request: Request) -> Response:
        """Write down why a service could not be reached."""
        asked: _DownAsked = _converted(await _body(request), _DownAsked)
        said = {"address": asked.address, "from_utc_ns": asked.from_utc_ns, "reason": asked.reason}
        await run_in_threadpool(lambda: self._station.journal.note(self._station.analyst, "down_reason", "", **said))
        return _fresh({})

    async def shift(self, request: Request) -> Response:
        """Begin or end a shift; the note of its end is shown at the next beginning."""
        asked: _ShiftAsked = _converted(await _body(request), _ShiftAsked)
        journal, analyst = self._station.journal, self._station.analyst

        def keep() -> None:
            journal.note(analyst, f"shift_{asked.phase}", note=asked.note)
            now_ms = time.time_ns() // 1_000_000
            journal.keep(analyst, "shift", {"since_ms": now_ms} if asked.phase == "begun" else None)
            if asked.phase == "ended":
                journal.keep("", "handover", {"who": analyst, "note": asked.note, "ms": now_ms})

        await run_in_threadpool(keep)
        return _fresh(_shift(self._station))

    async def opinion(self, request: Request) -> Response:
        """Give an undecided scan on to somebody else, with what this analyst thinks."""
        asked: _OpinionAsked = _converted(await _body(request), _OpinionAsked)
        await run_in_threadpool(
            lambda: self._station.give_opinion(
                asked.scan_id, asked.sha256, asked.verdict, asked.note, blind=asked.blind
            )
        )  # fmt: skip
        return _fresh({})

    async def training(self, request: Request) -> Response:
        """Return how this analyst did in training."""
        told = await run_in_threadpool(training.figures, self._station.journal, self._station.analyst)
        return _fresh({"here": self._station.training is not None, **told})

    async def feedback(self, request: Request) -> Response:
        """Return what a training scan really carried, once it is decided."""
        return _fresh(await run_in_threadpool(self._station.feedback, request.path_params["scan"]))


def _shift(station: Station) -> dict[str, Any]:
    kept = station.journal.kept
    return {"shift": kept(station.analyst, "shift"), "handover": kept("", "handover")}


def _fresh(value: Any) -> Response:
    return Response(json.dumps(value), media_type="application/json", headers={"Cache-Control": "no-store"})


class _Static(StaticFiles):
    """Files of the page; asked for again each time, so that an upgrade is seen."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """Return a file."""
        answer = super().file_response(*arguments, **options)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def _tile(station: Station, request: Request) -> Response:
    path, query = request.path_params, request.query_params
    reduce, form, energy = query.get("reduce", "mean"), path["form"], path["energy"]
    if reduce not in get_args(Reduce) or form not in ("u16", "png"):
        raise HTTPException(400, f"{form}, reduce={reduce[:20]}: expected u16 or png, mean or min")
    scan = station.ready(path["scan"], path["sha256"])
    at = (path["level"], path["tx"], path["ty"])
    tile = _values(scan, "" if energy == "material" else energy, at, reduce)
    if form == "u16":
        data, kind = tile.astype("<u2", copy=False).tobytes(), "application/octet-stream"
    else:
        data, kind = png(_picture(scan, energy, at, reduce, tile, _look(scan, query))), "image/png"
    assert scan.offer is not None
    headers = {
        "X-Scan-Id": scan.scan_id, "X-Content-SHA256": scan.offer.sha256, "X-Tile-CRC32": crc32(data),
        "X-Tile": f"{energy}/{at[0]}/{at[1]}/{at[2]}/{reduce}", "X-Tile-Size": f"{tile.shape[1]}x{tile.shape[0]}",
        "Cache-Control": "private, max-age=3600, immutable", "ETag": f'"{crc32(data)}"',
    }  # fmt: skip
    return Response(data, media_type=kind, headers=headers)


def _values(scan: OpenScan, energy: str, at: tuple[int, int, int], reduce: str) -> Any:
    """Return the values of a tile of one energy; of the last one where none is named. Raises DataError."""
    names = [e["name"] for e in scan.meta["energies"]]
    if not names or (energy and energy not in names):
        raise DataError(f"scan {scan.scan_id}: no image of energy {energy[:40]!r}; it has {names}")
    pyramid = scan.pyramids[names.index(energy) if energy else -1]
    return pyramid.tile(*at, reduce="min" if reduce == "min" else "mean")


def _look(scan: OpenScan, query: Any) -> Look:
    white = scan.pyramids[-1].white
    try:
        low, high = float(query.get("low", 0)), float(query.get("high", white))
    except ValueError as error:
        raise HTTPException(400, f"low, high: {error}") from error
    palette = query.get("palette", "grey")
    if palette not in palettes():
        raise HTTPException(400, f"palette {palette[:20]!r}: expected one of {sorted(palettes())}")
    on = {name: query.get(name) == "1" for name in ("invert", "log", "edge", "opaque")}
    return Look(low=low, high=high, palette=palette, **on)


def _picture(scan: OpenScan, energy: str, at: tuple[int, int, int], reduce: str, tile: Any, look: Look) -> Any:
    white = scan.pyramids[-1].white
    picture = rendered(tile, look, white)
    if energy == "material":
        if scan.meta["material"] is None:
            raise DataError(f"scan {scan.scan_id}: has no material view: it needs raw counts of two energies")
        low = scan.pyramids[0].tile(*at, reduce="min" if reduce == "min" else "mean")
        classes = msgspec.convert(scan.meta["material"]["classes"], tuple[Material, ...])
        picture = material_rgb(low, tile, white, picture, classes)
    elif look.palette != "grey":
        picture = palettes()[look.palette][picture]
    if not look.opaque:
        return picture
    level, tx, ty = at
    box = scan.meta["container"] or {"x0": 0, "y0": 0, "x1": scan.meta["columns"], "y1": scan.meta["rows"]}
    x0, y0, x1, y1 = (box[edge] >> level for edge in ("x0", "y0", "x1", "y1"))
    return hatched(picture, tile, white, (x0 - tx * TILE, y0 - ty * TILE, x1 - tx * TILE, y1 - ty * TILE))


def new_app(station: Station, lock: Lock) -> ASGIApp:
    """Return the application behind its gate."""
    handlers: Any = {ScannerError: _failed, HTTPException: _http}
    app = Starlette(routes=Pages(station).routes(), exception_handlers=handlers)
    return Gate(app, lock)
