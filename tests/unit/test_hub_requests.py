"""The hub's paths, tokens and errors, without a socket."""

import hashlib
import hmac

import pytest

from penstock.errors import ObjectChanged, Overloaded
from penstock_node.serve.hub.access import Tokens, token_of
from penstock_node.serve.hub.errors import HubError, in_hub_words
from penstock_node.serve.hub.requests import Wanted, asked_paths, is_of_hub, parse_request
from penstock_node.serve.s3.access import Caller, Key
from penstock_node.serve.s3.addressing import parse_target
from penstock_node.serve.s3.errors import S3Error, access_denied
from penstock_node.transport.http import HttpRequest

KEY = Key("trainer", "trainer.1", "a secret/with+signs", frozenset({"models"}))


def request(target: str, method: str = "GET", body: bytes = b"", **headers: str) -> HttpRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest(method, target, named, body=body)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/hf/api/models/org/name", Wanted("info", "org/name")),
        ("/hf/api/models/org/name?blobs=True", Wanted("info", "org/name")),
        ("/hf/api/models/org/name/revision/v1", Wanted("info", "org/name", "v1")),
        ("/hf/api/models/o/n/revision/refs%2Fpr%2F1", Wanted("info", "o/n", "refs/pr/1")),
        ("/hf/api/models/o/n/tree/main?recursive=true", Wanted("tree", "o/n", "main")),
        ("/hf/api/models/o/n/tree/main/a%2Fb", Wanted("tree", "o/n", "main", "a/b")),
        ("/hf/api/models/o/n/tree/main/a/b", Wanted("tree", "o/n", "main", "a/b")),
        ("/hf/o/n/resolve/main/a/b%20c", Wanted("file", "o/n", "main", "a/b c")),
        ("/hf/o/n/resolve/main/%C3%BC%2Fx", Wanted("file", "o/n", "main", "ü/x")),
        ("/hf/o/n/resolve/main/../../secret", Wanted("file", "o/n", "main", "../../secret")),
        ("/hf/o/n/resolve/main/100%25", Wanted("file", "o/n", "main", "100%")),
        ("/hf/o/n/resolve/main/a+b", Wanted("file", "o/n", "main", "a+b")),
        ("/hf/tree/resolve/resolve/main/x", Wanted("file", "tree/resolve", "main", "x")),
        ("/hf/api/models/tree/main", Wanted("info", "tree/main")),
    ],
)
def test_a_path_of_the_public_api_means_an_operation(target: str, wanted: Wanted) -> None:
    assert parse_request(request(target))[0] == wanted


@pytest.mark.parametrize(
    ("target", "code", "tells"),
    [
        ("/hf", "", "/hf/api/models/ORG/NAME"),
        ("/hf/", "", "/hf/api/models/ORG/NAME"),
        ("/hf/api/whoami-v2", "", "/hf/api/models/ORG/NAME"),
        ("/hf/api/models", "", "/hf/api/models/ORG/NAME"),
        ("/hf/o/n/resolve/main", "", "/hf/ORG/NAME/resolve/REV/PATH"),
        ("/hf/api/models/o/n/discussions", "", "/hf/api/models/ORG/NAME"),
        ("/hf/api/models/gpt2", "RepoNotFound", "ORG/NAME"),
        ("/hf/api/models/gpt2/revision/main", "RepoNotFound", "'gpt2': a repository"),
        ("/hf/gpt2/resolve/main/config.json", "RepoNotFound", "ORG/NAME"),
        ("/hf/datasets/o/n/resolve/main/x", "RepoNotFound", "no datasets"),
        ("/hf/api/datasets/o/n", "RepoNotFound", "no datasets"),
        ("/hf/api/models/../n", "RepoNotFound", "cannot be a part"),
        ("/hf/api/models/o%2Fp/n", "RepoNotFound", "cannot be a part"),
        ("/hf/api/models/o/a%20b", "RepoNotFound", "cannot be a part"),
    ],
)
def test_what_is_not_served_says_what_is(target: str, code: str, tells: str) -> None:
    with pytest.raises(HubError, match=tells) as refused:
        parse_request(request(target))
    assert refused.value.status == 404
    assert refused.value.code == code


@pytest.mark.parametrize("target", ["/hf/%zz", "/hf/o/n/resolve/main/%ff"])
def test_a_target_that_is_no_text_is_refused(target: str) -> None:
    with pytest.raises(S3Error) as refused:
        parse_request(request(target))
    assert in_hub_words(refused.value).status == 400


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_nothing_is_written(method: str) -> None:
    with pytest.raises(HubError, match="only reads") as refused:
        parse_request(request("/hf/o/n/resolve/main/x", method))
    assert refused.value.status == 405


def test_only_what_lies_below_hf_is_the_hubs() -> None:
    assert is_of_hub(request("/hf"))
    assert is_of_hub(request("/hf?x"))
    assert is_of_hub(request("/hf/api"))
    assert not is_of_hub(request("/hfs/api"))
    assert not is_of_hub(request("/models/hf/api"))
    assert not is_of_hub(request("/"))


def test_paths_are_asked_about_in_a_form_or_in_json() -> None:
    form = request("/hf", "POST", b"paths=a+b&paths=c%2Fd&expand=False")
    json = request("/hf", "POST", b'{"paths": ["a b", "c/d"]}', content_type="application/json")

    assert asked_paths(form) == ["a b", "c/d"]
    assert asked_paths(json) == ["a b", "c/d"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"paths": "a"}', b'{"paths": [1]}', b"\xff"])
def test_a_body_that_asks_nothing_is_refused(body: bytes) -> None:
    with pytest.raises(HubError, match="body") as refused:
        asked_paths(request("/hf", "POST", body, content_type="application/json"))
    assert refused.value.status == 400


def test_more_paths_than_are_answered_are_refused() -> None:
    for count, told in ((1001, "1001 paths"), (2000, "at most")):
        with pytest.raises(HubError, match=told):
            asked_paths(request("/hf", "POST", b"&".join([b"paths=x"] * count)))


def test_a_token_is_made_from_the_secret_and_does_not_tell_it() -> None:
    digest = hmac.new(KEY.secret.encode(), b"penstock hub", hashlib.sha256).hexdigest()

    assert token_of(KEY) == f"trainer.1.{digest}"
    assert KEY.secret not in token_of(KEY)


def test_who_shows_a_keys_token_reads_what_the_key_may() -> None:
    asked = request("/hf/o", authorization=f"Bearer {token_of(KEY)}")

    caller = Tokens([KEY]).admit(asked, parse_target("/hf/o"), peer="")

    assert caller == Caller("trainer", frozenset({"models"}))


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer hf_abcdef",
        "Bearer trainer.1.",
        f"Bearer trainer.2.{token_of(KEY).rpartition('.')[2]}",
        f"Bearer {token_of(KEY)[:-1]}",
        f"Bearer {KEY.access_key_id}.{KEY.secret}",
        f"Basic {token_of(KEY)}",
        "Bearer ü.ü",
    ],
)
def test_who_does_not_is_told_how(authorization: str) -> None:
    asked = request("/hf/o", authorization=authorization)

    with pytest.raises(HubError, match="set HF_TOKEN to ACCESS_KEY_ID") as refused:
        Tokens([KEY]).admit(asked, parse_target("/hf/o"), peer="")
    assert refused.value.status == 401
    assert refused.value.code == "GatedRepo"
    assert KEY.secret not in str(refused.value)


def test_errors_are_told_in_the_hubs_words() -> None:
    busy = in_hub_words(Overloaded("too\r\nmuch ü", retry_after_s=0.2))

    assert busy.status == 503
    assert ("Retry-After", "1") in busy.headers
    assert ("X-Error-Message", "too??much ?") in busy.headers
    assert in_hub_words(access_denied("not you")).code == "GatedRepo"
    assert in_hub_words(ObjectChanged("x")).status == 500
