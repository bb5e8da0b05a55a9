"""Signatures of S3's clients: the specification's own examples, and what boto3's signer makes."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from penstock_node.serve.s3.access import Caller, Key, Keys
from penstock_node.serve.s3.addressing import parse_target
from penstock_node.serve.s3.errors import S3Error
from penstock_node.serve.s3.sigv4 import Presented, signature
from penstock_node.transport.http import HttpRequest

ENDPOINT = "http://127.0.0.1:7403"
ID, SECRET = "TRAINER1", "a secret/with+signs"
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

# Of the S3 API reference, "Examples: Signature Calculations in AWS Signature Version 4".
EXAMPLE_KEY = Key("example", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
EXAMPLE_TIME = datetime(2013, 5, 24, tzinfo=UTC)
EXAMPLE_SCOPE = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
EXAMPLE_HEADERS = {
    "host": "examplebucket.s3.amazonaws.com",
    "x-amz-date": "20130524T000000Z",
    "x-amz-content-sha256": EMPTY_SHA256,
}
SIGNED = ("host", "x-amz-content-sha256", "x-amz-date")
EXAMPLES = [
    pytest.param(
        "/test.txt",
        {"range": "bytes=0-9"},
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        id="GET object",
    ),
    pytest.param(
        "/?lifecycle",
        {},
        "host;x-amz-content-sha256;x-amz-date",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        id="GET bucket lifecycle",
    ),
    pytest.param(
        "/?max-keys=2&prefix=J",
        {},
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        id="GET bucket",
    ),
]
PRESIGNED_EXAMPLE = (
    "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    f"&X-Amz-Credential={quote(EXAMPLE_SCOPE, safe='')}"
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
)

Change = Callable[[str, dict[str, str]], tuple[str, dict[str, str]]]


def admit(
    target: str, headers: Mapping[str, str], *, keys: Keys | None = None, method: str = "GET"
) -> Caller:
    known = keys or Keys([Key("trainer", ID, SECRET)])
    request = HttpRequest(method, target, dict(headers))
    return known.admit(request, parse_target(target), peer="192.0.2.1")


def code_of(target: str, headers: Mapping[str, str], *, keys: Keys | None = None) -> str:
    """Return how a request is refused; empty when it is not."""
    try:
        admit(target, headers, keys=keys)
    except S3Error as error:
        return error.code
    return ""


def example_keys(after: timedelta = timedelta(0)) -> Keys:
    return Keys([EXAMPLE_KEY], clock=lambda: EXAMPLE_TIME + after)


def example_headers(signed: str, signature: str) -> dict[str, str]:
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={EXAMPLE_SCOPE},SignedHeaders={signed},Signature={signature}"
    )
    return {**EXAMPLE_HEADERS, "authorization": authorization}


def signed_by_botocore(
    target: str, *, presigned: bool = False, secret: str = SECRET, access_key_id: str = ID
) -> tuple[str, dict[str, str]]:
    """Return target and headers as a client of boto3 would send them."""
    request = AWSRequest("GET", ENDPOINT + target)
    credentials = Credentials(access_key_id, secret)
    signer = S3SigV4QueryAuth if presigned else S3SigV4Auth
    signer(credentials, "s3", "eu-north-1").add_auth(request)
    headers = {name.lower(): str(value) for name, value in request.headers.items()}
    return request.url.removeprefix(ENDPOINT), {"host": ENDPOINT.partition("://")[2], **headers}


@pytest.mark.parametrize(("target", "headers", "signed", "signature"), EXAMPLES)
def test_the_specifications_examples_are_admitted(
    target: str, headers: dict[str, str], signed: str, signature: str
) -> None:
    sent = {**headers, **example_headers(signed, signature)}

    assert admit(target, sent, keys=example_keys()) == Caller("example")


def test_the_specifications_presigned_url_is_admitted_until_it_expires() -> None:
    headers = {"host": EXAMPLE_HEADERS["host"]}
    in_time, late = example_keys(timedelta(hours=23)), example_keys(timedelta(hours=25))

    assert admit(PRESIGNED_EXAMPLE, headers, keys=in_time) == Caller("example")
    assert code_of(PRESIGNED_EXAMPLE, headers, keys=late) == "AccessDenied"


def test_a_presigned_url_of_the_calendars_last_week_is_refused_as_any_of_another_time() -> None:
    target = PRESIGNED_EXAMPLE.replace("20130524T000000Z", "99991231T235959Z")
    target = target.replace("20130524", "99991231").replace("86400", "604800")

    assert code_of(target, {"host": "h"}, keys=example_keys()) == "RequestTimeTooSkewed"


@pytest.mark.parametrize(
    ("minutes", "code"),
    [(14, ""), (-14, ""), (16, "RequestTimeTooSkewed"), (-16, "RequestTimeTooSkewed")],
)
def test_a_signature_is_good_for_a_quarter_of_an_hour(minutes: int, code: str) -> None:
    headers = example_headers(
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    )
    keys = example_keys(timedelta(minutes=minutes))

    assert code_of("/?max-keys=2&prefix=J", headers, keys=keys) == code


@pytest.mark.parametrize("presigned", [False, True])
@given(
    key=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
    value=st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
)
def test_whatever_boto3_signs_is_admitted_and_nothing_else(
    key: str, value: str, presigned: bool
) -> None:
    path = "/models/" + quote(key, safe="/~")
    query = urlencode({"list-type": "2", "prefix": value}, quote_via=quote, safe="-_.~")
    target, headers = signed_by_botocore(f"{path}?{query}", presigned=presigned)

    assert admit(target, headers) == Caller("trainer")
    assert code_of(target.replace("/models/", "/other/"), headers) == "SignatureDoesNotMatch"
    assert code_of(target + "&max-keys=1", headers) == "SignatureDoesNotMatch"


def test_a_path_that_is_escaped_more_than_it_was_signed_is_the_same_path() -> None:
    _, headers = signed_by_botocore("/models/a~b")

    assert admit("/%6Dodels/a%7Eb", headers) == Caller("trainer")


def test_another_method_than_the_signed_one_is_refused() -> None:
    target, headers = signed_by_botocore("/models/a")

    with pytest.raises(S3Error, match=r"secret of \[s3_keys.trainer\]"):
        admit(target, headers, method="HEAD")


def test_another_secret_is_refused_and_not_told() -> None:
    target, headers = signed_by_botocore("/models/a", secret="guessed")

    with pytest.raises(S3Error) as refused:
        admit(target, headers)

    assert refused.value.code == "SignatureDoesNotMatch"
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(Key("trainer", ID, SECRET))


def test_an_unknown_key_names_where_to_add_it() -> None:
    target, headers = signed_by_botocore("/models/a", access_key_id="SOMEBODY")

    with pytest.raises(S3Error, match=r"no key 'SOMEBODY'; add it to its \[s3_keys\]") as refused:
        admit(target, headers)

    assert refused.value.code == "InvalidAccessKeyId"


def without(name: str) -> Change:
    return lambda target, headers: (target, {k: v for k, v in headers.items() if k != name})


def with_header(name: str, value: str) -> Change:
    return lambda target, headers: (target, {**headers, name: value})


def in_authorization(old: str, new: str) -> Change:
    def change(target: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
        authorization = headers["authorization"]
        assert old in authorization
        return target, {**headers, "authorization": authorization.replace(old, new)}

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (without("authorization"), "AccessDenied"),
        (without("x-amz-date"), "AccessDenied"),
        (with_header("x-amz-meta-extra", "unsigned"), "AccessDenied"),
        (with_header("host", "elsewhere"), "SignatureDoesNotMatch"),
        (with_header("x-amz-date", "yesterday"), "AccessDenied"),
        (with_header("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), "SignatureDoesNotMatch"),
        (with_header("authorization", "AWS TRAINER1:c2ln"), "InvalidRequest"),
        (with_header("authorization", "Bearer token"), "InvalidRequest"),
        (with_header("authorization", "AWS4-HMAC-SHA256 "), "AuthorizationHeaderMalformed"),
        (in_authorization("/s3/", "/sts/"), "AuthorizationHeaderMalformed"),
        (in_authorization("TRAINER1/2", "TRAINER1/1"), "AuthorizationHeaderMalformed"),
        (in_authorization("/eu-north-1/", "/eu-south-1/"), "SignatureDoesNotMatch"),
        (in_authorization("Signature=", "Signature=\xe9"), "SignatureDoesNotMatch"),
        (in_authorization("SignedHeaders=host;", "SignedHeaders="), "AccessDenied"),
    ],
)
def test_a_request_that_was_changed_is_refused(change: Change, code: str) -> None:
    target, headers = change(*signed_by_botocore("/models/a"))

    assert code_of(target, headers) == code


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("X-Amz-Expires=3600", "X-Amz-Expires=604801", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=0", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=-1", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=7200", "SignatureDoesNotMatch"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=%E2%82%AC", "AccessDenied"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=host;%E2%82%AC", "SignatureDoesNotMatch"),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=none", "InvalidRequest"),
        ("&X-Amz-Signature=", "&X-Amz-Signature=x", "SignatureDoesNotMatch"),
    ],
)
def test_a_presigned_url_that_was_changed_is_refused(old: str, new: str, code: str) -> None:
    target, headers = signed_by_botocore("/models/a", presigned=True)
    assert old in target

    assert code_of(target.replace(old, new), headers) == code


def test_signing_in_two_places_is_refused() -> None:
    target, headers = signed_by_botocore("/models/a", presigned=True)
    _, signed = signed_by_botocore("/models/a")

    assert code_of(target, {**headers, **signed}) == "InvalidArgument"


@pytest.mark.parametrize(
    ("sha256", "code"),
    [
        ("UNSIGNED-PAYLOAD", ""),
        (EMPTY_SHA256, ""),
        ("0" * 64, "XAmzContentSHA256Mismatch"),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "NotImplemented"),
    ],
)
def test_the_body_is_the_signed_one(sha256: str, code: str) -> None:
    headers = {"host": "h", "x-amz-date": "20130524T000000Z", "x-amz-content-sha256": sha256}
    scope = EXAMPLE_SCOPE.removeprefix(EXAMPLE_KEY.access_key_id + "/")
    shown = Presented(EXAMPLE_KEY.access_key_id, scope, headers["x-amz-date"], SIGNED, "", sha256)
    made = signature(
        EXAMPLE_KEY.secret, shown, method="GET", target=parse_target("/models/a"), headers=headers
    )
    headers["authorization"] = example_headers(";".join(SIGNED), made)["authorization"]

    assert code_of("/models/a", headers, keys=example_keys()) == code
