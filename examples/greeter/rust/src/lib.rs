//! demo:greeter/greet in Rust.

use exports::demo::greeter::greet::Guest;

wit_bindgen::generate!({ path: "../wit", world: "greeter" });

struct Greeter;

impl Guest for Greeter {
    fn hello(name: String) -> String {
        format!("Hello, {name}!")
    }
}

export!(Greeter);
