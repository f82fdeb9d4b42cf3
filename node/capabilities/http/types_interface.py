"""`wasi:http/types`: the functions of the interface over the objects of the other modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from node.capabilities.http.allowance import allowance_of
from node.capabilities.http.errors import BodyFailed, HttpError
from node.capabilities.http.fields import Fields, HeaderError
from node.capabilities.http.messages import (
    IncomingResponse,
    OutgoingRequest,
    OutgoingResponse,
    TimeoutOptions,
)
from node.capabilities.http.outgoing_body import OutgoingBody
from node.capabilities.http.response_outparam import ResponseOutparam
from node.capabilities.wasi.io_interfaces import IoError, forget
from node.capabilities.wasi.pollables import Pollable, Watched
from node.engine.host import DropFunction, GuestCall, HostFunction, HostInterface

_OK: Any = {"ok": None}
_ERR: Any = {"err": None}
INFORMATIONAL = range(100, 200)


def types_interface(version: str) -> HostInterface:
    """The interface, which every component that speaks HTTP imports."""
    return HostInterface(
        name=f"wasi:http/types@{version}",
        functions={
            "http-error-code": _http_error_code,
            **_FIELDS,
            **_INCOMING,
            **_OUTGOING_REQUEST,
            **_OUTGOING_RESPONSE,
            **_BODIES,
            **_OPTIONS,
        },
        resources=_RESOURCES,
    )


# The shapes of host functions: each drops the call, which none of these needs


def _plain(method: Callable[..., Any]) -> HostFunction:
    return lambda call, *args: method(*args)


def _counted(method: Callable[..., Any]) -> HostFunction:
    """One that makes something which counts against the guest's allowance."""
    return lambda call, *args: method(*args, allowance=allowance_of(call.instance))


def _attribute(name: str) -> HostFunction:
    return lambda call, this: getattr(this, name)


def _once(method: Callable[[Any], Any]) -> HostFunction:
    """A method that gives an object the first time only: `result<T>`."""

    def function(call: GuestCall, this: Any) -> Any:
        found = method(this)
        return _ERR if found is None else {"ok": found}

    return function


def _setter(method: Callable[[Any, Any], bool]) -> HostFunction:
    """A method that says whether it took the value: `result`."""
    return lambda call, this, value: _OK if method(this, value) else _ERR


def _header(operation: Callable[..., Any]) -> HostFunction:
    """An operation that raises `HeaderError`: `result<T, header-error>`."""

    def function(call: GuestCall, *args: Any) -> Any:
        try:
            return {"ok": operation(*args)}
        except HeaderError as error:
            return {"err": {error.case: None}}

    return function


def _subscribe(call: GuestCall, source: Watched) -> Pollable:
    return source.subscribe()


def _http_error_code(call: GuestCall, error: IoError) -> Any:
    cause = error.cause
    return cause.error.error_code if isinstance(cause, BodyFailed) else None


def _fields_from_list(call: GuestCall, entries: Any) -> Any:
    try:
        return {"ok": Fields.from_list(entries, allowance_of(call.instance))}
    except HeaderError as error:
        return {"err": {error.case: None}}


_FIELDS: Mapping[str, HostFunction] = {
    "[constructor]fields": _counted(Fields),
    "[static]fields.from-list": _fields_from_list,
    "[method]fields.get": _plain(Fields.get),
    "[method]fields.has": _plain(Fields.has),
    "[method]fields.set": _header(Fields.set),
    "[method]fields.delete": _header(Fields.delete),
    "[method]fields.append": _header(Fields.append),
    "[method]fields.entries": _plain(Fields.headers),
    "[method]fields.clone": _counted(Fields.clone),
}

_INCOMING: Mapping[str, HostFunction] = {
    "[method]incoming-request.method": _attribute("method"),
    "[method]incoming-request.path-with-query": _attribute("path"),
    "[method]incoming-request.scheme": _attribute("scheme"),
    "[method]incoming-request.authority": _attribute("authority"),
    "[method]incoming-request.headers": _attribute("headers"),
    "[method]incoming-request.consume": _once(lambda request: request.consume()),
    "[method]incoming-response.status": _attribute("status"),
    "[method]incoming-response.headers": _attribute("headers"),
    "[method]incoming-response.consume": _once(IncomingResponse.consume),
    "[method]future-incoming-response.subscribe": _subscribe,
    "[method]future-incoming-response.get": _plain(lambda future: future.get()),
}

_OUTGOING_REQUEST: Mapping[str, HostFunction] = {
    "[constructor]outgoing-request": _counted(OutgoingRequest),
    "[method]outgoing-request.body": _once(OutgoingRequest.body),
    "[method]outgoing-request.method": _attribute("method"),
    "[method]outgoing-request.set-method": _setter(OutgoingRequest.set_method),
    "[method]outgoing-request.path-with-query": _attribute("path"),
    "[method]outgoing-request.set-path-with-query": _setter(OutgoingRequest.set_path),
    "[method]outgoing-request.scheme": _attribute("scheme"),
    "[method]outgoing-request.set-scheme": _setter(OutgoingRequest.set_scheme),
    "[method]outgoing-request.authority": _attribute("authority"),
    "[method]outgoing-request.set-authority": _setter(OutgoingRequest.set_authority),
    "[method]outgoing-request.headers": _attribute("headers"),
}


def _set_response(call: GuestCall, outparam: ResponseOutparam, response: Any) -> None:
    ((case, value),) = response.items()
    if case == "ok":
        outparam.set(value)
    else:
        ((code, payload),) = value.items()
        outparam.refuse(HttpError(code, payload, reason="the component answered with this error"))


def _send_informational(call: GuestCall, outparam: ResponseOutparam, status: int, headers: Fields) -> Any:
    """None is passed on, which is what the interface has `internal-error` for."""
    if status not in INFORMATIONAL:
        return {"err": {"HTTP-protocol-error": None}}
    return {"err": {"internal-error": "informational responses are not passed on"}}


_OUTGOING_RESPONSE: Mapping[str, HostFunction] = {
    "[constructor]outgoing-response": _counted(OutgoingResponse),
    "[method]outgoing-response.status-code": _attribute("status"),
    "[method]outgoing-response.set-status-code": _setter(OutgoingResponse.set_status),
    "[method]outgoing-response.headers": _attribute("headers"),
    "[method]outgoing-response.body": _once(OutgoingResponse.body),
    "[static]response-outparam.set": _set_response,
    "[method]response-outparam.send-informational": _send_informational,
}


def _finish_outgoing(call: GuestCall, body: OutgoingBody, trailers: Fields | None) -> Any:
    try:
        body.finish(trailers)
    except HttpError as error:
        return {"err": error.error_code}
    return _OK


_BODIES: Mapping[str, HostFunction] = {
    "[method]incoming-body.stream": _once(lambda body: body.stream()),
    "[static]incoming-body.finish": _plain(lambda body: body.finish()),
    "[method]future-trailers.subscribe": _subscribe,
    "[method]future-trailers.get": _plain(lambda future: future.get()),
    "[method]outgoing-body.write": _once(OutgoingBody.write),
    "[static]outgoing-body.finish": _finish_outgoing,
}


def _timeout(name: str) -> tuple[HostFunction, HostFunction]:
    def set_(call: GuestCall, options: TimeoutOptions, duration: int | None) -> Any:
        setattr(options, name, duration)
        return _OK

    return _attribute(name), set_


def _options() -> dict[str, HostFunction]:
    functions: dict[str, HostFunction] = {"[constructor]request-options": lambda call: TimeoutOptions()}
    for name in ("connect", "first-byte", "between-bytes"):
        get, set_ = _timeout(name.replace("-", "_"))
        functions[f"[method]request-options.{name}-timeout"] = get
        functions[f"[method]request-options.set-{name}-timeout"] = set_
    return functions


_OPTIONS: Mapping[str, HostFunction] = _options()


def _close(call: GuestCall, this: Any) -> None:
    this.close()


_RESOURCES: Mapping[str, DropFunction] = {
    "fields": forget,
    "incoming-request": forget,
    "incoming-response": _close,
    "incoming-body": _close,
    "future-trailers": _close,
    "outgoing-request": _close,
    "outgoing-response": _close,
    "outgoing-body": _close,
    "response-outparam": forget,
    "future-incoming-response": _close,
    "request-options": forget,
}
