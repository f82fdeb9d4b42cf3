"""`latticectl version`."""

from __future__ import annotations

from ctl.command import command, session_of
from ctl.session import Session

PACKAGE = "lattice-runtime"


@command()
@session_of
def version(session: Session) -> None:
    """Print the version of latticectl; `get nodes` shows those of the nodes.

    \b
    Examples:
      latticectl version
      latticectl version --output json
    """
    import platform
    from importlib import metadata

    from ctl.models import Version
    from lattice.subjects import WIRE_VERSION

    found = Version(version=metadata.version(PACKAGE), python=platform.python_version(), wire=WIRE_VERSION)
    text = f"latticectl {found.version} (wire protocol {found.wire}, Python {found.python})"
    session.output.item(found, lambda: text)
