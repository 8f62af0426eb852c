// A ledger in C for load: one hash table in the heap, no allocation per transfer. Interface and rules: ledger.did.
// `transfer` answers the number of the transfer, counted from 1 over all accounts.
#include "../c/ic.h"

#define OPENING_BALANCE 1000000000ull
#define FIRST_CAPACITY 1024u
#define HASH_TO 0x657bu // Candid labels are the hashes of the field names
#define HASH_AMOUNT 0xd50311d8u

typedef struct { u64 balance; u8 size, id[PRINCIPAL_MAX], pad[2]; } Account; // size 0: none here (the id of the management canister)

static struct {
    u64 transfers;
    u32 table, capacity, count; // open addressing, capacity a power of two, at most half full
} state;

EXPORT("canister_pre_upgrade") void pre_upgrade(void) { save(&state, sizeof state); }
EXPORT("canister_post_upgrade") void post_upgrade(void) { restore(&state, sizeof state); }

static u32 hash(Slice id) {
    u64 sum = 0xcbf29ce484222325ull;
    for (u32 i = 0; i < id.size; i++) sum = (sum ^ id.bytes[i]) * 0x100000001b3ull;
    return (u32)(sum ^ (sum >> 32));
}

// The account of `id`, or the empty place where it would go. The table is never full, so the walk ends.
static Account *find(Slice id) {
    Account *table = (Account *)arena(state.table);
    for (u32 i = hash(id);; i++) {
        Account *account = &table[i & (state.capacity - 1)];
        if (account->size == 0 || (account->size == id.size && same(account->id, id.bytes, id.size))) return account;
    }
}

static void make_table(u32 capacity) {
    u32 bytes = capacity * sizeof(Account);
    state.table = arena_take(bytes);
    state.capacity = capacity;
    __builtin_memset(arena(state.table), 0, bytes);
}

// Makes room for two more accounts. The old table's bytes stay unused: over all doublings they add up to less than the new one.
static void make_room(void) {
    if (state.capacity == 0) make_table(FIRST_CAPACITY);
    if ((state.count + 2) * 2 <= state.capacity) return;
    u32 old_table = state.table, old_capacity = state.capacity;
    make_table(old_capacity * 2);
    for (u32 i = 0; i < old_capacity; i++) {
        Account *account = (Account *)arena(old_table) + i;
        if (account->size != 0) *find((Slice){account->id, account->size}) = *account;
    }
}

static Account *open(Slice id) {
    Account *account = find(id);
    if (account->size == 0) {
        account->balance = OPENING_BALANCE;
        account->size = id.size;
        __builtin_memcpy(account->id, id.bytes, id.size);
        state.count++;
    }
    return account;
}

// record { to : principal; amount : nat64 }, its fields in the order of their hashes.
static void read_transfer(Slice *to, u64 *amount) {
    Reader r = read_arguments();
    expect(&r, 1), expect(&r, TYPE_RECORD), expect(&r, 2);
    if (read_leb(&r) != HASH_TO) TRAP("argument of another type");
    expect(&r, TYPE_PRINCIPAL);
    if (read_leb(&r) != HASH_AMOUNT) TRAP("argument of another type");
    expect(&r, TYPE_NAT64), expect(&r, 1), expect(&r, 0);
    *to = read_principal(&r);
    __builtin_memcpy(amount, read_bytes(&r, 8).bytes, 8);
}

// "DIDL", one type (variant {Ok : nat64; Err : text}, labels as hashes), one value of it; Ok's hash is the smaller, so its tag is 0.
#define VARIANT_HEAD "DIDL\1\x6b\2\xbc\x8a\1\x78\xc5\xfe\xd2\1\x71\1\0"

static void reply_error(const char *text, u32 size) {
    WRITE(VARIANT_HEAD "\1");
    write_slice(text, size);
    ic_reply();
}
#define ERROR(text) reply_error(text, sizeof(text) - 1)

UPDATE(transfer) {
    make_room();
    Slice to;
    u64 amount;
    read_transfer(&to, &amount);
    u8 id[PRINCIPAL_MAX];
    Slice from = {id, ic_caller_size()};
    ic_caller_copy(id, 0, from.size);
    if (to.size == 0) return ERROR("no such account");
    Account *payer = open(from);
    if (payer->balance < amount) return ERROR("insufficient funds");
    Account *payee = open(to);
    payer->balance -= amount;
    payee->balance += amount;
    u64 number = ++state.transfers;
    WRITE(VARIANT_HEAD "\0");
    ic_reply_append(&number, 8);
    ic_reply();
}

static void reply_nat64(u64 value) {
    WRITE("DIDL\0\1\x78");
    ic_reply_append(&value, 8);
    ic_reply();
}

QUERY(balance_of) {
    Reader r = read_primitives(1, TYPE_PRINCIPAL);
    Slice id = read_principal(&r);
    Account *account = state.capacity == 0 ? 0 : find(id);
    reply_nat64(account != 0 && account->size != 0 ? account->balance : OPENING_BALANCE);
}

QUERY(total_supply) {
    u64 sum = 0;
    for (u32 i = 0; i < state.capacity; i++) {
        Account *account = (Account *)arena(state.table) + i;
        if (account->size != 0) sum += account->balance;
    }
    reply_nat64(sum);
}

QUERY(accounts) { reply_nat64(state.count); }
QUERY(opening_balance) { reply_nat64(OPENING_BALANCE); }
