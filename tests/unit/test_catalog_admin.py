"""Who may tell a catalog of events, how much at once, and what is answered."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from penstock_node.access.gate import Gate
from penstock_node.catalog.database import Database
from penstock_node.catalog.watched import Watched
from penstock_node.catalog_server import admin
from penstock_node.catalog_server.admin import BODY_BYTES_MAX, EventsEndpoint, catalog_app
from penstock_node.catalog_server.events import Events
from penstock_node.catalog_server.looking import Looking
from penstock_node.serve.admin import AdminServer
from penstock_node.serve.door import Door

DEADLINE_S = 20.0
NOTHING = b'{"Records": []}'
OUTSIDE, HERE = "10.1.2.3", "127.0.0.1"


@dataclass
class Answer:
    """What a request was answered with."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def reason(self) -> str:
        return str(json.loads(self.body)["error"])


@dataclass
class Post:
    """A request to the application, without a socket."""

    app: Starlette
    parts: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)
    answer: Answer = field(default_factory=Answer)

    async def run(
        self, *, host: str = HERE, path: str = "/events", method: str = "POST", **headers: str
    ) -> Answer:
        told = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": told,
            "client": (host, 4000),
            "server": (HERE, 80),
        }
        async with asyncio.timeout(DEADLINE_S):
            await self.app(scope, self._receive, self._send)
        return self.answer

    async def _receive(self) -> dict[str, Any]:
        part = await self.parts.get()
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.answer.status = message["status"]
            pairs = message["headers"]
            self.answer.headers = {name.decode(): value.decode() for name, value in pairs}
        else:
            self.answer.body += message["body"]


async def post(app: Starlette, *parts: bytes, **how: str) -> Answer:
    made = Post(app)
    for part in (*parts, None):
        made.parts.put_nowait(part)
    return await made.run(**how)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/catalog.db")
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
async def threads() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def events(database: Database, threads: ThreadPoolExecutor, registry: CollectorRegistry) -> Events:
    unasked = cast("Looking", None)  # No place is watched.
    return Events(Watched(database), looking=unasked, threads=threads, registry=registry)


def app(events: Events | None, registry: CollectorRegistry, *, token: str = "") -> Starlette:
    endpoint = EventsEndpoint(events, token=token, mirror_of="far:7410", registry=registry)
    door = Door(Gate(None), is_open=False, is_loopback=False)
    return catalog_app(registry, door=door, events=endpoint)


async def test_without_a_token_only_this_machine_is_heard(
    events: Events, registry: CollectorRegistry
) -> None:
    catalog = app(events, registry)

    here = await post(catalog, NOTHING, host=HERE)
    outside = await post(catalog, NOTHING, host=OUTSIDE)

    assert (here.status, outside.status) == (200, 403)
    assert json.loads(here.body) == {"noted": 0, "unchanged": 0, "ignored": 0, "failed": 0}
    assert "set events_token" in outside.reason


@pytest.mark.parametrize("host", [HERE, OUTSIDE])
async def test_with_a_token_who_shows_it_is_heard_and_nobody_else(
    events: Events, registry: CollectorRegistry, host: str
) -> None:
    catalog = app(events, registry, token="s e-cret:ü")
    basic = base64.b64encode("sns:s e-cret:ü".encode()).decode()
    wrong = base64.b64encode(b"s e-cret").decode()

    for shown in ("Bearer s e-cret:ü", "bearer  s e-cret:ü ", f"Basic {basic}"):
        assert (await post(catalog, NOTHING, host=host, authorization=shown)).status == 200
    for shown in ("", "Bearer", "Bearer s e-cret", f"Basic {wrong}", "Basic =", "s e-cret:ü"):
        refused = await post(catalog, NOTHING, host=host, authorization=shown)
        assert refused.status == 401
        assert refused.headers["www-authenticate"] == 'Basic realm="penstock"'
        assert "s e-cret" not in refused.reason
    assert (await post(catalog, NOTHING, host=host)).status == 401


async def test_a_body_that_is_too_large_is_refused_before_it_is_there(
    events: Events, registry: CollectorRegistry
) -> None:
    made = Post(app(events, registry))
    for _ in range(3):
        made.parts.put_nowait(b" " * (BODY_BYTES_MAX // 2))

    answer = await made.run()

    assert answer.status == 413
    assert str(BODY_BYTES_MAX) in answer.reason


async def test_a_body_that_does_not_come_is_waited_for_so_long(
    events: Events, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "BODY_TIMEOUT_S", 0.01)

    assert (await Post(app(events, registry)).run()).status == 408


async def test_what_is_no_event_is_refused_with_what_is_wanted(
    events: Events, registry: CollectorRegistry
) -> None:
    answer = await post(app(events, registry), b'{"a', b'": 1}')

    assert answer.status == 400
    assert 'want {"Records"' in answer.reason


async def test_more_bodies_than_are_held_are_to_come_again(
    events: Events, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "REQUESTS_MAX", 2)
    catalog = app(events, registry)
    held = [Post(catalog) for _ in range(2)]
    tasks = [asyncio.create_task(each.run()) for each in held]
    await asyncio.sleep(0)

    refused = await post(catalog, NOTHING)
    for each in held:
        each.parts.put_nowait(NOTHING)
        each.parts.put_nowait(None)
    answers = [await task for task in tasks]

    assert (refused.status, refused.headers["retry-after"]) == (503, "5")
    assert [each.status for each in answers] == [200, 200]
    assert (await post(catalog, NOTHING)).status == 200
    status = registry.get_sample_value
    name = "penstock_catalog_event_requests_total"
    assert [status(name, {"status": each}) for each in ("200", "503")] == [3, 1]


async def test_a_mirror_says_where_events_are_to_go(registry: CollectorRegistry) -> None:
    answer = await post(app(None, registry), NOTHING)

    assert answer.status == 403
    assert "far:7410" in answer.reason


async def test_metrics_are_closed_off_loopback_and_health_never_is(
    events: Events, registry: CollectorRegistry
) -> None:
    catalog = app(events, registry)

    assert (await post(catalog, path="/healthz", method="GET")).status == 200
    assert (await post(catalog, path="/metrics", method="GET")).status == 403
    assert (await post(catalog, method="GET")).status == 405


async def test_a_port_that_is_stopped_as_soon_as_it_is_started_ends(
    registry: CollectorRegistry,
) -> None:
    server = AdminServer(HERE, [0])

    task = server.start(app(None, registry), names=None)
    server.stop()

    async with asyncio.timeout(DEADLINE_S):
        await task
