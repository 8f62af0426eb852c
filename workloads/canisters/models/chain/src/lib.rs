//! Calls that call: chains over several canisters, and one canister asking many at once. Interface: `chain.did`.

use candid::Principal;
use futures_util::future::join_all;
use ic_cdk::call::{Call, CallFailed, Response};
use std::cell::Cell;
use std::future::IntoFuture;

thread_local! {
    static VISITS: Cell<u64> = const { Cell::new(0) };
}

/// Visits `path` one canister after the other, each calling the next, and answers how many were visited, itself included.
#[ic_cdk::update]
async fn walk(path: Vec<Principal>) -> u64 {
    VISITS.set(VISITS.get() + 1);
    let Some((next, rest)) = path.split_first() else {
        return 1;
    };
    let reply = Call::unbounded_wait(*next, "walk").with_arg(rest).await.expect("the next canister answers");
    1 + reply.candid::<u64>().expect("walk answers a number")
}

/// Asks all of `others` at once and answers how many were visited, itself included.
#[ic_cdk::update]
async fn fan_out(others: Vec<Principal>) -> u64 {
    VISITS.set(VISITS.get() + 1);
    let nobody: Vec<Principal> = Vec::new();
    let calls = others.iter().map(|other| Call::unbounded_wait(*other, "walk").with_arg(&nobody).into_future());
    let visited = |reply: Result<Response, CallFailed>| reply.expect("all answer").candid::<u64>().expect("walk answers a number");
    1 + join_all(calls).await.into_iter().map(visited).sum::<u64>()
}

#[ic_cdk::query]
fn visits() -> u64 {
    VISITS.get()
}
