"""`wasi:cli`: arguments, environment, standard streams and exit. There is never a terminal."""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

from lattice.errors import Trapped
from node.capabilities.wasi.io_interfaces import forget
from node.capabilities.wasi.settings import WasiSettings
from node.capabilities.wasi.standard_streams import standard_input, standard_output
from node.capabilities.wasi.streams import OutputStream
from node.engine.host import GuestCall, HostInterface, Returned

COMMAND = "wasi:cli/run@0.2."

STANDARD_OUTPUTS = ("stdout", "stderr")


class Exited(Trapped):
    """Raised when a component ended itself: outside of a command, or where the status matters."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the component exited with status {status} instead of returning")
        self.status = status


def cli_interfaces(settings: WasiSettings, version: str) -> tuple[HostInterface, ...]:
    """What a command finds around it, as `settings` say."""
    return (
        _environment(settings, f"wasi:cli/environment@{version}"),
        HostInterface(
            name=f"wasi:cli/exit@{version}",
            functions={
                "exit": partial(_exit, is_exact=settings.exact_exit),
                "exit-with-code": partial(_exit_with_code, is_exact=settings.exact_exit),
            },
        ),
        HostInterface(
            name=f"wasi:cli/stdin@{version}",
            functions={"get-stdin": partial(standard_input, source=settings.standard_input)},
        ),
        *(
            HostInterface(
                name=f"wasi:cli/{name}@{version}",
                functions={f"get-{name}": partial(standard_output, name=name, sink=sink)},
            )
            for name, sink in _sinks(settings)
        ),
        *_terminals(version),
    )


def _sinks(settings: WasiSettings) -> tuple[tuple[str, OutputStream | None], ...]:
    return ("stdout", settings.standard_output), ("stderr", settings.standard_error)


def _environment(settings: WasiSettings, name: str) -> HostInterface:
    return HostInterface(
        name=name,
        functions={
            "get-environment": lambda call: list(settings.environment.items()),
            "get-arguments": lambda call: list(settings.arguments),
            "initial-cwd": lambda call: settings.working_directory,
        },
    )


def _terminals(version: str) -> tuple[HostInterface, ...]:
    def none(call: GuestCall) -> None:
        return None

    return (
        HostInterface(
            name=f"wasi:cli/terminal-input@{version}", functions={}, resources={"terminal-input": forget}
        ),
        HostInterface(
            name=f"wasi:cli/terminal-output@{version}", functions={}, resources={"terminal-output": forget}
        ),
        *(
            HostInterface(
                name=f"wasi:cli/terminal-{name}@{version}", functions={f"get-terminal-{name}": none}
            )
            for name in ("stdin", *STANDARD_OUTPUTS)
        ),
    )


def _exit(call: GuestCall, status: dict[str, Any], *, is_exact: bool) -> NoReturn:
    _end(call, 0 if "ok" in status else 1, is_exact)


def _exit_with_code(call: GuestCall, code: int, *, is_exact: bool) -> NoReturn:
    _end(call, code, is_exact)


def _end(call: GuestCall, status: int, is_exact: bool) -> NoReturn:
    """A command's exit is its result, unless the status is asked for; anywhere else there is no result."""
    if call.function.startswith(COMMAND) and not is_exact:
        raise Returned({"err": None} if status else {"ok": None})
    raise Exited(status)
