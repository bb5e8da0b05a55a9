"""What may be called a volume, which urls lie inside one, and what an object's key is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest, NotPermitted
from penstock.objects import KEY_BYTES_MAX
from penstock.origin_urls import PATH_BYTES_MAX
from penstock.volumes import Location, Volume, Volumes, object_key, penstock_url, split_options

SEAWEED: dict[str, str | bool] = {"endpoint": "http://127.0.0.1:8333", "allow_http": True}

segments = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=20
).filter(lambda segment: segment not in (".", ".."))
paths = st.lists(segments, min_size=1, max_size=6).map("/".join)


def volumes(*several: Volume) -> Volumes:
    return Volumes({volume.name: volume for volume in several})


@given(paths)
def test_every_lawful_path_survives_both_kinds_of_url(path: str) -> None:
    models = volumes(Volume("models", "s3://bucket/prefix"))

    by_name = models.resolve(penstock_url("models", path))
    by_origin = models.resolve(f"s3://bucket/prefix/{path}")

    assert by_name == by_origin == Location(models.get("models"), path)
    assert object_key(by_name) == f"s3://bucket/prefix/{path}"


@given(paths, st.sampled_from(["", ".", ".."]), st.integers(0, 6))
def test_no_path_with_an_empty_or_dotted_segment_is_lawful(path: str, bad: str, at: int) -> None:
    parts = path.split("/")
    parts.insert(at, bad)

    with pytest.raises(InvalidRequest):
        volumes(Volume("models", "s3://bucket")).resolve(penstock_url("models", "/".join(parts)))


@given(st.text(max_size=60))
def test_any_text_is_resolved_or_refused_by_name(text: str) -> None:
    models = volumes(Volume("models", "s3://bucket"))
    for url in (text, f"penstock://{text}", f"penstock://models/{text}", f"s3://bucket/{text}"):
        try:
            location = models.resolve(url)
        except (InvalidRequest, NotPermitted):
            continue
        assert 0 < len(object_key(location).encode()) <= KEY_BYTES_MAX


@pytest.mark.parametrize("bad", ["a\x00b", "a\nb", "a\x7fb", "a\ud800b"])
def test_control_characters_and_halves_of_characters_are_refused(bad: str) -> None:
    with pytest.raises(InvalidRequest, match="control characters"):
        volumes(Volume("models", "s3://bucket")).resolve(penstock_url("models", bad))


def test_a_path_is_bounded_in_bytes_and_not_in_characters() -> None:
    models = volumes(Volume("models", "s3://bucket"))
    longest = "ü" * (PATH_BYTES_MAX // 2)

    assert models.resolve(penstock_url("models", longest)).path == longest
    with pytest.raises(InvalidRequest, match="1024 bytes"):
        models.resolve(penstock_url("models", longest + "x"))


def test_percent_signs_question_marks_and_hashes_are_characters_like_others() -> None:
    models = volumes(Volume("models", "s3://bucket"))

    for path in ("a%20b", "a%2Fb", "100%", "a?b=c", "a#b", "a+b c"):
        assert models.resolve(f"s3://bucket/{path}").path == path


def test_the_longest_prefix_wins() -> None:
    models = volumes(Volume("outer", "s3://bucket"), Volume("inner", "s3://bucket/llama/"))

    assert models.resolve("s3://bucket/llama/7b").volume.name == "inner"
    assert models.resolve("s3://bucket/llama2/7b").volume.name == "outer"


def test_a_url_in_two_volumes_alike_is_refused_and_says_how_to_name_one() -> None:
    models = volumes(Volume("east", "s3://bucket", SEAWEED), Volume("west", "s3://bucket"))

    with pytest.raises(InvalidRequest, match="2 volumes alike; write penstock://VOLUME") as told:
        models.resolve("s3://bucket/key")
    assert "east" not in str(told.value)


@pytest.mark.parametrize(
    "url", ["s3://other/key", "s3://bucketeer/key", "https://bucket/key", "penstock://other/key"]
)
def test_a_url_outside_every_volume_is_not_permitted_and_the_error_says_what_to_do(
    url: str,
) -> None:
    with pytest.raises(NotPermitted, match="penstock volume add") as told:
        volumes(Volume("models", "s3://bucket")).resolve(url)
    assert "models" not in str(told.value)


def test_scheme_and_host_are_compared_without_case() -> None:
    web = volumes(Volume("web", "HTTPS://Models.Example.COM/a"))

    assert web.resolve("https://MODELS.example.com/a/Key").path == "Key"
    assert web.get("web").url == "https://models.example.com/a/"


def test_a_prefix_may_be_the_whole_volume_or_end_in_a_slash() -> None:
    models = volumes(Volume("models", "s3://bucket"))

    assert models.resolve_prefix("penstock://models").path == ""
    assert models.resolve_prefix("penstock://models/").path == ""
    assert models.resolve_prefix("s3://bucket/llama/").path == "llama/"
    with pytest.raises(InvalidRequest):
        models.resolve_prefix("penstock://models/a//")


def test_equal_buckets_of_two_stores_have_different_keys() -> None:
    usual = Volume("a", "s3://bucket/prefix")
    own = Volume("b", "s3://bucket/prefix", SEAWEED)
    other = Volume("c", "s3://bucket/prefix", {"AWS_ENDPOINT_URL": "https://Minio.local/"})

    assert object_key(Location(usual, "x")) == "s3://bucket/prefix/x"
    assert object_key(Location(own, "x")) == "s3+http://127.0.0.1:8333/bucket/prefix/x"
    assert object_key(Location(other, "x")) == "s3+https://minio.local/bucket/prefix/x"


def test_containers_of_two_azure_accounts_have_different_keys() -> None:
    first = Volume("a", "az://container", {"account_name": "first"})
    second = Volume("b", "az://container", {"azure_storage_account_name": "second"})
    named = Volume("c", "abfss://container@first.dfs.core.windows.net/p")

    assert object_key(Location(first, "x")) == "az+first://container/x"
    assert object_key(Location(second, "x")) == "az+second://container/x"
    assert object_key(Location(named, "x")) == "abfss://container@first.dfs.core.windows.net/p/x"
    with pytest.raises(InvalidRequest, match="account_name"):
        Volume("d", "az://container")


def test_a_volume_survives_its_json() -> None:
    volume = Volume("models", "s3://bucket/p", {**SEAWEED, "timeout": "5s"}, "s3-prod")

    assert Volume.from_json("models", volume.to_json()) == volume
    assert volume.url == "s3://bucket/p/"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{}",
        b'{"url": 5}',
        b'{"url": "s3://b", "options": []}',
        b'{"url": "s3://b", "secret": 1}',
        b'{"url": "s3://b", "replicas": "2"}',
        b'{"url": "s3://b", "replicas": true}',
        b'{"url": "s3://b", "replicas": 0}',
        b'{"url": "s3://b", "options": {"region": ["x"]}}',
    ],
)
def test_what_is_not_a_volume_is_refused_by_name(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="models"):
        Volume.from_json("models", value)


@pytest.mark.parametrize("replicas", [None, 1, 3])
def test_its_number_of_copies_survives_etcd(replicas: int | None) -> None:
    volume = Volume("models", "s3://bucket/p", replicas=replicas)

    assert Volume.from_json("models", volume.to_json()) == volume
    assert Volume.from_json("models", b'{"url": "s3://bucket/p"}').replicas is None


@pytest.mark.parametrize("replicas", [-1, 0, 4])
def test_as_many_copies_as_no_cluster_keeps_are_refused(replicas: int) -> None:
    with pytest.raises(InvalidRequest, match=f"volume 'models': replicas={replicas}: want 1 to 3"):
        Volume("models", "s3://bucket", replicas=replicas)


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "a/b", "ü", "a" * 64, "a b"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a volume"):
        Volume(name, "s3://bucket")


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "memory:///x", "bucket", "s3:/bucket", "hdfs://a/b"]
)
def test_an_unknown_scheme_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(InvalidRequest, match="s3, gs, az, abfs, abfss, http, https, file, hf"):
        Volume("models", url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://user:hunter2@bucket/",
        "https://user:hunter2@host/",
        "https://host:port/",
        "s3://bucket/a/../b",
        "s3://bucket//a",
        "https://host/a?token=hunter2",
        "file://host/path",
        "s3://\ud800",
    ],
)
def test_a_bad_place_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"volume 'models'|path"):
        Volume("models", url)


def test_a_password_in_a_url_is_not_repeated_in_the_error() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Volume("models", "https://user:hunter2@host/")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "nearest"),
    [("regoin", "region"), ("endpiont", "endpoint"), ("connect_timout", "connect_timeout")],
)
def test_an_unknown_option_is_refused_with_the_nearest_known_name(
    option: str, nearest: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"did you mean {nearest!r}"):
        Volume("models", "s3://bucket", {option: "x"})


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("s3://bucket", "access_key_id"),
        ("s3://bucket", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket", "token"),
        ("s3://bucket", "metadata_endpoint"),
        ("s3://bucket", "default_headers"),
        ("gs://bucket", "google_service_account_key"),
        ("az://container", "azure_storage_sas_token"),
        ("https://host", "token"),
        ("https://host", "password"),
    ],
)
def test_credentials_and_what_leads_to_them_are_refused_in_options(url: str, option: str) -> None:
    with pytest.raises(InvalidRequest, match=r"\[secrets\.NAME\]") as caught:
        Volume("models", url, {option: "hunter2"})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bucket": "other"}, "belongs in the volume's url"),
        ({"region": "a", "AWS_REGION": "b"}, "there twice"),
        ({"allow_http": "perhaps"}, "want true or false"),
        ({"timeout": "soon"}, "not a duration"),
        ({"endpoint": "http://host"}, "allow_http"),
        ({"endpoint": "host:8333"}, "write it as https://"),
        ({"endpoint": "https://user:hunter2@host"}, r"\[secrets\]"),
        ({"endpoint": "https://host:port"}, "not a url"),
        ({"proxy_url": "http://user:hunter2@proxy"}, "no password here"),
    ],
)
def test_a_bad_option_is_refused_with_what_to_write(
    options: dict[str, str], complaint: str
) -> None:
    with pytest.raises(InvalidRequest, match=complaint) as caught:
        Volume("models", "s3://bucket", options)

    assert "hunter2" not in str(caught.value)


def test_file_volumes_take_no_options() -> None:
    with pytest.raises(InvalidRequest, match="takes no options"):
        Volume("models", "file:///data", {"mkdir": "true"})


def test_options_are_sorted_into_the_stores_and_its_clients_under_one_spelling() -> None:
    store, client = split_options(
        "s3://bucket",
        {"AWS_ENDPOINT_URL": "http://h:1", "aws_region": "eu", "allow_http": True, "timeout": 2.5},
    )

    assert store == {"endpoint": "http://h:1", "region": "eu"}
    assert client == {"allow_http": "true", "timeout": "2500ms"}


def test_a_volumes_options_cannot_be_changed_from_outside() -> None:
    options = {"region": "eu"}
    volume = Volume("models", "s3://bucket", options)

    options["region"] = "us"

    assert volume.options == {"region": "eu"}


@pytest.mark.parametrize("writable", [True, False])
def test_whether_it_is_writable_survives_etcd(writable: bool) -> None:
    volume = Volume("models", "s3://bucket/p", writable=writable)

    assert Volume.from_json("models", volume.to_json()).writable is writable


@pytest.mark.parametrize("more", [b"", b', "writable": false', b', "writable": "true"'])
def test_nothing_is_writable_that_does_not_say_so(more: bytes) -> None:
    assert Volume("models", "s3://bucket/").writable is False
    assert Volume.from_json("models", b'{"url": "s3://bucket/"%s}' % more).writable is False


def test_what_nobody_can_write_is_not_writable() -> None:
    with pytest.raises(InvalidRequest, match="http origins cannot be written"):
        Volume("web", "https://models.example/", writable=True)
