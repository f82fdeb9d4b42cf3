;; demo:greeter/greet in component text.
;;
;; The core module does the work on numbers and memory; the rest of the file says, in terms of the component
;; model, which of its functions is `hello` and how strings get in and out ("lifting").
(component
  (core module $Greeter
    (memory (export "memory") 1)
    (data (i32.const 16) "Hello, ")

    ;; The string that `hello` returns: address at 0, length at 4.
    (global $result i32 (i32.const 0))
    ;; The arena: everything above this address is free. `done` empties it.
    (global $arena-end (mut i32) (i32.const 1024))

    ;; The host allocates here whatever it passes in.
    (func $allocate (export "cabi_realloc")
      (param $old i32) (param $old-size i32) (param $alignment i32) (param $size i32) (result i32)
      (local $start i32)
      ;; start = (arena-end + alignment - 1) & -alignment
      (local.set $start
        (i32.and
          (i32.add (global.get $arena-end) (i32.sub (local.get $alignment) (i32.const 1)))
          (i32.sub (i32.const 0) (local.get $alignment))))
      (global.set $arena-end (i32.add (local.get $start) (local.get $size)))
      (call $reserve (global.get $arena-end))
      (local.get $start))

    ;; Grow memory until it reaches `end`, or trap.
    (func $reserve (param $end i32)
      (block $enough
        (loop $again
          (br_if $enough
            (i64.le_u
              (i64.extend_i32_u (local.get $end))
              (i64.mul (i64.extend_i32_u (memory.size)) (i64.const 65536))))
          (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
          unreachable)))

    (func (export "hello") (param $name i32) (param $length i32) (result i32)
      (local $text i32)
      (local.set $text
        (call $allocate
          (i32.const 0) (i32.const 0) (i32.const 1)
          (i32.add (local.get $length) (i32.const 8))))
      (memory.copy (local.get $text) (i32.const 16) (i32.const 7))
      (memory.copy (i32.add (local.get $text) (i32.const 7)) (local.get $name) (local.get $length))
      (i32.store8 offset=7 (i32.add (local.get $text) (local.get $length)) (i32.const 33)) ;; "!"
      (i32.store offset=0 (global.get $result) (local.get $text))
      (i32.store offset=4 (global.get $result) (i32.add (local.get $length) (i32.const 8)))
      (global.get $result))

    ;; Called by the host once it has read the result.
    (func (export "done") (param $result i32)
      (global.set $arena-end (i32.const 1024))))

  (core instance $greeter (instantiate $Greeter))
  (func $hello (param "name" string) (result string)
    (canon lift (core func $greeter "hello")
      (memory (core memory $greeter "memory"))
      (realloc (core func $greeter "cabi_realloc"))
      (post-return (core func $greeter "done"))))
  (instance $greet (export "hello" (func $hello)))
  (export "demo:greeter/greet" (instance $greet)))
