;; Host functions, exports, growth, start; active data leaves the module, function indices move up.
(module
  (import "ic0" "msg_reply" (func $reply))
  (table 2 funcref)
  (memory 1 10)
  (global $count (mut i32) (i32.const 3))
  (global $fixed i64 (i64.const 4))
  (elem (i32.const 0) $main $reply)
  (data (i32.const 0) "initial heap")
  (func $main (export "canister_update main") (export "plain")
    (drop (memory.grow (i32.const 2)))
    (call $reply)
    (call_indirect (i32.const 1)))
  (start $main))
;; ---- instrumented ----
;; compile charge: 96 instructions
;; canister_update main: 1319 instructions
(module
  (type (;0;) (func))
  (type (;1;) (func (param i64) (result i64)))
  (type (;2;) (func (param i64 i64) (result i32)))
  (type (;3;) (func))
  (type (;4;) (func (param i64)))
  (type (;5;) (func (param i64 i64)))
  (type (;6;) (func (param i64 i64 i64 i64)))
  (import "ic0" "msg_reply" (func (;0;) (type 0)))
  (import "__replicore" "out_of_instructions" (func (;1;) (type 1) (param i64) (result i64)))
  (import "__replicore" "try_grow_memory" (func (;2;) (type 2) (param i64 i64) (result i32)))
  (import "__replicore" "stack_overflow" (func (;3;) (type 3)))
  (import "__replicore" "charge_system_call" (func (;4;) (type 6) (param i64 i64 i64 i64)))
  (table (;0;) 2 funcref)
  (memory (;0;) 1 10)
  (memory (;1;) 17 17)
  (global (;0;) (mut i32) i32.const 3)
  (global (;1;) i64 i64.const 4)
  (global (;2;) (mut i64) i64.const 0)
  (global (;3;) (mut i32) i32.const 0)
  (export "canister_update main" (func 5))
  (export "__replicore.start" (func 5))
  (export "__replicore.heap" (memory 0))
  (export "__replicore.marks" (memory 1))
  (export "__replicore.table" (table 0))
  (export "__replicore.counter" (global 2))
  (export "__replicore.stack" (global 3))
  (export "__replicore.global.0" (global 0))
  (elem (;0;) (i32.const 0) func 5 9)
  (func (;5;) (type 0)
    (local i32 i64 i32)
    global.get 3
    i32.const 32
    i32.sub
    local.tee 0
    i32.const 0
    i32.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      call 3
      unreachable
    end
    global.get 2
    i64.const 319
    i64.sub
    local.set 1
    local.get 1
    global.set 2
    local.get 1
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      call 6
      global.get 2
      local.set 1
    end
    i32.const 2
    local.set 2
    memory.size
    i64.extend_i32_u
    local.get 2
    i64.extend_i32_u
    call 2
    if (result i32) ;; label = @1
      local.get 2
      memory.grow
    else
      i32.const -1
    end
    drop
    call 9
    global.get 2
    local.set 1
    i32.const 1
    local.get 0
    global.set 3
    call_indirect (type 0)
    global.get 2
    local.set 1
  )
  (func (;6;) (type 3)
    global.get 2
    call 1
    global.set 2
  )
  (func (;7;) (type 4) (param i64)
    (local i64)
    global.get 2
    local.get 0
    i64.sub
    local.tee 1
    global.get 2
    i64.gt_s
    if ;; label = @1
      i64.const -9223372036854775808
      local.set 1
    end
    local.get 1
    global.set 2
    global.get 2
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
  (func (;9;) (type 0)
    (local i64)
    i64.const 500
    local.set 0
    global.get 2
    local.get 0
    i64.lt_s
    if ;; label = @1
      i64.const 500
      i64.const 0
      i64.const 0
      i64.const 0
      call 4
    else
      global.get 2
      local.get 0
      i64.sub
      global.set 2
    end
    call 0
  )
)
