// Counts its heartbeats. The count is not carried over upgrades.
#include "../c/ic.h"

static u64 beats, armed;

EXPORT("canister_heartbeat") void heartbeat(void) {
    if (armed == 0) return;
    armed--;
    beats++;
}

UPDATE(arm) {
    Reader r = read_primitives(1, TYPE_NAT64);
    __builtin_memcpy(&armed, read_bytes(&r, 8).bytes, 8);
    reply_nothing();
}

QUERY(beats) { reply_nat(beats); }
