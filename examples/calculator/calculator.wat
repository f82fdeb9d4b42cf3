;; A calculator: two functions, one of which can answer with an error.
;;
;; package demo:calculator;
;; interface calculate {
;;   add: func(a: s32, b: s32) -> s32;                       wraps around
;;   divide: func(a: s32, b: s32) -> result<s32, string>;    "division by zero", "the quotient is out of range"
;; }
(component
  (core module $Calculator
    (memory (export "memory") 1)
    (data (i32.const 16) "division by zero")
    (data (i32.const 32) "the quotient is out of range")

    ;; The result<s32, string> that `divide` returns: case at 0 (0: ok, 1: err), then the number at 4,
    ;; or the text's address at 4 and its length at 8.
    (global $result i32 (i32.const 0))

    (func (export "add") (param $a i32) (param $b i32) (result i32)
      (i32.add (local.get $a) (local.get $b)))

    (func (export "divide") (param $a i32) (param $b i32) (result i32)
      (if (i32.eqz (local.get $b))
        (then (return (call $fail (i32.const 16) (i32.const 16)))))
      (if (i32.and
            (i32.eq (local.get $a) (i32.const -2147483648))
            (i32.eq (local.get $b) (i32.const -1)))
        (then (return (call $fail (i32.const 32) (i32.const 28)))))
      (i32.store8 offset=0 (global.get $result) (i32.const 0))
      (i32.store offset=4 (global.get $result) (i32.div_s (local.get $a) (local.get $b)))
      (global.get $result))

    (func $fail (param $text i32) (param $length i32) (result i32)
      (i32.store8 offset=0 (global.get $result) (i32.const 1))
      (i32.store offset=4 (global.get $result) (local.get $text))
      (i32.store offset=8 (global.get $result) (local.get $length))
      (global.get $result)))

  (core instance $core (instantiate $Calculator))
  (func $add (param "a" s32) (param "b" s32) (result s32)
    (canon lift (core func $core "add")))
  (func $divide (param "a" s32) (param "b" s32) (result (result s32 (error string)))
    (canon lift (core func $core "divide") (memory (core memory $core "memory"))))
  (instance $calculate
    (export "add" (func $add))
    (export "divide" (func $divide)))
  (export "demo:calculator/calculate" (instance $calculate)))
