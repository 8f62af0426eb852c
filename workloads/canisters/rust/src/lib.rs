//! The application of `app.did` with the Rust CDK: compiled as it stands for wasm32 and for wasm64.

use candid::{Nat, Principal};
use ic_cdk::call::Call;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
struct State {
    counter: u64,
    map: BTreeMap<String, String>,
    notes: Vec<String>,
    timer_runs: u64,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

fn with<R>(access: impl FnOnce(&mut State) -> R) -> R {
    STATE.with_borrow_mut(access)
}

#[ic_cdk::pre_upgrade]
fn pre_upgrade() {
    let state = with(std::mem::take);
    let map: Vec<(String, String)> = state.map.into_iter().collect();
    ic_cdk::storage::stable_save((state.counter, map, state.notes, state.timer_runs)).expect("state fits stable memory");
}

#[ic_cdk::post_upgrade]
fn post_upgrade() {
    let (counter, map, notes, timer_runs): (u64, Vec<(String, String)>, Vec<String>, u64) =
        ic_cdk::storage::stable_restore().expect("stable memory holds what pre_upgrade wrote");
    with(|state| *state = State { counter, map: map.into_iter().collect(), notes, timer_runs });
}

#[ic_cdk::inspect_message]
fn inspect_message() {
    if ic_cdk::api::msg_method_name() != "forbidden" {
        ic_cdk::api::accept_message();
    }
}

#[ic_cdk::update]
fn inc() -> Nat {
    with(|state| {
        state.counter += 1;
        state.counter.into()
    })
}

#[ic_cdk::query]
fn get() -> Nat {
    with(|state| state.counter.into())
}

#[ic_cdk::update]
fn put(key: String, value: String) {
    with(|state| state.map.insert(key, value));
}

#[ic_cdk::query]
fn lookup(key: String) -> Option<String> {
    with(|state| state.map.get(&key).cloned())
}

#[ic_cdk::update]
fn note(entry: String) -> Nat {
    with(|state| {
        state.notes.push(entry);
        (state.notes.len() - 1).into()
    })
}

#[ic_cdk::query]
fn notes() -> Vec<String> {
    with(|state| state.notes.clone())
}

#[ic_cdk::update]
fn who() -> Principal {
    ic_cdk::api::msg_caller()
}

#[ic_cdk::query]
fn who_query() -> Principal {
    ic_cdk::api::msg_caller()
}

#[ic_cdk::update]
fn fail_trap() {
    with(|state| state.counter += 100);
    ic_cdk::api::trap("trapped on request");
}

#[ic_cdk::update(manual_reply = true)]
fn fail_reject() {
    with(|state| state.counter += 1);
    ic_cdk::api::msg_reject("rejected on request");
}

#[ic_cdk::update]
fn forbidden() {}

#[ic_cdk::update]
async fn call_other(other: Principal) -> Nat {
    let response = Call::unbounded_wait(other, "inc").await.expect("the other canister answers");
    response.candid().expect("inc answers a nat")
}

#[ic_cdk::update]
async fn call_failing(other: Principal) -> String {
    match Call::unbounded_wait(other, "fail_trap").await {
        Ok(_) => "no failure".to_owned(),
        Err(failure) => failure.to_string(),
    }
}

#[ic_cdk::update]
async fn random() -> Vec<u8> {
    let response = Call::unbounded_wait(Principal::management_canister(), "raw_rand").await.expect("raw_rand answers");
    response.candid().expect("raw_rand answers a blob")
}

#[ic_cdk::update]
fn arm_timer() {
    ic_cdk_timers::set_timer(Duration::ZERO, async { with(|state| state.timer_runs += 1) });
}

#[ic_cdk::query]
fn timer_count() -> Nat {
    with(|state| state.timer_runs.into())
}

#[ic_cdk::update]
fn certify(data: Vec<u8>) {
    ic_cdk::api::certified_data_set(&data);
}

#[ic_cdk::query]
fn certified() -> Option<Vec<u8>> {
    ic_cdk::api::data_certificate()
}
