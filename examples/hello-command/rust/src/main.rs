//! A command: says what it was given, sleeps, and says how long that took.
//! HELLO_SLEEP_MS: how long to sleep (100); HELLO_FAIL=1: ends with an error.

use std::collections::HashMap;
use std::env;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

fn main() -> ExitCode {
    for (index, argument) in env::args().enumerate() {
        println!("argument {index}: {argument}");
    }
    // A map is seeded with random numbers of the host's.
    let variables: HashMap<String, String> = env::vars().collect();
    for (name, value) in &variables {
        println!("environment: {name}={value}");
    }
    let is_plausible =
        SystemTime::now() > SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    println!("time: {}", if is_plausible { "plausible" } else { "wrong" });

    let milliseconds = variables
        .get("HELLO_SLEEP_MS")
        .and_then(|text| text.parse().ok())
        .unwrap_or(100);
    let start = Instant::now();
    sleep(Duration::from_millis(milliseconds));
    eprintln!("slept {} ms", start.elapsed().as_millis());

    if variables.contains_key("HELLO_FAIL") {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
