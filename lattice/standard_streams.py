"""The standard streams of a program whose starter closed some: the null device takes their place."""

from __future__ import annotations

import os
import sys


def replace_closed() -> None:
    """To be called before anything is opened, as the first connection would get a closed stream's number.

    What the program prints would then go to its server, and what the server says be its input.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # the lowest number is given first
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # open to the end
