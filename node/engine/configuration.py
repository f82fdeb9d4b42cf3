"""How the engine is configured; what wasmtime-py has no setting for is set through its C API."""

from __future__ import annotations

from dataclasses import dataclass

import wasmtime
from wasmtime import _ffi as ffi

KIBIBYTE = 1 << 10
MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30

# Of each there may be several in one instance of a component; these are the averages the totals are sized
# for. A total costs address space only. Memories: the guest's, and the shim's or the byte adapter's, or both.
CORE_INSTANCES_PER_INSTANCE = 16
MEMORIES_PER_INSTANCE = 3
TABLES_PER_INSTANCE = 4


MAX_ADDRESS_SPACE_BYTES = 84 << 40
"""Of the 128 TiB that a process has: its code lies at two thirds, and the pool must be in one piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an engine is made of. Only the two stack sizes and the features below shape compiled code."""

    max_instances: int = 1000
    """Sandboxes that may exist at once, prewarmed ones included."""
    memory_keep_resident_bytes: int = 64 * KIBIBYTE
    """Kept mapped when a sandbox ends and zeroed by hand: cheaper than returning pages that are in use.

    Small guests have no more; what larger ones have behind is the unused part of their stack.
    """
    wasm_stack_bytes: int = 512 * KIBIBYTE
    fiber_stack_bytes: int = 2 * MEBIBYTE
    """The stack of a call, on which Python's host callbacks run too, below the part that wasm may use."""
    is_pooling: bool = True
    """False for a process that only compiles: the code is the same, without address space for sandboxes."""


def address_space_bytes(settings: EngineSettings) -> int:
    """What an engine reserves, though it uses little of it; wasmtime aborts the process if it can't."""
    sizes = _pool_sizes(settings)
    memory = sizes["max_memory_size"] + 64 * MEBIBYTE  # with its guards
    stack = settings.fiber_stack_bytes + 64 * KIBIBYTE
    return sizes["total_memories"] * memory + sizes["total_stacks"] * stack


def make_engine(settings: EngineSettings) -> wasmtime.Engine:
    """An engine whose compiled code every other engine made here can load."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.wasm_threads = False  # an atomic wait would block the event loop
    pointer = config.ptr()
    ffi.wasmtime_config_max_wasm_stack_set(pointer, settings.wasm_stack_bytes)
    ffi.wasmtime_config_async_stack_size_set(pointer, settings.fiber_stack_bytes)
    ffi.wasmtime_config_memory_init_cow_set(pointer, True)
    # Both off halve a warm call; nothing of WASI 0.2 needs them.
    ffi.wasmtime_config_wasm_component_model_async_set(pointer, False)
    ffi.wasmtime_config_concurrency_support_set(pointer, False)
    if settings.is_pooling:
        _use_pooling_allocator(pointer, settings)
    return wasmtime.Engine(config)


def _use_pooling_allocator(config: object, settings: EngineSettings) -> None:
    pool = ffi.wasmtime_pooling_allocation_config_new()
    for name, value in _pool_sizes(settings).items():
        getattr(ffi, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
    ffi.wasmtime_pooling_allocation_strategy_set(config, pool)
    ffi.wasmtime_pooling_allocation_config_delete(pool)


def _pool_sizes(settings: EngineSettings) -> dict[str, int]:
    spare = settings.max_instances + 64
    return {
        "total_component_instances": spare,
        "total_core_instances": spare * CORE_INSTANCES_PER_INSTANCE,
        "total_memories": spare * MEMORIES_PER_INSTANCE,
        "total_tables": spare * TABLES_PER_INSTANCE,
        "total_stacks": spare,
        "total_gc_heaps": spare,
        # Per component: above what real toolchains produce; the store limiter applies the user's limits.
        "max_memory_size": 4 * GIBIBYTE,
        "max_core_instance_size": MEBIBYTE,
        "max_component_instance_size": MEBIBYTE,
        "max_core_instances_per_component": 256,
        "max_memories_per_component": 20,
        "max_tables_per_component": 40,
        # A fused module has those of the whole component.
        "max_memories_per_module": 20,
        "max_tables_per_module": 40,
        "table_elements": 20_000,
        # What is beyond goes back to the kernel for several sandboxes at a time: each time costs all threads
        # what the processor knows of addresses. So many regions, of some dozen sandboxes, wait for that.
        "decommit_batch_size": 32,
        "linear_memory_keep_resident": settings.memory_keep_resident_bytes,
        "table_keep_resident": 4 * KIBIBYTE,
    }
