//! One user of a social network: a canister per user, posts fanned out to the followers' canisters. Interface: `social.did`.

use candid::Principal;
use futures_util::future::join_all;
use ic_cdk::call::Call;
use std::cell::RefCell;
use std::future::IntoFuture;

const TIMELINE_MAX: usize = 1_000;

#[derive(Default)]
struct User {
    followers: Vec<Principal>,
    timeline: Vec<(Principal, String)>,
    received: u64,
}

thread_local! {
    static USER: RefCell<User> = RefCell::default();
}

#[ic_cdk::update]
fn set_followers(followers: Vec<Principal>) {
    USER.with_borrow_mut(|user| user.followers = followers);
}

/// Delivers to all followers and answers how many took it.
#[ic_cdk::update]
async fn post(text: String) -> u64 {
    let followers = USER.with_borrow(|user| user.followers.clone());
    let deliveries = followers.iter().map(|follower| Call::unbounded_wait(*follower, "deliver").with_arg(&text).into_future());
    join_all(deliveries).await.iter().filter(|delivery| delivery.is_ok()).count() as u64
}

/// Takes a post; the oldest goes when the timeline is full.
#[ic_cdk::update]
fn deliver(text: String) {
    let author = ic_cdk::api::msg_caller();
    USER.with_borrow_mut(|user| {
        user.received += 1;
        if user.timeline.len() == TIMELINE_MAX {
            user.timeline.remove(0);
        }
        user.timeline.push((author, text));
    });
}

/// The newest posts, newest first.
#[ic_cdk::query]
fn timeline(count: u32) -> Vec<(Principal, String)> {
    USER.with_borrow(|user| user.timeline.iter().rev().take(count as usize).cloned().collect())
}

#[ic_cdk::query]
fn received() -> u64 {
    USER.with_borrow(|user| user.received)
}
