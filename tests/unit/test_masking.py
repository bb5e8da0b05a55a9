"""What is masked in texts of others, and what is left as it is."""

import pytest

from penstock.masking import mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            "postgresql://penstock:hunter2@db:5432/catalog is away",
            "postgresql://***@db:5432/catalog is away",
        ),
        ("GET http://:hunter2@host/x", "GET http://***@host/x"),
        (
            "https://b.s3/x?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=abc0&part=1",
            "https://b.s3/x?X-Amz-Credential=***&X-Amz-Signature=***&part=1",
        ),
        (
            "https://a.blob/c?sv=2022&sig=hunter2%3D&se=2030",
            "https://a.blob/c?sv=2022&sig=***&se=2030",
        ),
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer ***"),
        ("Authorization: Penstock djE6c29tZXRoaW5n0=", "Authorization: Penstock ***"),
        ('{"password": "hunter2", "user": "p"}', '{"password": "***", "user": "p"}'),
        ("secret_access_key='hunter2', region='x'", "secret_access_key='***', region='x'"),
        ("password=hunter2 host=db", "password=*** host=db"),
    ],
)
def test_what_opens_doors_is_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "hf://acme/bert@main/model.safetensors",
        "abfss://container@account.dfs.core.windows.net/path",
        "http://127.0.0.1:8333/bucket/key",
        "this version does not check bearer tokens; use [tls]",
        "basic authentication is not spoken",
        "penstock support-bundle gathers all",
        "penstock://models/llama/model-00001-of-00002.safetensors: 4.2 MB",
        "volume 'models' names the secret s3-prod",
        '{"events_token": null, "password": {"env": "X"}, "token": ["a"]}',
    ],
)
def test_all_else_is_left_as_it_is(text: str) -> None:
    assert mask(text) == text
