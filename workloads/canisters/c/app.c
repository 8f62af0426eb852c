// The application of app.did in C: raw ic0, lists in an arena that is carried over upgrades through stable memory.
#include "ic.h"

typedef struct { u32 next, key_size, value_size; } Pair; // key bytes and value bytes follow
typedef struct { u32 next, size; } Entry; // bytes follow

static struct {
    u64 counter, timer_runs;
    u32 pairs, first_entry, last_entry, entries;
} state;

EXPORT("canister_pre_upgrade") void pre_upgrade(void) { save(&state, sizeof state); }
EXPORT("canister_post_upgrade") void post_upgrade(void) { restore(&state, sizeof state); }

EXPORT("canister_inspect_message") void inspect_message(void) {
    static const char forbidden[] = "forbidden";
    u32 size = ic_method_size();
    u8 *name = scratch(size);
    ic_method_copy(name, 0, size);
    if (size != sizeof forbidden - 1 || !same(name, (const u8 *)forbidden, size)) ic_accept_message();
}

UPDATE(inc) { reply_nat(++state.counter); }
QUERY(get) { reply_nat(state.counter); }

// A later pair hides an earlier one with the same key: the list is searched from its newest end.
// Here and in `note`: the lasting bytes are taken before the argument is read, because that lies in scratch space.
UPDATE(put) {
    u32 offset = arena_take(sizeof(Pair) + ic_arg_size());
    Reader r = read_primitives(2, TYPE_TEXT);
    Slice key = read_slice(&r), value = read_slice(&r);
    Pair *pair = (Pair *)arena(offset);
    u8 *bytes = (u8 *)(pair + 1);
    *pair = (Pair){state.pairs, key.size, value.size};
    __builtin_memcpy(bytes, key.bytes, key.size);
    __builtin_memcpy(bytes + key.size, value.bytes, value.size);
    state.pairs = offset;
    reply_nothing();
}

QUERY(lookup) {
    Reader r = read_primitives(1, TYPE_TEXT);
    Slice key = read_slice(&r);
    WRITE("DIDL\1\x6e\x71\1\0");
    for (u32 offset = state.pairs; offset != 0;) {
        Pair *pair = (Pair *)arena(offset);
        u8 *bytes = (u8 *)(pair + 1);
        if (pair->key_size == key.size && same(bytes, key.bytes, key.size)) {
            WRITE("\1");
            write_slice(bytes + pair->key_size, pair->value_size);
            ic_reply();
            return;
        }
        offset = pair->next;
    }
    WRITE("\0");
    ic_reply();
}

UPDATE(note) {
    u32 offset = arena_take(sizeof(Entry) + ic_arg_size());
    Reader r = read_primitives(1, TYPE_TEXT);
    Slice text = read_slice(&r);
    Entry *entry = (Entry *)arena(offset);
    *entry = (Entry){0, text.size};
    __builtin_memcpy(entry + 1, text.bytes, text.size);
    if (state.last_entry != 0) ((Entry *)arena(state.last_entry))->next = offset;
    if (state.first_entry == 0) state.first_entry = offset;
    state.last_entry = offset;
    reply_nat(state.entries++);
}

QUERY(notes) {
    WRITE("DIDL\1\x6d\x71\1\0");
    write_leb(state.entries);
    for (u32 offset = state.first_entry; offset != 0;) {
        Entry *entry = (Entry *)arena(offset);
        write_slice(entry + 1, entry->size);
        offset = entry->next;
    }
    ic_reply();
}

UPDATE(who) { reply_caller(); }
QUERY(who_query) { reply_caller(); }

UPDATE(fail_trap) {
    state.counter += 100;
    TRAP("trapped on request");
}

UPDATE(fail_reject) {
    state.counter += 1;
    REJECT("rejected on request");
}

UPDATE(forbidden) { reply_nothing(); }

// ---- calls to other canisters ----

static void forward_reply(size_t env) {
    (void)env;
    u32 size = ic_arg_size();
    u8 *bytes = scratch(size);
    ic_arg_copy(bytes, 0, size);
    ic_reply_append(bytes, size);
    ic_reply();
}

static Slice reject_message(void) {
    u32 size = ic_reject_msg_size();
    u8 *bytes = scratch(size);
    ic_reject_msg_copy(bytes, 0, size);
    return (Slice){bytes, size};
}

static void forward_reject(size_t env) {
    (void)env;
    Slice message = reject_message();
    ic_reject((const char *)message.bytes, message.size);
}

static void no_failure(size_t env) {
    (void)env;
    WRITE("DIDL\0\1\x71\x0ano failure");
    ic_reply();
}

static void reply_reject_message(size_t env) {
    (void)env;
    Slice message = reject_message();
    WRITE("DIDL\0\1\x71");
    write_slice(message.bytes, message.size);
    ic_reply();
}

static void call(Slice callee, const char *name, u32 name_size, void (*reply)(size_t), void (*reject)(size_t)) {
    ic_call_new(callee.bytes, callee.size, name, name_size, reply, 0, reject, 0);
    ic_call_append("DIDL\0\0", 6);
    if (ic_call_perform() != 0) TRAP("the call was not accepted");
}

UPDATE(call_other) {
    Reader r = read_primitives(1, TYPE_PRINCIPAL);
    call(read_principal(&r), "inc", 3, forward_reply, forward_reject);
}

UPDATE(call_failing) {
    Reader r = read_primitives(1, TYPE_PRINCIPAL);
    call(read_principal(&r), "fail_trap", 9, no_failure, reply_reject_message);
}

UPDATE(random) { call((Slice){(const u8 *)"", 0}, "raw_rand", 8, forward_reply, forward_reject); }

// ---- timer and certified data ----

UPDATE(arm_timer) {
    ic_global_timer_set(1); // long past: due in the next round
    reply_nothing();
}

EXPORT("canister_global_timer") void global_timer(void) { state.timer_runs++; }
QUERY(timer_count) { reply_nat(state.timer_runs); }

UPDATE(certify) {
    Reader r = read_arguments();
    expect(&r, 1), expect(&r, TYPE_VEC), expect(&r, TYPE_NAT8), expect(&r, 1), expect(&r, 0);
    Slice data = read_slice(&r);
    ic_certified_data_set(data.bytes, data.size);
    reply_nothing();
}

QUERY(certified) {
    WRITE("DIDL\2\x6e\1\x6d\x7b\1\0");
    if (!ic_certificate_present()) {
        WRITE("\0");
        ic_reply();
        return;
    }
    u32 size = ic_certificate_size();
    u8 *bytes = scratch(size);
    ic_certificate_copy(bytes, 0, size);
    WRITE("\1");
    write_slice(bytes, size);
    ic_reply();
}
