"""Guests that pass their exported functions' calls on to an import of the same type."""

from __future__ import annotations

MEMORY = """
  (core module $memory
    (memory (export "memory") 4)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.get $next)
      (global.set $next (i32.add (global.get $next) (local.get 3)))))
  (core instance $memory (instantiate $memory))
"""

OPTIONS = '(memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))'
AREA = "(i32.const 1024)"
"""Where results that don't fit into a register are."""


def relay(imports: str, functions: dict[str, tuple[str, str]], aliases: str = "") -> str:
    """A component; `functions` gives each one's core parameters, such as `i32 i32`, and its component type.

    `imports` must define the instance `$host`; all results are returned by their place in memory.
    """
    lowered, core_imports, core_functions, with_, lifted = [], [], [], [], []
    for name, (params, type_) in functions.items():
        count = len(params.split())
        places = " ".join(f"(local.get {index})" for index in range(count))
        has_result = "(result" in type_
        area, returned = (AREA, "(result i32)") if has_result else ("", "")
        lowered.append(
            f'(alias export $host "{name}" (func ${name}))'
            f"(core func ${name}' (canon lower (func ${name}) {OPTIONS}))"
        )
        core_imports.append(
            f'(import "host" "{name}" (func ${name} (param {params} {"i32" if has_result else ""})))'
        )
        core_functions.append(
            f'(func (export "{name}") (param {params}) {returned} (call ${name} {places} {area}) {area})'
        )
        with_.append(f'(export "{name}" (func ${name}\'))')
        lifted.append(f'(func (export "{name}") {type_} (canon lift (core func $guest "{name}") {OPTIONS}))')
    return f"""(component
      {imports}
      {aliases}
      {MEMORY}
      {" ".join(lowered)}
      (core module $guest {" ".join(core_imports)} {" ".join(core_functions)})
      (core instance $guest (instantiate $guest (with "host" (instance {" ".join(with_)}))))
      {" ".join(lifted)})"""
