"""Capability providers: plain values in, plain values out; no WebAssembly, no node."""
