;; The memory of the shim, and what must exist before the module that uses it does: the allocator, which the
;; host's answers need, and the destructor of resources, which their types need.
;;
;; The arena grows upwards from the end of the shim's static data and the table of handles; scratch is a piece of
;; the arena. How both are used stands in shim.h.
(module
  (memory (export "memory") 1)

  ;; Static data and stack of the shim lie below 16384 (build.py checks it), the first table of handles below 18432.
  (global $base (mut i32) (i32.const 18432))
  (global $end (mut i32) (i32.const 18432))
  (global $newest (mut i32) (i32.const 0))
  (global $scratch (mut i32) (i32.const 0))
  (global $scratch-next (mut i32) (i32.const 0))
  (global $scratch-end (mut i32) (i32.const 0))
  ;; Objects at or above $base that the guest has handles to.
  (global $living (mut i32) (i32.const 0))

  (func $aligned (param $address i32) (result i32)
    (i32.and (i32.add (local.get $address) (i32.const 7)) (i32.const -8)))

  (func $reach (param $to i32)
    (local $missing i32)
    (local.set $missing
      (i32.sub
        (i32.wrap_i64
          (i64.shr_u (i64.add (i64.extend_i32_u (local.get $to)) (i64.const 65535)) (i64.const 16)))
        (memory.size)))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then (call $memory-is-used-up))))))

  ;; A name of its own, so that it shows in the trap's backtrace.
  (func $memory-is-used-up unreachable)

  ;; The arena

  (func $allocate (export "allocate") (param $size i32) (result i32)
    (local $start i32) (local $to i32)
    (local.set $start (call $aligned (global.get $end)))
    (local.set $to (i32.add (local.get $start) (local.get $size)))
    (if (i32.lt_u (local.get $to) (local.get $start)) (then (call $memory-is-used-up)))
    (call $reach (local.get $to))
    (global.set $end (local.get $to))
    (global.set $newest (local.get $start))
    (local.get $start))

  ;; The newest block grows where it is.
  (func (export "resize") (param $old i32) (param $old-size i32) (param $size i32) (result i32)
    (local $start i32) (local $to i32)
    (if (i32.and (i32.ne (local.get $old) (i32.const 0)) (i32.eq (local.get $old) (global.get $newest)))
      (then
        (local.set $to (i32.add (local.get $old) (local.get $size)))
        (if (i32.lt_u (local.get $to) (local.get $old)) (then (call $memory-is-used-up)))
        (call $reach (local.get $to))
        (global.set $end (local.get $to))
        (return (local.get $old))))
    (local.set $start (call $allocate (local.get $size)))
    (memory.copy (local.get $start) (local.get $old) (local.get $old-size))
    (local.get $start))

  ;; Scratch

  (func $scratch (export "scratch") (param $size i32) (result i32)
    (local $start i32) (local $capacity i32)
    (local.set $start (call $aligned (global.get $scratch-next)))
    (if (i32.or (i32.gt_u (local.get $start) (global.get $scratch-end))
                (i32.gt_u (local.get $size) (i32.sub (global.get $scratch-end) (local.get $start))))
      (then
        ;; What the smaller piece holds stays readable; the piece itself is lost until the arena is emptied.
        (local.set $capacity
          (i32.shl (i32.sub (global.get $scratch-end) (global.get $scratch)) (i32.const 1)))
        (if (i32.lt_u (local.get $capacity) (i32.const 4096)) (then (local.set $capacity (i32.const 4096))))
        (if (i32.lt_u (local.get $capacity) (local.get $size)) (then (local.set $capacity (local.get $size))))
        (local.set $start (call $allocate (local.get $capacity)))
        (global.set $scratch (local.get $start))
        (global.set $scratch-end (i32.add (local.get $start) (local.get $capacity)))))
    (global.set $scratch-next (i32.add (local.get $start) (local.get $size)))
    (local.get $start))

  (func $release (export "release") (global.set $scratch-next (global.get $scratch)))

  ;; What is in scratch belongs to the arena from now on.
  (func (export "keep")
    (global.set $scratch (call $aligned (global.get $scratch-next)))
    (if (i32.gt_u (global.get $scratch) (global.get $scratch-end))
      (then (global.set $scratch (global.get $scratch-end))))
    (global.set $scratch-next (global.get $scratch)))

  ;; Of the canonical ABI: arguments and answers go to scratch, and are released when a function has returned.

  (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32)
    (result i32)
    (local $start i32)
    (if (i32.and (i32.ge_u (local.get $old-size) (local.get $size)) (i32.ne (local.get $old) (i32.const 0)))
      (then (return (local.get $old))))
    (local.set $start (call $scratch (local.get $size)))
    (memory.copy (local.get $start) (local.get $old) (local.get $old-size))
    (local.get $start))

  (func (export "done") (call $release))
  (func (export "done-i32") (param i32) (call $release))

  ;; Objects begin with: how many children live, the parent's address, whether the guest has dropped it.

  (func (export "count") (global.set $living (i32.add (global.get $living) (i32.const 1))))

  (func $dropped (export "dropped") (param $object i32)
    (local $parent i32)
    (if (i32.load (local.get $object)) (then (call $a-resource-was-dropped-before-its-children)))
    (i32.store offset=8 (local.get $object) (i32.const 1))
    (local.set $parent (i32.load offset=4 (local.get $object)))
    (if (local.get $parent)
      (then (i32.store (local.get $parent) (i32.sub (i32.load (local.get $parent)) (i32.const 1)))))
    (if (i32.ge_u (local.get $object) (global.get $base))
      (then (global.set $living (i32.sub (global.get $living) (i32.const 1))))))

  (func $a-resource-was-dropped-before-its-children unreachable)

  ;; Handles, where the component model does not keep them: the indexes of a table whose entries are an object's
  ;; address and the number of its type. A free entry has the type 0 and, instead of an address, the next free one.
  ;; In a guest that has handles of the host's too, ours have a bit set that no index of the component model has
  ;; (their limit is 2^28): so a handle tells by itself who made it. mixed_bridge.py puts the bit here.
  (global $mark i32 (i32.const 0))
  (global $handles (mut i32) (i32.const 16384))
  (global $handles-room (mut i32) (i32.const 256))
  (global $handles-used (mut i32) (i32.const 1)) ;; 0 is no handle
  (global $handles-free (mut i32) (i32.const 0))
  (global $handles-moved (mut i32) (i32.const 0))

  (func $handle-new (export "handle-new") (param $object i32) (param $type i32) (result i32)
    (local $handle i32) (local $entry i32)
    (local.set $handle (global.get $handles-free))
    (if (local.get $handle)
      (then
        (local.set $entry (call $entry-of (local.get $handle)))
        (global.set $handles-free (i32.load (local.get $entry))))
      (else
        (if (i32.eq (global.get $handles-used) (global.get $handles-room)) (then (call $more-handles)))
        (local.set $handle (global.get $handles-used))
        (global.set $handles-used (i32.add (local.get $handle) (i32.const 1)))
        (local.set $entry (call $entry-of (local.get $handle)))))
    (i32.store (local.get $entry) (local.get $object))
    (i32.store offset=4 (local.get $entry) (local.get $type))
    (i32.or (local.get $handle) (global.get $mark)))

  (func $entry-of (param $index i32) (result i32)
    (i32.add (global.get $handles) (i32.shl (local.get $index) (i32.const 3))))

  ;; Twice as large, in the arena, which keeps it.
  (func $more-handles
    (local $bytes i32) (local $larger i32)
    (local.set $bytes (i32.shl (global.get $handles-room) (i32.const 3)))
    (local.set $larger (call $allocate (i32.shl (local.get $bytes) (i32.const 1))))
    (memory.copy (local.get $larger) (global.get $handles) (local.get $bytes))
    (global.set $handles (local.get $larger))
    (global.set $handles-room (i32.shl (global.get $handles-room) (i32.const 1)))
    (global.set $handles-moved (i32.const 1)))

  (func $known-entry (param $handle i32) (param $type i32) (result i32)
    (local $entry i32) (local $index i32)
    (local.set $index (i32.xor (local.get $handle) (global.get $mark)))
    (if (i32.ge_u (local.get $index) (global.get $handles-used)) (then (call $a-handle-is-unknown)))
    (local.set $entry (call $entry-of (local.get $index)))
    (if (i32.or (i32.eqz (local.get $index))
                (i32.ne (i32.load offset=4 (local.get $entry)) (local.get $type)))
      (then (call $a-handle-is-unknown)))
    (local.get $entry))

  (func $a-handle-is-unknown unreachable)

  (func $handle-object (export "handle-object") (param $handle i32) (param $type i32) (result i32)
    (i32.load (call $known-entry (local.get $handle) (local.get $type))))

  (func $forget-handle (param $handle i32) (param $entry i32)
    (i32.store (local.get $entry) (global.get $handles-free))
    (i32.store offset=4 (local.get $entry) (i32.const 0))
    (global.set $handles-free (i32.xor (local.get $handle) (global.get $mark))))

  ;; Handed over: who had it can't use it any more. The new one is made first, so that it is another.
  (func (export "handle-moved") (param $handle i32) (param $type i32) (result i32)
    (local $new i32)
    (local.set $new
      (call $handle-new (call $handle-object (local.get $handle) (local.get $type)) (local.get $type)))
    (call $forget-handle (local.get $handle) (call $known-entry (local.get $handle) (local.get $type)))
    (local.get $new))

  (func (export "handle-drop") (param $handle i32) (param $type i32)
    (local $entry i32) (local $object i32)
    (local.set $entry (call $known-entry (local.get $handle) (local.get $type)))
    (local.set $object (i32.load (local.get $entry)))
    (call $forget-handle (local.get $handle) (local.get $entry))
    (call $dropped (local.get $object)))

  ;; The arena is emptied, unless something lives on that was made in this request: then it stays, and the next
  ;; request begins behind it.
  (func (export "end")
    (if (i32.or (global.get $living) (global.get $handles-moved))
      (then (global.set $base (call $aligned (global.get $end)))))
    (global.set $living (i32.const 0))
    (global.set $handles-moved (i32.const 0))
    (global.set $end (global.get $base))
    (global.set $newest (i32.const 0))
    (global.set $scratch (i32.const 0))
    (global.set $scratch-next (i32.const 0))
    (global.set $scratch-end (i32.const 0))))
