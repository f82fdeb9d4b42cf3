"""To which subjects a component may send."""

from __future__ import annotations

import pytest

from lattice.errors import Denied, Invalid, LatticeError
from providers.messaging.grants import PublishGrant

GRANT = PublishGrant.parse({"publish": "orders.*, stock.>"})


@pytest.mark.parametrize("subject", ["orders.new", "stock.a", "stock.a.b"])
def test_what_the_link_grants_is_open(subject: str) -> None:
    GRANT.check(subject)


@pytest.mark.parametrize(
    "subject", ["orders", "orders.new.old", "stock", "lattice.1.x.control.deploy", "_INBOX.a"]
)
def test_what_it_does_not_grant_is_denied(subject: str) -> None:
    with pytest.raises(LatticeError):
        GRANT.check(subject)


def test_where_a_message_asked_for_a_reply_needs_no_grant() -> None:
    GRANT.check("_INBOX.abc.1", ["_INBOX.abc.1"])
    GRANT.check("answers.1", ["answers.1"])
    with pytest.raises(Denied, match=r"configure it with `publish=answers\.2`"):
        GRANT.check("answers.2", ["answers.1"])


@pytest.mark.parametrize("subject", ["lattice.1.default.node.N.order", "$JS.API.INFO", "*", ">"])
def test_a_reply_never_goes_to_the_lattice_or_the_server_whoever_says_that_it_was_asked_for(
    subject: str,
) -> None:
    with pytest.raises(Invalid):
        GRANT.check(subject, [subject])
