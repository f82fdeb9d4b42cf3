;; Everything that a component should not do, for demonstrations and tests of the limits that hold it.
;;
;; package demo:misbehave;
;; interface acts {
;;   spin: func();                       loops for ever
;;   trap: func();                       executes an unreachable instruction
;;   recurse: func();                    exhausts the stack
;;   grow: func(pages: u32) -> bool;     asks for that many pages of 64 KiB: did it get them?
;;   bump: func() -> u32;                counts its calls in this instance: 1, 2, 3, ...
;;   fib: func(n: u32) -> u64;           keeps a core busy: about 1.6 times longer for each next n
;;   devour: func() -> u32;              takes memory until it gets no more: how many pages it has then
;; }
(component
  (core module $Misbehave
    (memory 1)
    (global $calls (mut i32) (i32.const 0))

    (func (export "spin")
      (loop $forever (br $forever)))

    (func (export "trap")
      unreachable)

    (func $recurse (export "recurse")
      (call $recurse)
      (global.set $calls (i32.const 0))) ;; not a tail call, which would need no stack

    (func (export "grow") (param $pages i32) (result i32)
      (i32.ne (memory.grow (local.get $pages)) (i32.const -1)))

    (func (export "bump") (result i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (global.get $calls))

    (func $fib (export "fib") (param $n i32) (result i64)
      (if (result i64) (i32.lt_u (local.get $n) (i32.const 2))
        (then (i64.extend_i32_u (local.get $n)))
        (else
          (i64.add
            (call $fib (i32.sub (local.get $n) (i32.const 1)))
            (call $fib (i32.sub (local.get $n) (i32.const 2)))))))

    (func (export "devour") (result i32)
      (block $refused
        (loop $again
          (br_if $refused (i32.eq (memory.grow (i32.const 16)) (i32.const -1)))
          (br $again)))
      (memory.size)))

  (core instance $core (instantiate $Misbehave))
  (func $spin (canon lift (core func $core "spin")))
  (func $trap (canon lift (core func $core "trap")))
  (func $recurse (canon lift (core func $core "recurse")))
  (func $grow (param "pages" u32) (result bool) (canon lift (core func $core "grow")))
  (func $bump (result u32) (canon lift (core func $core "bump")))
  (func $fib (param "n" u32) (result u64) (canon lift (core func $core "fib")))
  (func $devour (result u32) (canon lift (core func $core "devour")))
  (instance $acts
    (export "spin" (func $spin))
    (export "trap" (func $trap))
    (export "recurse" (func $recurse))
    (export "grow" (func $grow))
    (export "bump" (func $bump))
    (export "fib" (func $fib))
    (export "devour" (func $devour)))
  (export "demo:misbehave/acts" (instance $acts)))
