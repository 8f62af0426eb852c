;; A store whose address the loop moves in steps marks a page once; one at an address that is computed marks every time.
(module
  (memory 2)
  (func (export "canister_update steps") (local $at i32)
    (loop $again
      (i64.store offset=8 (local.get $at) (i64.const 7))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 65536)))))
  (func (export "canister_update computed") (local $at i32)
    (loop $again
      (i32.store8 (i32.and (i32.mul (local.get $at) (i32.const 33)) (i32.const 0xffff)) (i32.const 7))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 4096))))))
;; ---- instrumented ----
;; compile charge: 142 instructions
;; canister_update steps: 90113 instructions
;; canister_update computed: 7681 instructions
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
  (memory (;0;) 2 65536)
  (memory (;1;) 17 17)
  (global (;0;) (mut i64) i64.const 0)
  (global (;1;) (mut i32) i32.const 0)
  (export "canister_update steps" (func 4))
  (export "canister_update computed" (func 5))
  (export "__replicore.heap" (memory 0))
  (export "__replicore.marks" (memory 1))
  (export "__replicore.counter" (global 0))
  (export "__replicore.stack" (global 1))
  (func (;4;) (type 0)
    (local i32 i64 i32 i64 i64 i64 i64 i32)
    global.get 0
    i64.const 1
    i64.sub
    local.set 1
    local.get 1
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      local.get 1
      global.set 0
      call 6
      global.get 0
      local.set 1
    end
    loop ;; label = @1
      local.get 1
      i64.const 11
      i64.sub
      local.set 1
      local.get 1
      global.set 0
      local.get 1
      i64.const 0
      i64.lt_s
      (@metadata.code.branch_hint "\00")
      if ;; label = @2
        i32.const 0
        local.get 0
        i32.store 1 offset=1048576 align=1
        call 6
        i32.const 0
        i32.load 1 offset=1048576 align=1
        local.set 0
        global.get 0
        local.set 1
      end
      local.get 0
      i64.const 7
      local.set 3
      local.tee 2
      local.get 3
      i64.store offset=8
      local.get 2
      i32.const 8
      i32.add
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
      local.get 0
      i32.const 8
      i32.add
      local.tee 0
      i32.const 65536
      i32.lt_u
      if ;; label = @2
        local.get 1
        i64.const 4
        i64.shr_s
        local.set 4
        i64.const 1048576
        local.tee 5
        local.get 4
        local.get 5
        local.get 4
        i64.lt_s
        select
        local.set 4
        local.get 0
        i64.extend_i32_u
        i64.const 8
        i64.add
        i64.const 4095
        i64.and
        local.set 6
        i64.const 4088
        local.get 6
        i64.sub
        local.set 5
        local.get 5
        i64.const 3
        i64.shr_s
        i64.const 1
        i64.add
        i64.const 0
        local.get 6
        i64.const 8
        i64.ge_u
        select
        local.tee 5
        local.get 4
        local.get 5
        local.get 4
        i64.lt_s
        select
        local.set 4
        local.get 4
        i64.const 4
        i64.ge_s
        if ;; label = @3
          local.get 1
          local.get 4
          i64.const 11
          i64.mul
          i64.sub
          local.set 1
          local.get 4
          i64.const 8
          i64.mul
          i32.wrap_i64
          local.get 0
          i32.add
          local.set 7
          block ;; label = @4
            loop ;; label = @5
              local.get 0
              i64.const 7
              i64.store offset=8
              local.get 0
              i32.const 8
              i32.add
              local.tee 0
              i32.const 65536
              i32.lt_u
              i32.eqz
              br_if 1 (;@4;)
              local.get 0
              local.get 7
              i32.ne
              br_if 0 (;@5;)
            end
            br 3 (;@1;)
          end
          local.get 7
          local.get 0
          i32.sub
          i64.extend_i32_s
          i64.const 8
          i64.div_s
          local.set 4
          local.get 1
          local.get 4
          i64.const 11
          i64.mul
          i64.add
          local.set 1
          local.get 1
          global.set 0
        else
          br 2 (;@1;)
        end
      end
    end
    local.get 1
    global.set 0
  )
  (func (;5;) (type 0)
    (local i32 i64 i32 i32)
    global.get 0
    i64.const 1
    i64.sub
    local.set 1
    local.get 1
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      local.get 1
      global.set 0
      call 6
      global.get 0
      local.set 1
    end
    loop ;; label = @1
      local.get 1
      i64.const 15
      i64.sub
      local.set 1
      local.get 1
      global.set 0
      local.get 1
      i64.const 0
      i64.lt_s
      (@metadata.code.branch_hint "\00")
      if ;; label = @2
        i32.const 0
        local.get 0
        i32.store 1 offset=1048576 align=1
        call 6
        i32.const 0
        i32.load 1 offset=1048576 align=1
        local.set 0
        global.get 0
        local.set 1
      end
      local.get 0
      i32.const 33
      i32.mul
      i32.const 65535
      i32.and
      i32.const 7
      local.set 3
      local.tee 2
      local.get 3
      i32.store8
      local.get 2
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
      local.get 0
      i32.const 8
      i32.add
      local.tee 0
      i32.const 4096
      i32.lt_u
      br_if 0 (;@1;)
    end
    local.get 1
    global.set 0
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
