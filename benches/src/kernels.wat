;; Compute kernels of the kinds that canisters are made of. Each stores its result at address 0, so that no compiler
;; leaves the work out. The heap above 64 KiB is scratch: a kernel writes what it reads there.
(module
  (memory (export "memory") 16)

  ;; A hash of 64 KiB, word by word: rotations, multiplications, a dependent chain.
  (func (export "canister_query hash") (local $at i32) (local $turn i32) (local $a i32) (local $b i32)
    (local.set $a (i32.const 0x9e3779b1))
    (loop $turns
      (local.set $at (i32.const 0x10000))
      (loop $words
        (local.set $b (i32.add (i32.mul (i32.load (local.get $at)) (i32.const 0x85ebca77)) (local.get $a)))
        (local.set $a (i32.xor (i32.rotl (local.get $b) (i32.const 13)) (i32.rotr (local.get $a) (i32.const 7))))
        (local.set $b (i32.add (i32.mul (i32.load offset=4 (local.get $at)) (i32.const 0xc2b2ae3d)) (local.get $b)))
        (local.set $a (i32.add (i32.xor (local.get $a) (i32.shr_u (local.get $b) (i32.const 15))) (local.get $turn)))
        (br_if $words (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 0x20000))))
      (br_if $turns (i32.lt_u (local.tee $turn (i32.add (local.get $turn) (i32.const 1))) (i32.const 64))))
    (i32.store (i32.const 0) (local.get $a)))

  ;; Shell sort of 8,192 words.
  (func (export "canister_query sort") (local $gap i32) (local $i i32) (local $j i32) (local $word i32) (local $left i32)
    (local.set $word (i32.const 1))
    (loop $fill
      (i32.store offset=0x10000 (local.get $i)
        (local.tee $word (i32.add (i32.mul (local.get $word) (i32.const 1103515245)) (i32.const 12345))))
      (br_if $fill (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 32768))))
    (local.set $gap (i32.const 16384))
    (loop $gaps
      (local.set $i (local.get $gap))
      (loop $outer
        (local.set $word (i32.load offset=0x10000 (local.get $i)))
        (local.set $j (local.get $i))
        (block $placed
          (loop $inner
            (br_if $placed (i32.lt_u (local.get $j) (local.get $gap)))
            (local.set $left (i32.load offset=0x10000 (i32.sub (local.get $j) (local.get $gap))))
            (br_if $placed (i32.le_s (local.get $left) (local.get $word)))
            (i32.store offset=0x10000 (local.get $j) (local.get $left))
            (local.set $j (i32.sub (local.get $j) (local.get $gap)))
            (br $inner)))
        (i32.store offset=0x10000 (local.get $j) (local.get $word))
        (br_if $outer (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 32768))))
      (br_if $gaps (i32.ge_u (local.tee $gap (i32.and (i32.shr_u (local.get $gap) (i32.const 1)) (i32.const -4)))
                             (i32.const 4))))
    (i32.store (i32.const 0) (i32.load (i32.const 0x14000))))

  ;; Product of two matrices of 96 x 96 doubles.
  (func (export "canister_query matrix_f64") (local $i i32) (local $j i32) (local $k i32) (local $a i32) (local $b i32) (local $sum f64)
    (loop $fill
      (f64.store offset=0x10000 (local.get $i) (f64.div (f64.convert_i32_u (local.get $i)) (f64.const 7)))
      (f64.store offset=0x30000 (local.get $i) (f64.sub (f64.const 3) (f64.convert_i32_u (local.get $i))))
      (br_if $fill (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 73728))))
    (local.set $i (i32.const 0))
    (loop $rows
      (local.set $j (i32.const 0))
      (loop $columns
        (local.set $sum (f64.const 0))
        (local.set $k (i32.const 0))
        (local.set $a (i32.mul (local.get $i) (i32.const 768)))
        (local.set $b (i32.shl (local.get $j) (i32.const 3)))
        (loop $products
          (local.set $sum (f64.add (local.get $sum)
            (f64.mul (f64.load offset=0x10000 (local.get $a)) (f64.load offset=0x30000 (local.get $b)))))
          (local.set $a (i32.add (local.get $a) (i32.const 8)))
          (local.set $b (i32.add (local.get $b) (i32.const 768)))
          (br_if $products (i32.lt_u (local.tee $k (i32.add (local.get $k) (i32.const 1))) (i32.const 96))))
        (f64.store offset=0x50000
          (i32.add (i32.mul (local.get $i) (i32.const 768)) (i32.shl (local.get $j) (i32.const 3))) (local.get $sum))
        (br_if $columns (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 96))))
      (br_if $rows (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 96))))
    (f64.store (i32.const 0) (f64.load (i32.const 0x54000))))

  ;; 100,000 look-ups and insertions in an open hash table of 16,384 slots.
  (func (export "canister_query hash_map") (local $n i32) (local $key i64) (local $slot i32) (local $found i64) (local $hits i32)
    (memory.fill (i32.const 0x10000) (i32.const 0) (i32.const 0x20000))
    (loop $operations
      (local.set $key (i64.or (i64.const 1) (i64.rem_u
        (i64.mul (i64.extend_i32_u (local.get $n)) (i64.const 0x9e3779b97f4a7c15)) (i64.const 8191))))
      (local.set $slot (i32.and (i32.wrap_i64 (i64.shr_u (i64.mul (local.get $key) (i64.const 0xff51afd7ed558ccd))
        (i64.const 40))) (i32.const 0x1fff8)))
      (block $done
        (loop $probe
          (local.set $found (i64.load offset=0x10000 (local.get $slot)))
          (if (i64.eq (local.get $found) (local.get $key))
            (then (local.set $hits (i32.add (local.get $hits) (i32.const 1))) (br $done)))
          (if (i64.eqz (local.get $found))
            (then (i64.store offset=0x10000 (local.get $slot) (local.get $key)) (br $done)))
          (local.set $slot (i32.and (i32.add (local.get $slot) (i32.const 8)) (i32.const 0x1fff8)))
          (br $probe)))
      (br_if $operations (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100000))))
    (i32.store (i32.const 0) (local.get $hits)))

  ;; Fibonacci numbers by recursion: nothing but calls.
  (func $fib (param $n i32) (result i32)
    (if (result i32) (i32.lt_u (local.get $n) (i32.const 2))
      (then (local.get $n))
      (else (i32.add (call $fib (i32.sub (local.get $n) (i32.const 1))) (call $fib (i32.sub (local.get $n) (i32.const 2)))))))
  (func (export "canister_query recursion") (i32.store (i32.const 0) (call $fib (i32.const 24))))

  ;; A byte code machine with four instructions: 200,000 steps through a program of 256 random ones. (How well a shorter
  ;; program is predicted is a matter of luck that differs by a factor of two between two compilations.)
  (func (export "canister_query interpreter") (local $at i32) (local $steps i32) (local $a i32) (local $b i32)
    (local.set $b (i32.const 1))
    (loop $program
      (local.set $b (i32.add (i32.mul (local.get $b) (i32.const 1103515245)) (i32.const 12345)))
      (i32.store8 offset=256 (local.get $at) (i32.and (i32.shr_u (local.get $b) (i32.const 16)) (i32.const 3)))
      (br_if $program (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 256))))
    (loop $next
      (block $swap (block $xor (block $multiply (block $add
        (br_table $add $multiply $xor $swap (i32.load8_u offset=256 (local.get $at))))
            (local.set $a (i32.add (local.get $a) (local.get $b))) (br $swap))
          (local.set $b (i32.mul (local.get $b) (i32.const 0x01000193))) (br $swap))
        (local.set $a (i32.xor (local.get $a) (local.get $b))) (br $swap))
      (local.set $at (i32.and (i32.add (local.get $at) (i32.const 1)) (i32.const 255)))
      (br_if $next (i32.lt_u (local.tee $steps (i32.add (local.get $steps) (i32.const 1))) (i32.const 200000))))
    (i32.store (i32.const 0) (local.get $a)))

  ;; A text of 64 KiB in capitals, byte by byte.
  (func (export "canister_query byte_stores") (local $at i32) (local $turn i32) (local $byte i32)
    (loop $turns
      (local.set $at (i32.const 0))
      (loop $bytes
        (local.set $byte (i32.add (i32.load8_u offset=0x10000 (local.get $at)) (local.get $at)))
        (i32.store8 offset=0x20000 (local.get $at)
          (select (i32.sub (local.get $byte) (i32.const 32)) (local.get $byte)
            (i32.lt_u (i32.sub (i32.and (local.get $byte) (i32.const 255)) (i32.const 97)) (i32.const 26))))
        (br_if $bytes (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 0x10000))))
      (br_if $turns (i32.lt_u (local.tee $turn (i32.add (local.get $turn) (i32.const 1))) (i32.const 8))))
    (i32.store (i32.const 0) (i32.load (i32.const 0x23456))))

  ;; 512 KiB filled by a naive loop.
  (func (export "canister_query fill") (local $at i32) (local $turn i32)
    (loop $turns
      (local.set $at (i32.const 0))
      (loop $words
        (i64.store offset=0x10000 (local.get $at) (i64.extend_i32_u (local.get $turn)))
        (br_if $words (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 0x80000))))
      (br_if $turns (i32.lt_u (local.tee $turn (i32.add (local.get $turn) (i32.const 1))) (i32.const 8))))
    (i32.store (i32.const 0) (local.get $turn))))
