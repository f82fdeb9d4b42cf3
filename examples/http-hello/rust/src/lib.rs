//! wasi:http/incoming-handler in Rust: greets, and says which path was asked for.

use crate::exports::wasi::http::incoming_handler::Guest;
use crate::wasi::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

wit_bindgen::generate!({ path: "../wit", world: "http-hello", generate_all });

struct Hello;

impl Guest for Hello {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_else(|| "/".to_string());
        let headers = Fields::new();
        headers.append("content-type", b"text/plain").expect("a valid header");
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("the body was not taken before");
        ResponseOutparam::set(outparam, Ok(response));

        let stream = body.write().expect("the stream was not taken before");
        let text = format!("Hello from Rust: {path}\n");
        for part in text.as_bytes().chunks(4096) {
            stream.blocking_write_and_flush(part).expect("somebody reads it");
        }
        drop(stream);
        OutgoingBody::finish(body, None).expect("the body is whole");
    }
}

export!(Hello);
