"""The types that a component's world imports, as by `use types.{message}` in it.

The engine leaves them out when it lists what a component imports, but whoever instantiates the component must
give them. So the copy of a component that is there to be described exports them as well, under other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from lattice.errors import Invalid
from node.engine import binary
from node.engine.component_items import ALIASES, TYPE, TYPES, Export, Import, Whole, extern_name, read_section

_WITH_TYPES = frozenset({ALIASES, TYPES, binary.IMPORTS, binary.EXPORTS})


def export_imported_types(component: bytes) -> tuple[bytes, Mapping[str, str]]:
    """The component with its imported types exported; by the names of these exports, those of the imports.

    One that is malformed, or made in a way that is not known here, stays as it is: the engine judges it.
    """
    try:
        imported, exports = _read(component)
    except Invalid:
        return component, {}
    unused = (name for number in count() if (name := f"type-import-{number}") not in exports)
    names = {next(unused): name for name in imported}
    if not names:
        return component, {}
    added = [_export(name, imported[of]) for name, of in names.items()]
    body = binary.number(len(added)) + b"".join(added)
    return component + binary.section(binary.EXPORTS, body), names


def _read(component: bytes) -> tuple[dict[str, int], set[str]]:
    """The index of each imported type, by name; and the names of exports in lower case, as they differ."""
    imported: dict[str, int] = {}
    exports: set[str] = set()
    index = 0
    for part in binary.sections(memoryview(component)):
        for item in read_section(part) if part.id in _WITH_TYPES else ():
            if isinstance(item, Export):
                exports.add(item.name.lower())
            if item.defines != TYPE:
                continue
            if isinstance(item, Import):
                imported[item.name] = index
            index += item.count if isinstance(item, Whole) else 1
    return imported, exports


def _export(name: str, index: int) -> bytes:
    return Export(name, extern_name(name), TYPE, index, b"\x00").encode(lambda _, number: number)
