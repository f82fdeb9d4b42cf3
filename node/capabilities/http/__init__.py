"""HTTP for components: `wasi:http` as host functions, the client behind it, and handlers of requests."""

from node.capabilities.http.client import HttpClient, RequestOptions
from node.capabilities.http.connector import HttpClientSettings
from node.capabilities.http.errors import HttpError
from node.capabilities.http.host_handler import make_host_handler
from node.capabilities.http.interfaces import SUPPORT, HttpSettings, http_interfaces, is_builtin
from node.capabilities.http.policy import OutgoingPolicy

__all__ = [
    "SUPPORT",
    "HttpClient",
    "HttpClientSettings",
    "HttpError",
    "HttpSettings",
    "OutgoingPolicy",
    "RequestOptions",
    "http_interfaces",
    "is_builtin",
    "make_host_handler",
]
