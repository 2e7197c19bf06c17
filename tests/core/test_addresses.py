"""Addresses without the user and the password in them."""

import pytest

from core.addresses import split_credentials, without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host/a", "https://host/a"),
        ("https://token@host:8000/a?b=c#d", "https://host:8000/a?b=c#d"),
        ("https://me:se@cret@host", "https://host"),
        ("https://me:se/cr?e#t@host/a", "https://host/a"),
        ("no 'http://me:secret@a/b' nor s3://key:secret@c", "no 'http://a/b' nor s3://c"),
        ("simplecache::https://me:secret@host/a", "simplecache::https://host/a"),
        ("https://me:my se cret@host/a", "https://host/a"),
        ("https://me:se\tcr\net@host/a", "https://host/a"),
        ("https:/me:secret@host/a", "https:/host/a"),
        ("https://host/@scope/a@2", "https://host/@scope/a@2"),
        ("https://host:8000/@scope", "https://host:8000/@scope"),
        ("somebody@example.org", "somebody@example.org"),
    ],
)  # fmt: skip
def test_what_is_shown(text, shown):
    assert without_credentials(text) == shown


def test_split():
    assert split_credentials("https://me:s%2Fecr%C3%A9t@host/a") == (
        "https://host/a",
        (b"me", "s/ecrét".encode()),
    )
    assert split_credentials("https://me:my secret@host/a") == ("https://host/a", (b"me", b"my secret"))
    assert split_credentials("https://token@host/a") == ("https://host/a", (b"token", b""))
    assert split_credentials("https://host/@a") == ("https://host/@a", None)
