"""A component with fewer core modules: it does the same, and a sandbox of it takes half the time to make.

Tools make a component of several core modules (the program, an adapter, a table of functions that are known
later), and the shim adds some. Those can be one (`core_fusion`) of which none needs something of the
component that itself needs one of them, such as a function of the host's that is lowered to a memory of
theirs. So instances have *ranks*: how often one must go through the component to come to them.

      rank 0    program, adapter, table of stand-ins        become one module
                the host's functions, lowered to its memory
      rank 1    what puts these into the table

A fused module takes the place of the last of its parts; what uses exports of the others moves behind it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from lattice.errors import Invalid
from node.engine import binary
from node.engine import component_items as items
from node.engine.component_items import (
    AliasCoreExport,
    CoreExports,
    CoreInstantiate,
    Item,
    Output,
    Whole,
    read_items,
)
from node.engine.core_fusion import Inner, Origin, Outer, export_name, fuse
from node.engine.core_module import CoreImport, CoreModule, read_module

MOST_CODE_BYTES = 16 << 20
"""Of all modules of one rank: writing that much again takes some half a second."""

MOST_INSTANCES = 200
FUSION_VERSION = 2
"""Part of the cache key: to be raised with every change of what is generated."""

_Reference = tuple[str, int]
_Source = _Reference | AliasCoreExport
"""An item, or what an instance of a core module exports."""


def fused(component: bytes) -> bytes:
    """Fuse what can be. Raises `Invalid` where nothing can, or it would gain nothing."""
    found = read_items(component)
    if sum(isinstance(item, CoreInstantiate) for item in found) > MOST_INSTANCES:
        raise Invalid("it has more core modules than are worth the time")
    try:
        return _Fusing(found).fused()
    except (LookupError, RecursionError):
        raise Invalid("it is malformed: it refers to what is not there") from None


@dataclass(slots=True)
class _Group:
    """The instances of one rank: their places among the items, their modules, and what these are given."""

    places: list[int]
    modules: list[CoreModule] = field(default_factory=list)
    origins: list[dict[tuple[str, str], Origin]] = field(default_factory=list)
    outer: dict[_Source, int] = field(default_factory=dict)
    """What it imports."""
    exported: dict[Inner, None] = field(default_factory=dict)

    def inner(self, place: int, name: str) -> Inner:
        """An export of the member that is at that place."""
        return Inner(self.places.index(place), name)


class _Fusing:
    """Writes the component again."""

    # The mutable state is the output, what indexes have become, and what waits for a fused module.

    def __init__(self, found: list[Item]) -> None:
        self._items = found
        self._places: dict[_Reference, int] = {}
        self._first: list[int] = []
        self._index_items()
        self._references = [_references(item) for item in found]
        self._modules: dict[int, CoreModule] = {}
        self._group_of: dict[int, _Group] = {}
        self._groups = self._find_groups()
        self._needed = self._find_needed()
        for place in self._needed:
            self._note_uses(place)
        self._output = Output()
        self._indexes: dict[_Reference, int] = {}
        self._fused: dict[int, int] = {}
        self._fused_modules = {member.module for group in self._groups for member in self._members(group)}
        self._waiting: list[int] = []

    def _index_items(self) -> None:
        counts: Counter[str] = Counter()
        for place, item in enumerate(self._items):
            self._first.append(counts[item.defines])
            for _ in range(item.count if isinstance(item, Whole) else 1):
                self._places[item.defines, counts[item.defines]] = place
                counts[item.defines] += 1

    def _defined(self, reference: _Reference) -> int:
        """Where the item is that a reference means."""
        if reference not in self._places:
            raise Invalid("it refers to what is not there")
        return self._places[reference]

    # Which become one

    def _find_groups(self) -> list[_Group]:
        ranks: defaultdict[int, list[int]] = defaultdict(list)
        for place, rank in enumerate(self._ranks()):
            if rank is not None and isinstance(self._items[place], CoreInstantiate):
                ranks[rank].append(place)
        groups = [_Group(places) for places in ranks.values() if len(places) > 1]
        if not groups:
            raise Invalid("its core modules are as few as they can be")
        for group in groups:
            self._group_of.update(dict.fromkeys(group.places, group))
        for group in groups:
            self._read(group)
        return groups

    def _find_needed(self) -> list[int]:
        """Items that are to be written: all but names for exports that only members used."""
        found: set[int] = set()
        names = AliasCoreExport | CoreExports
        waiting = [place for place, item in enumerate(self._items) if not isinstance(item, names)]
        while waiting:
            place = waiting.pop()
            if place in found:
                continue
            found.add(place)
            group = self._group_of.get(place)
            references = self._references[place] if group is None else map(_needs, group.outer)
            waiting += [self._defined(at) for at in references]
        return sorted(found)

    def _ranks(self) -> list[int | None]:
        """Of each item: None if it needs no core instance."""
        ranks: list[int | None] = []
        for place, (item, references) in enumerate(zip(self._items, self._references, strict=True)):
            before = [self._defined(at) for at in references]
            if any(at >= place for at in before):
                raise Invalid("it refers to what comes later")
            needed = [rank for at in before if (rank := ranks[at]) is not None]
            highest = max(needed, default=None)
            if isinstance(item, CoreInstantiate):
                highest = highest or 0
            elif highest is not None and not isinstance(item, AliasCoreExport | CoreExports):
                highest += 1
            ranks.append(highest)
        return ranks

    def _read(self, group: _Group) -> None:
        for place in group.places:
            item = self._items[place]
            assert isinstance(item, CoreInstantiate)
            group.modules.append(self._module(item.module))
        used = Counter(item.module for item in self._items if isinstance(item, CoreInstantiate))
        if any(used[item.module] > 1 for item in self._members(group)):
            raise Invalid("it has two instances of one core module")
        if sum(module.code_bytes for module in group.modules) > MOST_CODE_BYTES:
            raise Invalid("it has more code than is worth the time")
        for item, module in zip(self._members(group), group.modules, strict=True):
            given = dict(item.arguments)
            if any(wanted.module not in given for wanted in module.imports):
                raise Invalid("a core module is not given what it imports")
            group.origins.append(
                {
                    (wanted.module, wanted.name): self._origin(
                        group, self._source(given[wanted.module], wanted.name, wanted.sort)
                    )
                    for wanted in module.imports
                }
            )

    def _members(self, group: _Group) -> Iterator[CoreInstantiate]:
        for place in group.places:
            item = self._items[place]
            assert isinstance(item, CoreInstantiate)
            yield item

    def _module(self, index: int) -> CoreModule:
        if index not in self._modules:
            item = self._items[self._defined((items.CORE_MODULE, index))]
            if not isinstance(item, Whole):
                raise Invalid("one of its core modules comes from outside")
            self._modules[index] = read_module(item.body)
        return self._modules[index]

    def _origin(self, group: _Group, source: _Source) -> Origin:
        """What something is to the group."""
        if isinstance(source, AliasCoreExport):
            place = self._defined((items.CORE_INSTANCE, source.instance))
            if self._group_of.get(place) is group:
                return group.inner(place, source.name)
        return Outer(group.outer.setdefault(source, len(group.outer)))

    def _source(self, instance: int, name: str, sort: str) -> _Source:
        """Where an export of a core instance comes from."""
        while True:
            item = self._items[self._defined((items.CORE_INSTANCE, instance))]
            if not isinstance(item, CoreExports):
                return AliasCoreExport(sort, instance, name)
            index = next((at for given, kind, at in item.exports if (given, kind) == (name, sort)), None)
            if index is None:
                raise Invalid(f"a core module lacks its import `{name}`")
            alias = self._items[self._defined((sort, index))]
            if not isinstance(alias, AliasCoreExport):
                return sort, index
            instance, name = alias.instance, alias.name

    def _note_uses(self, place: int) -> None:
        """Which exports of the groups' members an item has that is none of the same group."""
        item, group = self._items[place], self._group_of.get(place)
        if isinstance(item, AliasCoreExport):
            self._note_use(item)
        elif isinstance(item, CoreInstantiate):
            given = dict(item.arguments)
            for wanted in self._module(item.module).imports:
                if wanted.module in given:
                    self._note_import(group, given[wanted.module], wanted)

    def _note_import(self, by: _Group | None, instance: int, wanted: CoreImport) -> None:
        direct = AliasCoreExport(wanted.sort, instance, wanted.name)
        source = self._source(instance, wanted.name, wanted.sort)
        for used in (direct, source):
            if isinstance(used, AliasCoreExport) and self._owner(used) is not by:
                self._note_use(used)

    def _instance(self, alias: AliasCoreExport) -> int:
        return self._defined((items.CORE_INSTANCE, alias.instance))

    def _owner(self, alias: AliasCoreExport) -> _Group | None:
        return self._group_of.get(self._instance(alias))

    def _note_use(self, alias: AliasCoreExport) -> None:
        group = self._owner(alias)
        if group is not None:
            group.exported[group.inner(self._instance(alias), alias.name)] = None

    # Writing

    def fused(self) -> bytes:
        for place in self._needed:
            item, group = self._items[place], self._group_of.get(place)
            if group is not None:
                if place == group.places[-1]:
                    self._write_fused(group)
            elif self._is_ready(place):
                self._write(place)
            elif item.defines in (items.TYPE, items.CORE_TYPE):
                raise Invalid("it has types that depend on its core modules")
            else:
                self._waiting.append(place)
        return self._output.encode()

    def _is_ready(self, place: int) -> bool:
        return all(self._is_written(at) for at in self._references[place])

    def _is_written(self, reference: _Reference) -> bool:
        place = self._defined(reference)
        group = self._group_of.get(place)
        return reference in self._indexes if group is None else id(group) in self._fused

    def _renumber(self, sort: str, index: int) -> int:
        return self._indexes[sort, index]

    def _write(self, place: int) -> None:
        item = self._items[place]
        if self._is_of_group(place):
            return
        if isinstance(item, AliasCoreExport):
            index = self._write_alias(item)
        elif isinstance(item, CoreInstantiate):
            index = self._output.add(self._with_exports(item))
        else:
            index = self._output.add(item, self._renumber)
        for offset in range(item.count if isinstance(item, Whole) else 1):
            self._indexes[item.defines, self._first[place] + offset] = index + offset

    def _is_of_group(self, place: int) -> bool:
        """Whether it is a core module that has become part of another: nobody refers to it any more."""
        item = self._items[place]
        is_module = isinstance(item, Whole) and item.sort == items.CORE_MODULE
        return is_module and self._first[place] in self._fused_modules

    def _write_alias(self, item: AliasCoreExport) -> int:
        place = self._defined((items.CORE_INSTANCE, item.instance))
        group = self._group_of.get(place)
        if group is None:
            return self._output.add(item, self._renumber)
        name = export_name(group.inner(place, item.name))
        return self._output.add(AliasCoreExport(item.sort, self._fused[id(group)], name))

    def _with_exports(self, item: CoreInstantiate) -> CoreInstantiate:
        """An instance that is no member, with what it is given under the names that it knows."""
        module = self._module(item.module)
        arguments = []
        for name, instance in item.arguments:
            group = self._group_of.get(self._defined((items.CORE_INSTANCE, instance)))
            if group is None:
                arguments.append((name, self._renumber(items.CORE_INSTANCE, instance)))
                continue
            wanted = {(part.name, part.sort) for part in module.imports if part.module == name}
            exports = [
                (part, sort, self._write_alias(AliasCoreExport(sort, instance, part)))
                for part, sort in sorted(wanted)
            ]
            arguments.append((name, self._output.add(CoreExports(tuple(exports)))))
        return CoreInstantiate(self._renumber(items.CORE_MODULE, item.module), tuple(arguments))

    def _write_fused(self, group: _Group) -> None:
        if not all(self._is_written(_needs(at)) for at in group.outer):
            raise Invalid("its core modules need what comes after them")
        code = fuse(group.modules, group.origins, group.exported)
        module = self._output.add(Whole(binary.CORE_MODULE, code, items.CORE_MODULE))
        given = tuple((str(number), *self._given(at)) for at, number in group.outer.items())
        arguments = (("", self._output.add(CoreExports(given))),) if given else ()
        self._fused[id(group)] = self._output.add(CoreInstantiate(module, arguments))
        self._write_waiting()

    def _given(self, wanted: _Source) -> _Reference:
        """Sort and new index of what a fused module imports."""
        if isinstance(wanted, AliasCoreExport):
            return wanted.sort, self._write_alias(wanted)
        return wanted[0], self._renumber(*wanted)

    def _write_waiting(self) -> None:
        """What can be written now, in order."""
        waiting, self._waiting = self._waiting, []
        for place in waiting:
            if self._is_ready(place):
                self._write(place)
            else:
                self._waiting.append(place)


def _needs(wanted: _Source) -> _Reference:
    """What must be there first."""
    return (items.CORE_INSTANCE, wanted.instance) if isinstance(wanted, AliasCoreExport) else wanted


def _references(item: Item) -> list[_Reference]:
    """All that an item refers to by an index."""
    found: list[_Reference] = []
    if isinstance(item, Whole):
        return found

    def note(sort: str, index: int) -> int:
        found.append((sort, index))
        return 0

    item.encode(note)
    return found
