//! demo:greeter/greet in Rust, importing demo:kv/store.

use demo::kv::store;
use exports::demo::greeter::greet::Guest;

wit_bindgen::generate!({ path: "../wit", world: "greeter-kv", generate_all });

struct Greeter;

impl Guest for Greeter {
    fn hello(name: String) -> String {
        match store::get(&name) {
            Some(said) => format!("Hello, {name}! You said: {said}"),
            None => format!("Hello, {name}!"),
        }
    }
}

export!(Greeter);
