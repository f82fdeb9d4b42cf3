"""The shim: WASI and `wasi:http` inside the sandbox, in C; `build.py` makes `shim.wasm` of it."""
