"""All stores of blobs keep the same promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from providers.blobstore.bucket import Store
from providers.blobstore.conformance import CHECKS, Setting

Check = Callable[[Setting], Awaitable[None]]
every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


def _setting(store: Store, name: str) -> Setting:
    return Setting(store=store, bucket=store.bucket(name), other=store.bucket(f"{name}-other"))


@every_check
async def test_memory(check: Check, memory_store: Store, lattice_name: str) -> None:
    await check(_setting(memory_store, lattice_name))


@every_check
async def test_nats(check: Check, nats_store: Store, lattice_name: str) -> None:
    await check(_setting(nats_store, lattice_name))


@every_check
async def test_filesystem(check: Check, filesystem_store: Store, lattice_name: str) -> None:
    await check(_setting(filesystem_store, lattice_name))


@every_check
async def test_s3(check: Check, s3_store: Store, lattice_name: str) -> None:
    await check(_setting(s3_store, lattice_name))
