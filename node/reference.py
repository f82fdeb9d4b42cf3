"""Writes `docs/settings.md` and `docs/interfaces.md` from the program itself.

python -m node.reference > docs/settings.md
python -m node.reference interfaces > docs/interfaces.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from lattice.process_settings import ProcessSettings
from lattice.settings import Declaration, declarations
from node.capabilities.wasi.interfaces import VERSION
from node.cli import default_text
from node.settings import NodeSettings
from node.world import SUPPORT

OF_THE_MACHINE: Mapping[str, str] = {"workers": "the number of processors, at least 2"}
"""Defaults that differ from machine to machine."""

INTRODUCTION = """\
# Settings of a node

Generated from the program by `python -m node.reference`; do not edit.

`lattice-node start` takes each setting as a flag, as an environment variable, or in a TOML file that
`--config FILE` or `LATTICE_CONFIG` names. Flags count more than the environment, the environment more than
the file. An unknown flag, key, or variable that begins with `LATTICE_` is an error that suggests the nearest
one. A file:

```toml
nats = "nats://10.0.0.1:4222,nats://10.0.0.2:4222"
creds = "/etc/lattice/node.creds"
system-creds = "/etc/lattice/system.creds"
label = { zone = "a", disk = "ssd" }
capacity = 500
drain-timeout = "45s"
log-format = "json"
```

What may be repeated is a list, and lists add up: to what the file says comes what the variable says, and to
that what the flags say. A value takes the place of another of its name (the key of a label, the name of a
provider or of a folder), whole: `--provider cache=...` replaces the file's table `[providers.cache]` with its
settings, and no other. To have one less, take it out of the file.

A size is a number with `KiB`, `MiB`, `GiB`, `KB`, `MB` or `GB`, bytes without a unit. A duration is a number
with `ms`, `s`, `m` or `h`, seconds without a unit. Values of a list in a
variable are separated by commas, those of `LATTICE_PROVIDER` by semicolons; an empty variable says nothing.
"""

OTHERS = f"""\
## Other variables

| variable | meaning |
| --- | --- |
| `LATTICE_CONFIG` | the TOML file, as `--config` |
| `LATTICE_STATE` | the folder in which nodes of this machine keep their data and find their embedded server; without it `$XDG_STATE_HOME/lattice`, else `~/.local/state/lattice` |
| `LATTICE_TIMEOUT`, `LATTICE_OUTPUT` | of `latticectl`, see [its reference](cli.md); a node passes over them |
| `LATTICE_DRIVER` | `off`: do without the engine's native helper, which makes calls quicker and is left out where it was not built |
| `NO_COLOR` | if it is set: no colours, in logs, in `latticectl` and in the demo |

`latticectl` reads `LATTICE_LATTICE`, `LATTICE_NATS`, `LATTICE_CREDS` and `LATTICE_TLS_*` too, so one set of variables
serves both. A provider's own process reads what means the same for all processes of a machine:
{", ".join(f"`{item.variable}`" for item in declarations(ProcessSettings))}.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | the node drained and left, after SIGTERM, Ctrl-C or `latticectl drain` |
| 1 | it could not start, or failed; the last line on stderr says why and what to do |
| 2 | wrong usage: an unknown setting, or a value out of its range |
| 130 | it was stopped before it had drained, by a second signal or by one before it was ready |
"""  # noqa: E501 - a row of a table is one line


def reference() -> str:
    """The whole page."""
    parts = [INTRODUCTION, *(section(item) for item in declarations(NodeSettings)), OTHERS]
    return "\n".join(parts)


def section(declaration: Declaration) -> str:
    """What there is to say of one setting."""
    key = declaration.name.replace("_", "-")
    default = OF_THE_MACHINE.get(declaration.name) or default_text(declaration)
    lines = [
        f"## {key}",
        "",
        declaration.help,
        "",
        f"- flag: `{declaration.flag} {declaration.metavar}`{', repeatable' if declaration.repeated else ''}",
        f"- variable: `{declaration.variable}`",
        f"- default: {default or 'none'}",
    ]
    return "\n".join(lines) + "\n"


BUILT_IN = f"""\
# Interfaces

Generated from the program by `python -m node.reference interfaces`; do not edit.

What a component may import. Those that need a link say so; all others are built in, and many of them open
only what was granted. Of WASI 0.2 every version up to {VERSION} is served, drafts by their full names. Others
can be [linked](capabilities/links.md) to a component or provider that has them.

Two implementations serve them: *host* functions of the node, and the *shim*, a small component that lives in
the sandbox beside [handlers of HTTP](capabilities/http.md) and is much quicker. Both are tested by the same
requests. Where a handler was granted folders or sockets, or imports streams of another capability, such as
blobs, these are the host's, and the shim serves the rest.
"""

SHIM = ("wasi:io/", "wasi:clocks/", "wasi:random/", "wasi:cli/", "wasi:http/")
"""What the shim implements, by prefix."""


def interfaces() -> str:
    """The page of what components may import."""
    rows = [f"| `{name}` | {words} | {_implementations(name)} |" for name, words in SUPPORT.items()]
    head = ["| interface | what is there | by |", "| --- | --- | --- |"]
    return "\n".join([BUILT_IN, *head, *rows]) + "\n"


def _implementations(interface: str) -> str:
    return "host, shim" if interface.startswith(SHIM) else "host"


if __name__ == "__main__":
    sys.stdout.write(interfaces() if sys.argv[1:] == ["interfaces"] else reference())
