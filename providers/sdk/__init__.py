"""A provider as a process of its own: any interface, served by a Python class, for the whole lattice.

async with offering(Greeter, name="greeter"):   # or: python -m providers.sdk greeter:Greeter --name greeter
    ...
"""

from providers.provider import BoundLink, Provider, ProviderCall, Secret, Streamed
from providers.sdk.member import Member
from providers.sdk.serve import offering, serve
from providers.sdk.settings import MemberSettings

__all__ = [
    "BoundLink",
    "Member",
    "MemberSettings",
    "Provider",
    "ProviderCall",
    "Secret",
    "Streamed",
    "offering",
    "serve",
]
