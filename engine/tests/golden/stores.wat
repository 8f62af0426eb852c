;; A store marks the page it starts in, once it has succeeded.
(module
  (memory 1)
  (func (param $address i32)
    (i32.store (local.get $address) (i32.const 7))
    (i64.store8 offset=5000 (local.get $address) (i64.const 7))
    (v128.store16_lane 3 (local.get $address) (v128.const i64x2 1 2))))
;; ---- instrumented ----
;; compile charge: 92 instructions
(module
  (type (;0;) (func (param i32)))
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
  (export "__replicore.heap" (memory 0))
  (export "__replicore.marks" (memory 1))
  (export "__replicore.counter" (global 0))
  (export "__replicore.stack" (global 1))
  (func (;4;) (type 0) (param i32)
    (local i64 i32 i32 i64 v128)
    global.get 0
    i64.const 10
    i64.sub
    local.set 1
    local.get 1
    global.set 0
    local.get 1
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      call 5
      global.get 0
      local.set 1
    end
    local.get 0
    i32.const 7
    local.set 3
    local.tee 2
    local.get 3
    i32.store
    local.get 2
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get 0
    i64.const 7
    local.set 4
    local.tee 2
    local.get 4
    i64.store8 offset=5000
    local.get 2
    i32.const 5000
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get 0
    v128.const i32x4 0x00000001 0x00000000 0x00000002 0x00000000
    local.set 5
    local.tee 2
    local.get 5
    v128.store16_lane 3
    local.get 2
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;5;) (type 3)
    global.get 0
    call 0
    global.set 0
  )
  (func (;6;) (type 4) (param i64)
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
      call 5
    end
  )
  (func (;7;) (type 5) (param i64 i64)
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
