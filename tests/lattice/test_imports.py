"""The commands that grant an import, to what is deployed and to a job."""

from __future__ import annotations

import pytest

from lattice.imports import grant_line, job_grant_line


def test_a_component_is_granted_a_link_of_a_name_by_link_put() -> None:
    assert grant_line("a", "wasi:blobstore/container", "photos") == (
        "latticectl link put a wasi:blobstore blobstore-nats --name photos"
    )


@pytest.mark.parametrize(
    ("interface", "name", "option"),
    [
        ("wasi:keyvalue/store@0.2.0-draft", "default", "wasi:keyvalue=keyvalue-nats,bucket=NAME"),
        ("wasi:blobstore/blobstore", "photos", "wasi:blobstore=blobstore-nats,bucket=NAME,name:photos"),
        ("wasmcloud:messaging/consumer@0.2.0", "default", "wasmcloud:messaging=messaging-nats"),
        ("demo:stock/items@1.0.0", "overseas", "demo:stock/items=TARGET,name:overseas"),
    ],
)
def test_a_job_is_granted_a_link_when_it_is_begun(interface: str, name: str, option: str) -> None:
    assert job_grant_line(interface, name) == f"latticectl run ... --link {option}"
