"""Where the messages that guests are handling asked for a reply: only there may they send without a grant."""

from __future__ import annotations

from node.engine.host import GuestCall


class Replies:
    """The mutable state is the subject of each call that handles a message with one."""

    def __init__(self) -> None:
        self._subjects: dict[str, str] = {}

    def grant(self, call_id: str, subject: str) -> None:
        """Let the call of this id reply there, until `revoke`."""
        self._subjects[call_id] = subject

    def revoke(self, call_id: str) -> None:
        """The call has ended."""
        self._subjects.pop(call_id, None)

    def of(self, call: GuestCall) -> list[str]:
        """Where the call may reply."""
        subject = self._subjects.get(call.call_id)
        return [] if subject is None else [subject]
