;; Lines are paid at their start: a branch taken leaves the rest of its own line paid and what it jumps over unpaid, a
;; trap has paid its whole line, and a call does not cut the line that it stands in.
(module
  (func $leaf (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
  (func (export "canister_query branch_taken")
    (block (br_if 0 (i32.const 1)) nop nop nop) nop)
  (func (export "canister_query branch_not_taken")
    (block (br_if 0 (i32.const 0)) nop nop nop) nop)
  (func (export "canister_query trap_in_line") nop (drop (i32.div_u (i32.const 1) (i32.const 0))) nop nop)
  (func (export "canister_query calls") (drop (call $leaf (call $leaf (i32.const 2)))) nop)
  (func (export "canister_query table") (local $i i32)
    (loop $again
      (block $c (block $b (block $a (br_table $a $b $c (local.get $i))) nop) nop nop)
      (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 4)))))
  (func (export "canister_query early_return") (if (i32.const 1) (then return)) nop nop))
;; ---- instrumented ----
;; compile charge: 252 instructions
;; canister_query branch_taken: 5 instructions
;; canister_query branch_not_taken: 8 instructions
;; canister_query trap_in_line: 17 instructions!
;; canister_query calls: 22 instructions
;; canister_query table: 50 instructions
;; canister_query early_return: 5 instructions
(module
  (type (;0;) (func (param i32) (result i32)))
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
  (export "canister_query branch_taken" (func 5))
  (export "canister_query branch_not_taken" (func 6))
  (export "canister_query trap_in_line" (func 7))
  (export "canister_query calls" (func 8))
  (export "canister_query table" (func 9))
  (export "canister_query early_return" (func 10))
  (export "__replicore.counter" (global 0))
  (export "__replicore.stack" (global 1))
  (func (;4;) (type 0) (param i32) (result i32)
    (local i64)
    global.get 0
    i64.const 4
    i64.sub
    local.set 1
    local.get 1
    global.set 0
    local.get 1
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      call 11
      global.get 0
      local.set 1
    end
    local.get 0
    i32.const 3
    i32.mul
  )
  (func (;5;) (type 1)
    (local i64)
    global.get 0
    i64.const 4
    i64.sub
    local.set 0
    local.get 0
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      local.get 0
      global.set 0
      call 11
      global.get 0
      local.set 0
    end
    block ;; label = @1
      i32.const 1
      br_if 0 (;@1;)
      local.get 0
      i64.const 3
      i64.sub
      local.set 0
      nop
      nop
      nop
    end
    local.get 0
    i64.const 1
    i64.sub
    local.set 0
    local.get 0
    global.set 0
    nop
  )
  (func (;6;) (type 1)
    (local i64)
    global.get 0
    i64.const 4
    i64.sub
    local.set 0
    local.get 0
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      local.get 0
      global.set 0
      call 11
      global.get 0
      local.set 0
    end
    block ;; label = @1
      i32.const 0
      br_if 0 (;@1;)
      local.get 0
      i64.const 3
      i64.sub
      local.set 0
      nop
      nop
      nop
    end
    local.get 0
    i64.const 1
    i64.sub
    local.set 0
    local.get 0
    global.set 0
    nop
  )
  (func (;7;) (type 1)
    (local i64)
    global.get 0
    i64.const 17
    i64.sub
    local.set 0
    local.get 0
    global.set 0
    local.get 0
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      call 11
      global.get 0
      local.set 0
    end
    nop
    i32.const 1
    i32.const 0
    i32.div_u
    drop
    nop
    nop
  )
  (func (;8;) (type 1)
    (local i32 i64)
    global.get 1
    i32.const 32
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
    i64.const 14
    i64.sub
    local.set 1
    local.get 1
    global.set 0
    local.get 1
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      call 11
      global.get 0
      local.set 1
    end
    i32.const 2
    call 4
    global.get 0
    local.set 1
    call 4
    global.get 0
    local.set 1
    drop
    nop
  )
  (func (;9;) (type 1)
    (local i32 i64)
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
      call 11
      global.get 0
      local.set 1
    end
    loop ;; label = @1
      local.get 1
      i64.const 3
      i64.sub
      local.set 1
      local.get 1
      i64.const 0
      i64.lt_s
      (@metadata.code.branch_hint "\00")
      if ;; label = @2
        local.get 1
        global.set 0
        call 11
        global.get 0
        local.set 1
      end
      block ;; label = @2
        block ;; label = @3
          block ;; label = @4
            local.get 0
            br_table 0 (;@4;) 1 (;@3;) 2 (;@2;)
          end
          local.get 1
          i64.const 1
          i64.sub
          local.set 1
          nop
        end
        local.get 1
        i64.const 2
        i64.sub
        local.set 1
        nop
        nop
      end
      local.get 1
      i64.const 8
      i64.sub
      local.set 1
      local.get 0
      i32.const 1
      i32.add
      local.tee 0
      i32.const 4
      i32.lt_u
      br_if 0 (;@1;)
    end
    local.get 1
    global.set 0
  )
  (func (;10;) (type 1)
    (local i64)
    global.get 0
    i64.const 4
    i64.sub
    local.set 0
    local.get 0
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @1
      local.get 0
      global.set 0
      call 11
      global.get 0
      local.set 0
    end
    i32.const 1
    if ;; label = @1
      local.get 0
      i64.const 1
      i64.sub
      local.set 0
      local.get 0
      global.set 0
      return
    end
    local.get 0
    i64.const 2
    i64.sub
    local.set 0
    local.get 0
    global.set 0
    nop
    nop
  )
  (func (;11;) (type 4)
    global.get 0
    call 0
    global.set 0
  )
  (func (;12;) (type 5) (param i64)
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
      call 11
    end
  )
)
