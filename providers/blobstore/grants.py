"""What a link opens of a store: a bucket, perhaps one container of it alone, perhaps for reading only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lattice.errors import Invalid
from lattice.names import check_name, did_you_mean
from providers.blobstore.bucket import BlobError, Bucket, check_container
from providers.provider import BoundLink

KEYS = ("bucket", "container", "access")
ACCESS = ("read-write", "read-only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A link's configuration, checked."""

    bucket: str
    container: str | None
    is_writable: bool


def parse(link: BoundLink, open_buckets: Collection[str] = ()) -> Configuration:
    """Raises `Invalid` that names the key. `open_buckets` are those the operator opened; empty: any."""
    given = link.configuration
    for key in given:
        if key not in KEYS:
            near = did_you_mean(key, KEYS) or f": use {', '.join(KEYS)}"
            raise Invalid(f"blobs have no configuration key `{key}`{near}")
    bucket = check_name(given.get("bucket") or link.source or "shared", "configuration key `bucket`")
    if open_buckets and bucket not in open_buckets:
        raise Invalid(
            f"configuration key `bucket`: {bucket!r} is not open at this provider; "
            f"its operator opened {', '.join(sorted(open_buckets))}"
        )
    access = given.get("access", ACCESS[0])
    if access not in ACCESS:
        raise Invalid(f"configuration key `access`: {access!r} is none of {', '.join(ACCESS)}")
    return Configuration(
        bucket=bucket, container=given.get("container") or None, is_writable=access == ACCESS[0]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A bound link."""

    link: str
    bucket: Bucket
    container: str | None
    is_writable: bool

    def container_of(self, name: str) -> str:
        """The container that a guest means. Raises `not-granted` for any but the one that is granted.

        A link of one container gives it to the guest under the link's own name, too.
        """
        check_container(name)
        if self.container is None:
            return name
        if name in (self.container, self.link):
            return self.container
        raise BlobError(
            "not-granted",
            f"container {name!r} is not granted: link {self.link!r} opens container {self.container!r} alone",
        )

    def writable(self, name: str) -> str:
        """The same for a change. Raises `not-granted` over a link that is for reading only."""
        container = self.container_of(name)
        if not self.is_writable:
            raise BlobError(
                "not-granted",
                f"link {self.link!r} is for reading only: configure it with `access=read-write`",
            )
        return container
