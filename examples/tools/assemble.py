"""Assemble component text: `python assemble.py greeter.wat greeter.wasm`. Needs the package `wasmtime`."""

import sys
from pathlib import Path

import wasmtime

source, target = (Path(argument) for argument in sys.argv[1:])
Path(target).write_bytes(wasmtime.wat2wasm(source.read_text()))
