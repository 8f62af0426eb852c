;; A NaN is made canonical where its bits may be seen: not in the loop, whose sum only arithmetic reads, but where the
;; sum is stored; and nothing is done to what is only moved. The head of the loop saves the locals that it works on
;; around the call that its turns hardly ever make.
(module
  (memory 1)
  (func (export "canister_query sum") (local $sum f64) (local $at i32)
    (loop $again
      (local.set $sum (f64.add (local.get $sum) (f64.sqrt (f64.load (local.get $at)))))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 64))))
    (f64.store (i32.const 64) (local.get $sum)))
  (func (export "canister_query move") (f64.store (i32.const 8) (f64.load (i32.const 0)))))
;; ---- instrumented ----
;; compile charge: 130 instructions
;; canister_query sum: 180 instructions
;; canister_query move: 5 instructions
(module
  (type (;0;) (func))
  (type (;1;) (func (param i64) (result i64)))
  (type (;2;) (func (param i64 i64) (result i32)))
  (type (;3;) (func))
  (type (;4;) (func (param i64)))
  (type (;5;) (func (param i64 i64)))
  (type (;6;) (func (param i64 i64 i64 i64)))
  (import "__replicore" "out_of_instructions" (func (;0;) (type 1) (param i64) (result i64)))
  (import "__replicore" "try_grow_memory" (func (;1;) (type 2) (param i64 i64) (result i32)))
  (import "__replicore" "stack_overflow" (func (;2;) (type 3)))
  (import "__replicore" "charge_system_call" (func (;3;) (type 6) (param i64 i64 i64 i64)))
  (memory (;0;) 1 65536)
  (memory (;1;) 17 17)
  (global (;0;) (mut i64) i64.const 0)
  (global (;1;) (mut i32) i32.const 0)
  (export "canister_query sum" (func 4))
  (export "canister_query move" (func 5))
  (export "__replicore.heap" (memory 0))
  (export "__replicore.marks" (memory 1))
  (export "__replicore.counter" (global 0))
  (export "__replicore.stack" (global 1))
  (func (;4;) (type 0)
    (local f64 i32 i64 i64 i64 i32 f64 i32 f64)
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
    loop ;; label = @1
      local.get 2
      i64.const 22
      i64.sub
      local.set 2
      local.get 2
      global.set 0
      local.get 2
      i64.const 0
      i64.lt_s
      (@metadata.code.branch_hint "\00")
      if ;; label = @2
        i32.const 0
        local.get 0
        f64.store 1 offset=1048576 align=1
        i32.const 0
        local.get 1
        i32.store 1 offset=1048592 align=1
        call 6
        i32.const 0
        f64.load 1 offset=1048576 align=1
        local.set 0
        i32.const 0
        i32.load 1 offset=1048592 align=1
        local.set 1
        global.get 0
        local.set 2
      end
      local.get 0
      local.get 1
      f64.load
      f64.sqrt
      f64.add
      local.set 0
      local.get 1
      i32.const 8
      i32.add
      local.tee 1
      i32.const 64
      i32.lt_u
      if ;; label = @2
        local.get 2
        i64.const 5
        i64.shr_s
        local.set 3
        i64.const 1048576
        local.tee 4
        local.get 3
        local.get 4
        local.get 3
        i64.lt_s
        select
        local.set 3
        memory.size
        i64.extend_i32_u
        i64.const 16
        i64.shl
        i64.const 8
        i64.sub
        local.get 1
        i64.extend_i32_u
        i64.sub
        local.set 4
        local.get 4
        i64.const 3
        i64.shr_s
        i64.const 1
        i64.add
        local.tee 4
        local.get 3
        local.get 4
        local.get 3
        i64.lt_s
        select
        local.set 3
        local.get 3
        i64.const 4
        i64.ge_s
        if ;; label = @3
          local.get 2
          local.get 3
          i64.const 22
          i64.mul
          i64.sub
          local.set 2
          local.get 3
          i64.const 8
          i64.mul
          i32.wrap_i64
          local.get 1
          i32.add
          local.set 5
          block ;; label = @4
            loop ;; label = @5
              local.get 0
              local.get 1
              f64.load
              f64.sqrt
              f64.add
              local.set 0
              local.get 1
              i32.const 8
              i32.add
              local.tee 1
              i32.const 64
              i32.lt_u
              i32.eqz
              br_if 1 (;@4;)
              local.get 1
              local.get 5
              i32.ne
              br_if 0 (;@5;)
            end
            br 3 (;@1;)
          end
          local.get 5
          local.get 1
          i32.sub
          i64.extend_i32_s
          i64.const 8
          i64.div_s
          local.set 3
          local.get 2
          local.get 3
          i64.const 22
          i64.mul
          i64.add
          local.set 2
          local.get 2
          global.set 0
        else
          br 2 (;@1;)
        end
      end
    end
    local.get 2
    i64.const 3
    i64.sub
    local.set 2
    local.get 2
    global.set 0
    i32.const 64
    local.get 0
    local.tee 6
    f64.const nan (;=NaN;)
    local.get 6
    local.get 6
    f64.eq
    select
    local.set 8
    local.tee 7
    local.get 8
    f64.store
    local.get 7
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;5;) (type 0)
    (local i64 i32 f64)
    global.get 0
    i64.const 5
    i64.sub
    local.set 0
    local.get 0
    global.set 0
    local.get 0
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      call 6
      global.get 0
      local.set 0
    end
    i32.const 8
    i32.const 0
    f64.load
    local.set 2
    local.tee 1
    local.get 2
    f64.store
    local.get 1
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;6;) (type 3)
    global.get 0
    call 0
    global.set 0
  )
  (func (;7;) (type 4) (param i64)
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
  (func (;8;) (type 5) (param i64 i64)
    (local i32 i32)
    local.get 1
    i64.eqz
    if ;; label = @1
      return
    end
    local.get 0
    i64.const 12
    i64.shr_u
    i32.wrap_i64
    local.tee 2
    i32.const 1
    i32.store8 1
    local.get 0
    local.get 1
    i64.add
    i64.const 1
    i64.sub
    i64.const 12
    i64.shr_u
    i32.wrap_i64
    local.tee 3
    i32.const 1
    i32.store8 1
    local.get 3
    local.get 2
    i32.sub
    local.tee 3
    i32.const 1
    i32.gt_u
    if ;; label = @1
      local.get 2
      i32.const 1
      local.get 3
      memory.fill 1
    end
  )
)
