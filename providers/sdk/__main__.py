"""`python -m providers.sdk MODULE:CLASS --name NAME`: a provider as a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import anyio
import click

from lattice import logs
from lattice.errors import Invalid, LatticeError
from lattice.process_settings import ProcessSettings
from lattice.settings import Declaration, declarations, load
from lattice.standard_streams import replace_closed
from providers.sdk.serve import end_signal, joined
from providers.sdk.settings import MakeOffer, MemberSettings, offer_of_target

EXIT_FAILED = 1
EXIT_USAGE = 2
VARIABLES = frozenset(item.variable for item in declarations(ProcessSettings))
"""Of the environment: a process beside a node's is given that node's variables, its name among them."""


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for item in reversed(declarations(MemberSettings)):
        command = _option(item)(command)
    return command


def _option(item: Declaration) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    variable = f" [env: {item.variable}]" if item.variable in VARIABLES else ""
    return click.option(
        item.flag, item.name, metavar=item.metavar, multiple=item.repeated, help=item.help + variable
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("target", metavar="MODULE:CLASS|KIND")
@_options
def main(target: str, **flags: Any) -> None:
    """Offer a provider to a lattice, from a process of its own, until SIGTERM or Ctrl-C.

    MODULE:CLASS is a class of yours (the present folder is searched for the module); a KIND is one that comes
    with the lattice, such as keyvalue-redis.

    \b
    Examples:
      python -m providers.sdk greetings:Greeter --name greetings --set word=Moin
      python -m providers.sdk keyvalue-redis --name cache --set url=redis://127.0.0.1:6379
    """
    replace_closed()
    sys.path.insert(0, os.getcwd())
    try:
        environ = {key: value for key, value in os.environ.items() if key in VARIABLES}
        settings = load(MemberSettings, environ=environ, flags=flags)
        if settings.name is None:
            raise Invalid("a provider needs a name: give it --name NAME")
        make_offer = offer_of_target(target, settings)
    except Invalid as error:
        _fail([error], EXIT_USAGE)
    logs.configure(level=settings.log_level, format=settings.log_format, lattice=settings.lattice)
    errors: list[LatticeError] = []
    try:
        anyio.run(_run, settings, make_offer, backend_options={"use_uvloop": True})
    except* LatticeError as group:
        errors.extend(_leaves(group))
    if errors:
        _fail(errors, EXIT_FAILED)


async def _run(settings: MemberSettings, make_offer: MakeOffer) -> None:
    async with joined(settings, make_offer):
        await end_signal()


def _leaves(group: BaseExceptionGroup[LatticeError]) -> Iterable[LatticeError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _fail(errors: Iterable[LatticeError], code: int) -> NoReturn:
    for error in errors:
        click.echo(f"error: {error.message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
