"""A guestbook: `POST` adds an entry, `GET .../N` gives one of them, any other `GET` counts them."""

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import atomics, blobstore, consumer, store
from wit_world.imports import wasmcloud_messaging_types as messages
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.wasi_blobstore_types import IncomingValue, OutgoingValue
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingRequest,
    Method_Get,
    Method_Post,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

PIECE_BYTES = 4096
MOST_BYTES = 65536
EVERYTHING = 2**63 - 1


def reason(error: Err) -> str:
    """Why it failed: some errors are texts, others variants, some of which have a text."""
    return str(getattr(error.value, "value", error.value))


def write(stream, data: bytes) -> None:
    for start in range(0, len(data), PIECE_BYTES):
        stream.blocking_write_and_flush(data[start : start + PIECE_BYTES])


def take_number() -> int:
    with store.open("default") as bucket:
        return atomics.increment(bucket, "entries", 1)


def keep(number: int, text: bytes) -> None:
    value = OutgoingValue.new_outgoing_value()
    with blobstore.create_container("entries") as entries:
        entries.write_data(str(number), value)
        with value.outgoing_value_write_body() as body:
            write(body, text)
    OutgoingValue.finish(value)  # takes the value: it is not closed besides


def add(text: bytes) -> tuple[int, bytes]:
    number = take_number()
    keep(number, text)
    doubt = ""
    try:
        consumer.publish(messages.BrokerMessage("guestbook.entries", text, None))
    except Err as error:
        doubt = f", but nobody was told: {reason(error)}"
    return 201, f"entry {number}{doubt}\n".encode()


def count() -> tuple[int, bytes]:
    with store.open("default") as bucket:
        found = bucket.get("entries")
    return 200, b"entries: %s\n" % (found or b"0")


def entry(number: str) -> tuple[int, bytes]:
    with blobstore.create_container("entries") as entries:
        if not entries.has_object(number):
            return 404, b"there is no such entry\n"
        value = entries.get_data(number, 0, EVERYTHING)
        return 200, IncomingValue.incoming_value_consume_sync(value)


def read_body(request: IncomingRequest) -> bytes:
    """The request's body, or the part of it that is a byte too long."""
    text = b""
    with request.consume() as body, body.stream() as stream:
        try:
            while len(text) <= MOST_BYTES:
                text += stream.blocking_read(MOST_BYTES + 1 - len(text))
        except Err as error:
            if not isinstance(error.value, StreamError_Closed):
                raise
    return text


def post(request: IncomingRequest) -> tuple[int, bytes]:
    text = read_body(request)
    return add(text) if len(text) <= MOST_BYTES else (413, b"an entry has at most 65536 bytes\n")


def get(request: IncomingRequest) -> tuple[int, bytes]:
    path = (request.path_with_query() or "").partition("?")[0]
    name = path.rpartition("/")[2]
    return entry(name) if name.isascii() and name.isdigit() else count()


def answer_to(request: IncomingRequest) -> tuple[int, bytes]:
    """The status and the text of the response."""
    method = request.method()
    try:
        if isinstance(method, Method_Post):
            return post(request)
        if isinstance(method, Method_Get):
            return get(request)
    except Err as error:
        return 503, f"{reason(error)}\n".encode()
    return 405, b"use GET or POST\n"


class IncomingHandler(exports.IncomingHandler):
    """Implements `wasi:http/incoming-handler`."""

    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        status, text = answer_to(request)
        headers = Fields()
        headers.append("content-type", b"text/plain; charset=utf-8")
        response = OutgoingResponse(headers)
        response.set_status_code(status)
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            write(stream, text)
        OutgoingBody.finish(body, None)
