"""What is counted of requests to an origin: their time, how they fail, what is sent again."""

from dataclasses import replace

import pytest

from penstock.errors import ObjectNotFound, OriginUnavailable
from penstock.volumes import Volume
from penstock_node.origin import Origin, Origins
from penstock_node.origin.interface import OriginCounters
from penstock_node.origin.origins import GONE_MAX
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import free_port

DATA = bytes(4096)


@pytest.fixture
def web(origins: Origins, odd: OddOrigin) -> Origin:
    return origins.get(Volume("web", odd.url))


def failures(counters: OriginCounters) -> dict[str, int]:
    """Return those that there are."""
    return {name: count for name, count in counters.failures.now().items() if count}


@pytest.mark.parametrize(
    ("status", "kind"), [(503, "throttled"), (429, "throttled"), (500, "server_error")]
)
async def test_a_request_that_fails_is_counted_by_kind_and_its_successor_as_a_retry(
    web: Origin, odd: OddOrigin, status: int, kind: str
) -> None:
    odd.put("model", OddObject(DATA, etag='"1"', status=status, failing_answers=2))

    await web.head("model")

    assert failures(web.counters) == {kind: 2}
    assert web.counters.retries == 2
    assert sum(web.counters.took("head").now()[0]) == web.counters.head_requests == 3


async def test_a_body_that_ends_early_is_short(web: Origin, odd: OddOrigin) -> None:
    whole = OddObject(DATA, etag='"1"')
    odd.put("model", whole)
    meta = await web.head("model")
    cut = replace(whole, body_bytes_max=100, truncated_answers=1, announces_whole_body=False)
    odd.put("model", cut)

    await web.read("model", meta.version, meta.size, 0, meta.size)

    assert failures(web.counters) == {"short": 1}
    assert web.counters.retries == 1
    assert sum(web.counters.took("get").now()[0]) == 2


async def test_what_is_not_there_is_a_failure_by_its_name(web: Origin) -> None:
    with pytest.raises(ObjectNotFound):
        await web.head("nothing")

    assert failures(web.counters) == {"ObjectNotFound": 1}
    assert web.counters.retries == 0


async def test_an_origin_that_nobody_answers_for_is_no_connection(origins: Origins) -> None:
    nobody = origins.get(Volume("web", f"http://127.0.0.1:{free_port()}/"))

    with pytest.raises(OriginUnavailable):
        await nobody.head("model")

    assert set(failures(nobody.counters)) == {"connection"}


async def test_of_volumes_that_are_gone_the_last_ones_are_counted(
    origins: Origins, odd: OddOrigin
) -> None:
    names = [f"volume-{number}" for number in range(GONE_MAX + 3)]
    for name in names:
        origins.get(Volume(name, odd.url))
        origins.retain([name])

    assert list(origins.counters()) == names[2:]
