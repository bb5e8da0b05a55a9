"""Where secrets of a node are sent, and where they never appear."""

import pytest

from penstock.errors import (
    InvalidConfiguration,
    NotPermitted,
    OriginUnavailable,
)
from penstock.volumes import Volume
from penstock_node.origin import (
    Origin,
    OriginLimits,
    Origins,
    SecretSettings,
)
from penstock_node.testbed.odd_origin import OddObject, OddOrigin

DATA = bytes(range(256)) * 40
FAST = OriginLimits(backoff_s=0.01, backoff_max_s=0.05, deadline_s=10.0, request_timeout_s=5.0)


KEYS = {"access_key_id": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hunter2"}


def signed(odd: OddOrigin, *hosts: str, values: dict[str, str] | None = None) -> Origin:
    opened = Origins(secrets={"s3": SecretSettings("s3", values or KEYS, hosts)})
    options: dict[str, str | bool] = {"endpoint": odd.url, "allow_http": True}
    return opened.get(Volume("models", "s3://bucket", options, "s3"))


async def test_a_secret_signs_requests_to_the_hosts_it_is_for(
    odd: OddOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    odd.put("bucket/model", OddObject(DATA, etag='"v1"'))

    await signed(odd, f"127.0.0.1:{odd.port}").head("model")

    headers = odd.requests[0].headers
    assert "Credential=AKIAEXAMPLE/" in headers["authorization"]
    assert "x-amz-security-token" not in headers


@pytest.mark.parametrize("hosts", [(), ("s3.amazonaws.com",), (".0.0.1x",)])
async def test_a_secret_is_not_sent_to_a_host_it_is_not_for(
    odd: OddOrigin, hosts: tuple[str, ...]
) -> None:
    with pytest.raises(NotPermitted, match=r"127\.0\.0\.1.*hosts of \[secrets\.s3\]") as caught:
        signed(odd, *hosts)

    assert "hunter2" not in str(caught.value)
    assert odd.requests == []


async def test_a_secret_without_hosts_is_for_the_schemes_usual_host_alone() -> None:
    opened = Origins(secrets={"s3": SecretSettings("s3", KEYS)})

    assert opened.get(Volume("models", "s3://bucket", {}, "s3"))
    with pytest.raises(NotPermitted):
        opened.get(Volume("other", "s3://bucket", {"endpoint": "https://minio.example"}, "s3"))


async def test_a_secret_that_this_node_does_not_define_is_asked_for_by_name() -> None:
    with pytest.raises(NotPermitted, match=r"add \[secrets\.s3\] to its configuration"):
        Origins().get(Volume("models", "s3://bucket", {}, "s3"))


@pytest.mark.parametrize(
    "values", [{"access_key": "hunter2"}, {"access_key_id": "hunter2"}, {"region": "hunter2"}]
)
async def test_a_secret_with_wrong_values_names_them_and_tells_none(
    odd: OddOrigin, values: dict[str, str]
) -> None:
    with pytest.raises(InvalidConfiguration, match=r"\[secrets\.s3\]") as caught:
        signed(odd, "127.0.0.1", values=values)

    assert "hunter2" not in str(caught.value)


async def test_a_refused_secret_is_named_and_not_told(odd: OddOrigin) -> None:
    odd.put("bucket/model", OddObject(DATA, status=403))

    with pytest.raises(NotPermitted, match=r"check \[secrets\.s3\]") as caught:
        await signed(odd, "127.0.0.1").head("model")

    assert "hunter2" not in str(caught.value)


async def test_a_bearer_token_goes_with_http_requests_and_into_no_message(odd: OddOrigin) -> None:
    odd.put("model", OddObject(DATA, status=500))
    opened = Origins(
        secrets={"hub": SecretSettings("hub", {"token": "hunter2"}, ("127.0.0.1",))}, limits=FAST
    )

    with pytest.raises(OriginUnavailable) as caught:
        await opened.get(Volume("hub", odd.url, {}, "hub")).head("model")

    assert odd.requests[0].headers["authorization"] == "Bearer hunter2"
    assert "hunter2" not in str(caught.value)


async def test_signatures_in_queries_do_not_reach_messages(odd: OddOrigin) -> None:
    values = {"sas_token": "sv=2022&sig=hunter2"}
    opened = Origins(secrets={"az": SecretSettings("az", values, ("127.0.0.1",))}, limits=FAST)
    options: dict[str, str | bool] = {"endpoint": odd.url, "allow_http": True, "account_name": "a"}
    odd.put("container/model?sv=2022&sig=hunter2", OddObject(DATA, status=500))
    origin = opened.get(Volume("az", "az://container", options, "az"))

    with pytest.raises(OriginUnavailable) as caught:
        await origin.head("model")

    assert "hunter2" in odd.requests[0].path
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
