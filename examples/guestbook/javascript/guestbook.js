// A guestbook: `POST` adds an entry, `GET .../N` gives the entry N, any other `GET` counts them.

import { createContainer } from 'wasi:blobstore/blobstore@0.2.0-draft';
import { IncomingValue, OutgoingValue } from 'wasi:blobstore/types@0.2.0-draft';
import { Fields, OutgoingBody, OutgoingResponse, ResponseOutparam } from 'wasi:http/types@0.2.0';
import { increment } from 'wasi:keyvalue/atomics@0.2.0-draft';
import { open } from 'wasi:keyvalue/store@0.2.0-draft';
import { publish } from 'wasmcloud:messaging/consumer@0.2.0';

const PIECE_BYTES = 4096;
const MOST_BYTES = 65536;
const EVERYTHING = 2n ** 63n - 1n;

const text = (bytes) => new TextDecoder().decode(bytes);
const bytes = (string) => new TextEncoder().encode(string);
const close = (resource) => resource[Symbol.dispose]();

// Why an import failed: some errors are texts, others variants, some of which have a text.
const reason = ({ payload }) => payload?.val ?? payload?.tag ?? payload;

function write(stream, data) {
  for (let start = 0; start < data.length; start += PIECE_BYTES)
    stream.blockingWriteAndFlush(data.subarray(start, start + PIECE_BYTES));
}

function keep(number, data) {
  const value = OutgoingValue.newOutgoingValue();
  createContainer('entries').writeData(`${number}`, value);
  const stream = value.outgoingValueWriteBody();
  write(stream, data);
  close(stream);
  OutgoingValue.finish(value);
}

function add(data) {
  const number = increment(open('default'), 'entries', 1n);
  keep(number, data);
  let doubt = '';
  try {
    publish({ subject: 'guestbook.entries', body: data });
  } catch (error) {
    doubt = `, but nobody was told: ${reason(error)}`;
  }
  return [201, bytes(`entry ${number}${doubt}\n`)];
}

function count() {
  const found = open('default').get('entries');
  return [200, bytes(`entries: ${found ? text(found) : 0}\n`)];
}

function entry(number) {
  const entries = createContainer('entries');
  if (!entries.hasObject(number)) return [404, bytes('there is no such entry\n')];
  return [200, IncomingValue.incomingValueConsumeSync(entries.getData(number, 0n, EVERYTHING))];
}

// Reads until the end, or until there is a byte too many.
function readStream(stream) {
  const room = new Uint8Array(MOST_BYTES + 1);
  let length = 0;
  try {
    while (length < room.length) {
      const piece = stream.blockingRead(BigInt(room.length - length));
      room.set(piece, length);
      length += piece.length;
    }
  } catch (error) {
    if (error.payload?.tag !== 'closed') throw error;
  }
  return room.subarray(0, length);
}

function readBody(request) {
  const body = request.consume();
  const stream = body.stream();
  const data = readStream(stream);
  close(stream);
  close(body);
  return data;
}

function post(request) {
  const data = readBody(request);
  return data.length <= MOST_BYTES ? add(data) : [413, bytes('an entry has at most 65536 bytes\n')];
}

function get(request) {
  const path = (request.pathWithQuery() ?? '').split('?')[0];
  const name = path.split('/').at(-1);
  return /^[0-9]+$/.test(name) ? entry(name) : count();
}

// The status and the text of the response.
function answerTo(request) {
  const method = request.method().tag;
  try {
    if (method === 'post') return post(request);
    if (method === 'get') return get(request);
  } catch (error) {
    return [503, bytes(`${reason(error) ?? error}\n`)];
  }
  return [405, bytes('use GET or POST\n')];
}

export const incomingHandler = {
  handle(request, responseOut) {
    const [status, data] = answerTo(request);
    const headers = new Fields();
    headers.append('content-type', bytes('text/plain; charset=utf-8'));
    const response = new OutgoingResponse(headers);
    response.setStatusCode(status);
    const body = response.body();
    ResponseOutparam.set(responseOut, { tag: 'ok', val: response });
    const stream = body.write();
    write(stream, data);
    close(stream);
    OutgoingBody.finish(body, undefined);
  },
};
