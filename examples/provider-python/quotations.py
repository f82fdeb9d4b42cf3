"""A provider in Python: `demo:kv/store` over a file of quotations, one `NAME: TEXT` a line."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio

from lattice.errors import Failed, Invalid
from lattice.settings import path, setting
from providers.provider import ProviderFunction
from providers.sdk import BoundLink, Provider, ProviderCall

STORE = "demo:kv/store"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotationSettings:
    """What the operator says: `--set file=...`."""

    file: Path = setting(Path("quotations.txt"), "File of quotations.", path, metavar="FILE")


class Quotations(Provider):
    """Reads the file at its start, and again whenever it has changed."""

    settings_type = QuotationSettings
    clients_may_call = True
    types = {STORE: {"get": "func(key: string) -> option<string>"}}

    def __init__(self, settings: QuotationSettings) -> None:
        self._file = anyio.Path(settings.file)
        self._changed_at = 0.0
        self._texts: Mapping[str, str] = {}

    @property
    def interfaces(self) -> Mapping[str, Mapping[str, ProviderFunction]]:
        return {STORE: {"get": self.get}}

    async def start(self) -> None:
        await self.check()

    async def check(self) -> None:
        try:
            changed_at = (await self._file.stat()).st_mtime
            if changed_at != self._changed_at:
                lines = (await self._file.read_text()).splitlines()
                self._texts = dict(line.split(": ", 1) for line in lines if ": " in line)
                self._changed_at = changed_at
        except OSError as error:
            raise Failed(f"the quotations can't be read: {error}") from error

    async def bind(self, link: BoundLink) -> str:
        """Links may say `prefix=...`, which is put before each quotation."""
        for key in link.configuration:
            if key != "prefix":
                raise Invalid(f"there is no configuration {key!r}; there is `prefix`")
        return link.configuration.get("prefix", "")

    async def get(self, call: ProviderCall, key: str) -> str | None:
        text = self._texts.get(key)
        return None if text is None else call.binding + text
