"""Whose token that is, asked of Kubernetes' API server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import InvalidConfiguration, KubernetesUnavailable
from penstock_node.kubernetes.connection import Connection
from penstock_node.kubernetes.reviews import Reviews, ServiceAccount
from penstock_node.testbed import kubernetes_answers
from penstock_node.testbed.kubernetes_answers import Account
from penstock_node.testbed.kubernetes_api import KubernetesApi

TRAINER = Account("system:serviceaccount:ml:trainer", ("penstock", "other"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesApi]:
    with KubernetesApi(tmp_path_factory.mktemp("kubernetes")) as api:
        yield api


@pytest.fixture
def api(shared: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> KubernetesApi:
    shared.behaviour.__init__()  # type: ignore[misc]
    shared.state.accounts = {"good": TRAINER}
    for name, value in shared.environment.items():
        monkeypatch.setenv(name, value)
    return shared


@pytest.fixture
def reviews(api: KubernetesApi) -> Reviews:
    return Reviews(Connection(service_account=api.service_account))


async def test_a_token_is_its_service_accounts(reviews: Reviews) -> None:
    assert await reviews.review("good", ["penstock"]) == ServiceAccount("ml", "trainer")
    assert str(await reviews.review("good", ["penstock"])) == "ml/trainer"


async def test_a_token_for_others_is_nobodys(reviews: Reviews) -> None:
    assert await reviews.review("good", ["vault"]) is None


async def test_a_server_that_looks_at_no_audience_is_not_believed(
    api: KubernetesApi, reviews: Reviews, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"authenticated": True, "user": {"username": TRAINER.username}}
    monkeypatch.setattr(kubernetes_answers._Handler, "_reviewed", lambda *_: answer)

    assert await reviews.review("good", ["penstock"]) is None


@pytest.mark.parametrize("username", ["admin", "system:node:gpu-1", "system:serviceaccount:ml:"])
async def test_who_is_no_service_account_is_nobody(
    api: KubernetesApi, reviews: Reviews, username: str
) -> None:
    api.state.accounts = {"theirs": Account(username, ("penstock",))}

    assert await reviews.review("theirs", ["penstock"]) is None


async def test_an_unknown_or_endless_token_is_nobodys(api: KubernetesApi, reviews: Reviews) -> None:
    asked = api.count("create tokenreviews")

    assert await reviews.review("unknown", ["penstock"]) is None
    assert await reviews.review("", ["penstock"]) is None
    assert await reviews.review("x" * 100_000, ["penstock"]) is None
    assert api.count("create tokenreviews") == asked + 1


async def test_a_role_without_the_rule_is_told_at_once_and_the_token_in_no_message(
    api: KubernetesApi, reviews: Reviews
) -> None:
    api.behaviour.forbidden = frozenset({"create tokenreviews"})
    asked = api.count("create tokenreviews")

    with pytest.raises(KubernetesUnavailable, match="cannot create resource") as caught:
        await reviews.review("good", ["penstock"])

    assert caught.value.is_refused
    assert "good" not in str(caught.value)
    assert api.count("create tokenreviews") == asked + 1


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_that_fails_is_asked_again_and_then_unavailable(
    api: KubernetesApi, reviews: Reviews, status: int
) -> None:
    api.behaviour.fails_with = status
    asked = api.count("create tokenreviews")

    with pytest.raises(KubernetesUnavailable, match=str(status)) as caught:
        await reviews.review("good", ["penstock"])

    assert not caught.value.is_refused
    assert api.count("create tokenreviews") == asked + 3


async def test_the_pods_token_and_certificates_are_those_that_are_mounted_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KubernetesApi(tmp_path / "api") as api:
        api.state.accounts = {"good": TRAINER}
        for name, value in api.environment.items():
            monkeypatch.setenv(name, value)
        reviews = Reviews(Connection(service_account=api.service_account))
        assert await reviews.review("good", ["penstock"])

        api.renew_token("another")
        assert await reviews.review("good", ["penstock"])

        api.renew_certificates()
        assert await reviews.review("good", ["penstock"])

        api.stop()
        with pytest.raises(KubernetesUnavailable, match="review a token"):
            await reviews.review("good", ["penstock"])
        api.start()


async def test_outside_a_pod_a_file_says_where_the_server_is(api: KubernetesApi) -> None:
    reviews = Reviews(Connection(kubeconfig=api.kubeconfig()))

    assert await reviews.review("good", ["penstock"])


def test_what_is_neither_a_pod_nor_has_a_file_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InvalidConfiguration, match=r"no pod.*kubernetes\.kubeconfig"):
        Connection(service_account=tmp_path)
    (tmp_path / "config").write_text("a: [")
    for wrong in (tmp_path / "config", tmp_path / "absent"):
        with pytest.raises(InvalidConfiguration, match=f"kubernetes.kubeconfig={wrong}"):
            Connection(kubeconfig=wrong)
