# Where the compilers are. Each can be given: `make ZIG=zig COMPONENT_LD=wasm-component-ld`.

TOOLS := $(abspath $(dir $(lastword $(MAKEFILE_LIST))))

# Python with the packages `wasmtime` and `ziglang`: the repository's environment, else the one in PATH.
PYTHON ?= $(firstword $(wildcard $(TOOLS)/../../.venv/bin/python) python3)
ZIG ?= $(PYTHON) -m ziglang
WASM_TARGET := -target wasm32-freestanding -mcpu=mvp+bulk_memory

# Every Rust toolchain installed by rustup brings the linker that turns object files into a component.
RUST_TOOLS ?= $(abspath $(shell rustc --print target-libdir)/../bin)
COMPONENT_LD ?= $(RUST_TOOLS)/wasm-component-ld --wasm-ld-path $(RUST_TOOLS)/gcc-ld/wasm-ld
LINK_FLAGS := --wasi-adapter none --no-entry --strip-all --stack-first -z stack-size=16384
