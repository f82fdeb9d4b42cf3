"""Messages to a broker: the flat interface `lattice:messaging/consumer`, and NATS behind it."""

from providers.messaging.grants import PublishGrant
from providers.messaging.nats import INTERFACE, MessagingNats

__all__ = ["INTERFACE", "MessagingNats", "PublishGrant"]
