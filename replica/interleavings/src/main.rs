//! Where threads of the replica hand work to each other, under every interleaving: nothing is lost, nothing is handed over
//! twice, and nobody sleeps beside work. Loom ends a model in which all threads sleep.
//!
//! The files are the replica's own; only the locks and conditions under them are loom's.

#![allow(dead_code, reason = "the models use a part of what the files hold")]

#[path = "../../src/pool/mod.rs"]
mod pool;
#[path = "../../src/query_queue.rs"]
mod query_queue;

/// What the pool reads of the configuration.
mod config {
    pub struct PoolConfig {
        pub messages_max: usize,
        pub bytes_max: usize,
        pub messages_per_canister_max: usize,
        pub messages_per_sender_max: usize,
        pub waiting_ms_max: u64,
        pub call_wait_ms: u64,
    }
}

use config::PoolConfig;
use loom::thread;
use pool::{Admission, BatchRoom, IngressPool, Woken};
use query_queue::FairQueue;
use replicore_types::{
    CallbackId, CanisterId, ConsensusResponse, Ingress, MessageId, Payload, PrincipalId, ResponsePayload, Time,
};
use std::sync::Arc;

fn main() {
    for (name, model) in [
        ("the round thread misses no message", every_message_is_taken as fn()),
        ("the round thread misses no publication", what_waits_for_a_round_is_taken),
        ("the round thread misses no answer", every_answer_is_taken),
        ("what is admitted before the end is taken", what_is_admitted_is_taken),
        ("one copy of a message is admitted", one_copy_is_admitted),
        ("what is published does not count any more", what_is_published_is_forgotten),
        ("no query is left beside a sleeping thread", every_query_is_popped),
        ("query threads end with what was queued", queries_end_with_the_queue),
    ] {
        loom::model(model);
        println!("holds: {name}");
    }
}

fn pool() -> Arc<IngressPool> {
    Arc::new(IngressPool::new(PoolConfig {
        messages_max: 10,
        bytes_max: 1 << 20,
        messages_per_canister_max: 10,
        messages_per_sender_max: 10,
        waiting_ms_max: 1,
        call_wait_ms: 0,
    }))
}

fn message(number: u8) -> Ingress {
    Ingress {
        message_id: MessageId([number; 32]),
        source: PrincipalId::anonymous(),
        receiver: CanisterId::from_index(u64::from(number % 2)),
        effective_canister_id: None,
        method_name: String::new(),
        method_payload: Payload::default(),
        expiry: Time(u64::MAX),
        envelope_bytes: 0,
        sender_info: None,
    }
}

fn take(pool: &IngressPool) -> Vec<u8> {
    let taken = pool.take(&BatchRoom {
        messages_max: 10,
        bytes_max: 1 << 20,
        of_canister_max: 10,
        time: Time(0),
        in_state: &|_| 0,
    });
    taken.iter().map(|message| message.message_id.0[0]).collect()
}

fn every_message_is_taken() {
    let pool = pool();
    let senders: Vec<_> = [1, 2]
        .map(|number| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || assert_eq!(pool.offer(message(number)), Admission::Added))
        })
        .into();
    let mut taken = Vec::new();
    while taken.len() < 2 {
        assert_eq!(pool.wait(None), Woken::Messages);
        taken.extend(take(&pool));
        pool.published();
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    taken.sort_unstable();
    assert_eq!(taken, [1, 2]);
}

/// While a round is not published one message is not worth another one: it must be taken once the round is.
fn what_waits_for_a_round_is_taken() {
    let pool = pool();
    assert_eq!(pool.offer(message(1)), Admission::Added);
    assert_eq!(take(&pool), [1]);
    let sender = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || assert_eq!(pool.offer(message(2)), Admission::Added))
    };
    let committer = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || pool.published())
    };
    assert_eq!(pool.wait(None), Woken::Messages);
    assert_eq!(take(&pool), [2]);
    sender.join().unwrap();
    committer.join().unwrap();
}

fn every_answer_is_taken() {
    let pool = pool();
    let sender = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || assert_eq!(pool.offer(message(1)), Admission::Added))
    };
    let signer = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || {
            pool.answer(ConsensusResponse {
                callback: CallbackId(1),
                payload: ResponsePayload::Data(Payload::default()),
            });
        })
    };
    let (mut messages, mut answers) = (0, 0);
    while messages + answers < 2 {
        assert_eq!(pool.wait(None), Woken::Messages);
        messages += take(&pool).len();
        answers += pool.take_answers(1 << 20).len();
        pool.published();
    }
    sender.join().unwrap();
    signer.join().unwrap();
    assert_eq!((messages, answers), (1, 1));
}

fn what_is_admitted_is_taken() {
    let pool = pool();
    let sender = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || pool.offer(message(1)) == Admission::Added)
    };
    let owner = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || pool.close())
    };
    let mut taken = 0;
    while pool.wait(None) != Woken::Closed {
        taken += take(&pool).len();
    }
    let admitted = sender.join().unwrap();
    owner.join().unwrap();
    assert_eq!(taken, usize::from(admitted));
}

fn one_copy_is_admitted() {
    let pool = pool();
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.offer(message(1)) == Admission::Added)
        })
        .collect();
    let admitted = senders.into_iter().map(|sender| sender.join().unwrap());
    assert_eq!(admitted.filter(|admitted| *admitted).count(), 1);
    assert_eq!(take(&pool), [1]);
}

fn what_is_published_is_forgotten() {
    let pool = pool();
    let sender = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || assert_eq!(pool.offer(message(1)), Admission::Added))
    };
    assert_eq!(pool.wait(None), Woken::Messages);
    let committer = {
        // The first round is handed over while the next one takes what it finds.
        let first = take(&pool).len();
        let pool = Arc::clone(&pool);
        thread::spawn(move || {
            pool.published();
            first
        })
    };
    let second = take(&pool).len();
    sender.join().unwrap();
    assert_eq!(committer.join().unwrap() + second, 1);
    pool.published();
    assert_eq!((pool.stats().messages, pool.stats().under_way), (0, 0));
}

fn every_query_is_popped() {
    let queue = Arc::new(FairQueue::new(10, 10));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.pop().map(|(_, item)| item))
        })
        .collect();
    queue.push(CanisterId::from_index(0), 1).unwrap();
    queue.push(CanisterId::from_index(1), 2).unwrap();
    let mut popped: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap().unwrap())
        .collect();
    popped.sort_unstable();
    assert_eq!(popped, [1, 2]);
}

fn queries_end_with_the_queue() {
    let queue = Arc::new(FairQueue::new(10, 10));
    let thread = {
        let queue = Arc::clone(&queue);
        thread::spawn(move || std::iter::from_fn(|| queue.pop()).count())
    };
    let asker = {
        let queue = Arc::clone(&queue);
        thread::spawn(move || queue.push(CanisterId::from_index(0), 1).is_ok())
    };
    queue.close();
    let queued = asker.join().unwrap();
    assert_eq!(thread.join().unwrap(), usize::from(queued));
}
