;; Every line is charged where it starts; function entry and loop heads also test the counter.
(module
  (func $gcd (param $a i32) (param $b i32) (result i32)
    (loop $again (result i32)
      (if (result i32) (i32.eqz (local.get $b))
        (then (local.get $a))
        (else
          (local.get $b)
          (local.set $b (i32.rem_u (local.get $a) (local.get $b)))
          (local.set $a)
          (br $again)))))
  (func (export "canister_query gcd")
    (drop (call $gcd (i32.const 12) (i32.const 18)))))
;; ---- instrumented ----
;; compile charge: 131 instructions
;; canister_query gcd: 78 instructions
(module
  (type (;0;) (func (param i32 i32) (result i32)))
  (type (;1;) (func))
  (type (;2;) (func (param i64) (result i64)))
  (type (;3;) (func (param i64 i64) (result i32)))
  (type (;4;) (func))
  (type (;5;) (func (param i64)))
  (type (;6;) (func (param i64 i64)))
  (type (;7;) (func (param i64 i64 i64 i64)))
  (import "__replicore" "out_of_instructions" (func (;0;) (type 2) (param i64) (result i64)))
  (import "__replicore" "try_grow_memory" (func (;1;) (type 3) (param i64 i64) (result i32)))
  (import "__replicore" "stack_overflow" (func (;2;) (type 4)))
  (import "__replicore" "charge_system_call" (func (;3;) (type 7) (param i64 i64 i64 i64)))
  (global (;0;) (mut i64) i64.const 0)
  (global (;1;) (mut i32) i32.const 0)
  (export "canister_query gcd" (func 5))
  (export "__replicore.counter" (global 0))
  (export "__replicore.stack" (global 1))
  (func (;4;) (type 0) (param i32 i32) (result i32)
    (local i64)
    global.get 0
    i64.const 1
    i64.sub
    local.set 2
    local.get 2
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      local.get 2
      global.set 0
      call 6
      global.get 0
      local.set 2
    end
    loop (result i32) ;; label = @1
      local.get 2
      i64.const 4
      i64.sub
      local.set 2
      local.get 2
      i64.const 0
      i64.lt_s
      (@metadata.code.branch_hint "\00")
      if ;; label = @2
        local.get 2
        global.set 0
        call 6
        global.get 0
        local.set 2
      end
      local.get 1
      i32.eqz
      if (result i32) ;; label = @2
        local.get 2
        i64.const 1
        i64.sub
        local.set 2
        local.get 0
      else
        local.get 2
        i64.const 17
        i64.sub
        local.set 2
        local.get 2
        global.set 0
        local.get 1
        local.get 0
        local.get 1
        i32.rem_u
        local.set 1
        local.set 0
        br 1 (;@1;)
      end
    end
    local.get 2
    global.set 0
  )
  (func (;5;) (type 1)
    (local i32 i64)
    global.get 1
    i32.const 16
    i32.sub
    local.tee 0
    i32.const 0
    i32.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      call 2
      unreachable
    end
    global.get 0
    i64.const 9
    i64.sub
    local.set 1
    local.get 1
    global.set 0
    local.get 1
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      call 6
      global.get 0
      local.set 1
    end
    i32.const 12
    i32.const 18
    call 4
    global.get 0
    local.set 1
    drop
  )
  (func (;6;) (type 4)
    global.get 0
    call 0
    global.set 0
  )
  (func (;7;) (type 5) (param i64)
    (local i64)
    global.get 0
    local.get 0
    i64.sub
    local.tee 1
    global.get 0
    i64.gt_s
    if ;; label = @1
      i64.const -9223372036854775808
      local.set 1
    end
    local.get 1
    global.set 0
    global.get 0
    i64.const 0
    i64.lt_s
    if ;; label = @1
      call 6
    end
  )
)
