//! demo:greeter/greet in Zig.

const std = @import("std");

const allocator = std.heap.wasm_allocator;

/// A WIT `string`; as a result it is returned by address.
const String = extern struct { data: [*]u8, length: usize };

var greeting: String = undefined;

fn hello(data: [*]u8, length: usize) callconv(.c) *String {
    const name = data[0..length];
    defer allocator.free(name);
    const text = std.fmt.allocPrint(allocator, "Hello, {s}!", .{name}) catch @trap();
    greeting = .{ .data = text.ptr, .length = text.len };
    return &greeting;
}

/// Called by the host once it has read the result.
fn helloDone(result: *String) callconv(.c) void {
    allocator.free(result.data[0..result.length]);
}

/// The host allocates here whatever it passes in.
fn cabiRealloc(old: ?[*]u8, old_size: usize, alignment: usize, size: usize) callconv(.c) [*]u8 {
    if (size == 0) return @ptrFromInt(alignment);
    const block = if (old) |data| allocator.realloc(data[0..old_size], size) else allocator.alloc(u8, size);
    return (block catch @trap()).ptr;
}

comptime {
    @export(&hello, .{ .name = "demo:greeter/greet#hello" });
    @export(&helloDone, .{ .name = "cabi_post_demo:greeter/greet#hello" });
    @export(&cabiRealloc, .{ .name = "cabi_realloc" });
}
