// What a canister in plain C needs: the ic0 imports, an arena that outlives upgrades, and the few Candid forms in use.
// Freestanding: no libc. Every pointer into persistent state is an offset into the arena, hence valid after an upgrade too.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define IMPORT(name) __attribute__((import_module("ic0"), import_name(#name))) extern
#define EXPORT(name) __attribute__((export_name(name)))
#define UPDATE(name) EXPORT("canister_update " #name) void update_##name(void)
#define QUERY(name) EXPORT("canister_query " #name) void query_##name(void)

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

IMPORT(msg_arg_data_size) size_t ic_arg_size(void);
IMPORT(msg_arg_data_copy) void ic_arg_copy(void *dst, size_t offset, size_t size);
IMPORT(msg_caller_size) size_t ic_caller_size(void);
IMPORT(msg_caller_copy) void ic_caller_copy(void *dst, size_t offset, size_t size);
IMPORT(msg_reply) void ic_reply(void);
IMPORT(msg_reply_data_append) void ic_reply_append(const void *src, size_t size);
IMPORT(msg_reject) void ic_reject(const char *src, size_t size);
IMPORT(msg_reject_msg_size) size_t ic_reject_msg_size(void);
IMPORT(msg_reject_msg_copy) void ic_reject_msg_copy(void *dst, size_t offset, size_t size);
IMPORT(msg_method_name_size) size_t ic_method_size(void);
IMPORT(msg_method_name_copy) void ic_method_copy(void *dst, size_t offset, size_t size);
IMPORT(accept_message) void ic_accept_message(void);
IMPORT(call_new)
void ic_call_new(const void *callee, size_t callee_size, const void *name, size_t name_size, void (*reply)(size_t),
                 size_t reply_env, void (*reject)(size_t), size_t reject_env);
IMPORT(call_data_append) void ic_call_append(const void *src, size_t size);
IMPORT(call_perform) u32 ic_call_perform(void);
IMPORT(stable64_size) u64 ic_stable_size(void);
IMPORT(stable64_grow) u64 ic_stable_grow(u64 pages);
IMPORT(stable64_write) void ic_stable_write(u64 offset, u64 src, u64 size);
IMPORT(stable64_read) void ic_stable_read(u64 dst, u64 offset, u64 size);
IMPORT(certified_data_set) void ic_certified_data_set(const void *src, size_t size);
IMPORT(data_certificate_present) u32 ic_certificate_present(void);
IMPORT(data_certificate_size) size_t ic_certificate_size(void);
IMPORT(data_certificate_copy) void ic_certificate_copy(void *dst, size_t offset, size_t size);
IMPORT(global_timer_set) u64 ic_global_timer_set(u64 timestamp);
IMPORT(trap) _Noreturn void ic_trap(const char *src, size_t size);

#define TRAP(text) ic_trap(text, sizeof(text) - 1)
#define REJECT(text) ic_reject(text, sizeof(text) - 1)
#define PAGE 65536u
#define PRINCIPAL_MAX 29

static int same(const u8 *left, const u8 *right, u32 size) {
    for (u32 i = 0; i < size; i++)
        if (left[i] != right[i]) return 0;
    return 1;
}

// ---- memory: [__heap_base .. arena end) lasts, what is above it is scratch for one message ----

extern u8 __heap_base;
static u32 arena_used; // bytes that last

static u8 *arena(u32 offset) { return &__heap_base + offset; }

static void reserve(u32 bytes) {
    u64 end = (u64)(uintptr_t)&__heap_base + bytes;
    u64 have = (u64)__builtin_wasm_memory_size(0) * PAGE;
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == (size_t)-1) TRAP("out of memory");
}

// Offset of `size` new bytes that last; zero is never handed out, so it can mean "none".
// They may hold what scratch left there: the caller writes them all.
static u32 arena_take(u32 size) {
    if (arena_used == 0) arena_used = 8;
    u32 offset = arena_used;
    if (size > 0x7fffffffu - offset) TRAP("out of memory");
    arena_used += (size + 7) & ~7u;
    reserve(arena_used);
    return offset;
}

// The one scratch buffer of a message. Take what lasts first: `arena_take` grows over it.
static u8 *scratch(u32 size) {
    if (size > 0x7fffffffu - arena_used) TRAP("out of memory");
    reserve(arena_used + size);
    return arena(arena_used);
}

// Upgrade: [u32 arena bytes][roots][arena], roots being the canister's own fixed-size variables.
static void save(const void *roots, u32 roots_size) {
    u64 bytes = 4 + (u64)roots_size + arena_used;
    u64 pages = (bytes + PAGE - 1) / PAGE;
    if (pages > ic_stable_size() && ic_stable_grow(pages - ic_stable_size()) == (u64)-1) TRAP("out of stable memory");
    ic_stable_write(0, (uintptr_t)&arena_used, 4);
    ic_stable_write(4, (uintptr_t)roots, roots_size);
    ic_stable_write(4 + roots_size, (uintptr_t)arena(0), arena_used);
}

static void restore(void *roots, u32 roots_size) {
    u32 size;
    ic_stable_read((uintptr_t)&size, 0, 4);
    reserve(size);
    arena_used = size;
    ic_stable_read((uintptr_t)roots, 4, roots_size);
    ic_stable_read((uintptr_t)arena(0), 4 + roots_size, size);
}

// ---- Candid, reading: only what the methods take; anything else traps ----

typedef struct { const u8 *at, *end; } Reader;
typedef struct { const u8 *bytes; u32 size; } Slice;

static u8 read_byte(Reader *r) {
    if (r->at == r->end) TRAP("argument ends early");
    return *r->at++;
}

static u64 read_leb(Reader *r) {
    u64 value = 0;
    for (u32 shift = 0; shift < 64; shift += 7) {
        u8 byte = read_byte(r);
        value |= (u64)(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
    }
    TRAP("number too long");
}

static Slice read_bytes(Reader *r, u64 size) {
    if (size > (u64)(r->end - r->at)) TRAP("argument ends early");
    Slice slice = {r->at, (u32)size};
    r->at += size;
    return slice;
}

static Slice read_slice(Reader *r) { return read_bytes(r, read_leb(r)); }

static void expect(Reader *r, u8 byte) {
    if (read_byte(r) != byte) TRAP("argument of another type");
}

static Reader read_arguments(void) {
    u32 size = ic_arg_size();
    u8 *bytes = scratch(size);
    ic_arg_copy(bytes, 0, size);
    Reader r = {bytes, bytes + size};
    expect(&r, 'D'), expect(&r, 'I'), expect(&r, 'D'), expect(&r, 'L');
    return r;
}

enum { TYPE_NAT64 = 0x78, TYPE_NAT8 = 0x7b, TYPE_NAT = 0x7d, TYPE_TEXT = 0x71, TYPE_OPT = 0x6e, TYPE_VEC = 0x6d,
       TYPE_RECORD = 0x6c, TYPE_VARIANT = 0x6b, TYPE_PRINCIPAL = 0x68 };

// Skips a type table of zero entries and checks that `count` arguments of primitive type `type` follow.
static Reader read_primitives(u32 count, u8 type) {
    Reader r = read_arguments();
    expect(&r, 0);
    expect(&r, count);
    for (u32 i = 0; i < count; i++) expect(&r, type);
    return r;
}

static Slice read_principal(Reader *r) {
    expect(r, 1);
    Slice id = read_slice(r);
    if (id.size > PRINCIPAL_MAX) TRAP("principal too long");
    return id;
}

// ---- Candid, writing ----

static void write_leb(u64 value) {
    u8 bytes[10];
    u32 size = 0;
    do {
        bytes[size++] = (value & 0x7f) | (value > 0x7f ? 0x80 : 0);
        value >>= 7;
    } while (value > 0);
    ic_reply_append(bytes, size);
}

static void write_slice(const void *bytes, u32 size) {
    write_leb(size);
    ic_reply_append(bytes, size);
}

#define WRITE(literal) ic_reply_append(literal, sizeof(literal) - 1)

static void reply_nothing(void) {
    WRITE("DIDL\0\0");
    ic_reply();
}

static void reply_nat(u64 value) {
    WRITE("DIDL\0\1\x7d");
    write_leb(value);
    ic_reply();
}

static void reply_caller(void) {
    u8 id[PRINCIPAL_MAX];
    u32 size = ic_caller_size();
    ic_caller_copy(id, 0, size);
    WRITE("DIDL\0\1\x68\1");
    write_slice(id, size);
    ic_reply();
}
