use super::line::UNDER_WAY_MIN;
use super::*;
use replicore_types::Payload;
use std::time::Duration;

fn message(number: u8, bytes: usize, expiry: u64) -> Ingress {
    Ingress {
        message_id: MessageId([number; 32]),
        source: PrincipalId::anonymous(),
        receiver: CanisterId::from_index(0),
        effective_canister_id: None,
        method_name: "m".into(),
        method_payload: Payload::from(vec![0; bytes]),
        expiry: Time(expiry),
        envelope_bytes: 0,
        sender_info: None,
    }
}

fn pool(messages_max: usize, bytes_max: usize) -> IngressPool {
    IngressPool::new(PoolConfig {
        messages_max,
        bytes_max,
        ..PoolConfig::default()
    })
}

/// Takes for a round that finds no message of before in its state.
fn take(pool: &IngressPool, messages_max: usize, bytes_max: usize, time: Time) -> Vec<Ingress> {
    take_beside(pool, messages_max, (bytes_max, time), &|_| 0)
}

fn take_beside(
    pool: &IngressPool,
    messages_max: usize,
    (bytes_max, time): (usize, Time),
    in_state: &dyn Fn(&CanisterId) -> usize,
) -> Vec<Ingress> {
    pool.take(&BatchRoom {
        messages_max,
        bytes_max,
        of_canister_max: 1_000,
        time,
        in_state,
    })
}

fn ids(messages: &[Ingress]) -> Vec<u8> {
    messages.iter().map(|message| message.message_id.0[0]).collect()
}

/// For the canister with this index, from the sender with this number; the anonymous one is 0.
fn message_for(number: u8, canister: u64, sender: u8) -> Ingress {
    let source = match sender {
        0 => PrincipalId::anonymous(),
        _ => PrincipalId::self_authenticating([sender]),
    };
    Ingress {
        receiver: CanisterId::from_index(canister),
        source,
        ..message(number, 10, 9)
    }
}

#[test]
fn canisters_take_turns_and_keep_their_own_order() {
    let pool = pool(100, 100_000);
    for number in 0..6 {
        assert_eq!(pool.offer(message_for(number, 0, 0)), Admission::Added);
    }
    assert_eq!(pool.offer(message_for(10, 1, 0)), Admission::Added);
    assert_eq!(pool.offer(message_for(11, 1, 0)), Admission::Added);
    assert_eq!(pool.offer(message_for(20, 2, 0)), Admission::Added);
    assert_eq!(ids(&take(&pool, 5, 100_000, Time(0))), [0, 10, 20, 1, 11]);
    assert_eq!(pool.offer(message_for(21, 2, 0)), Admission::Added);
    assert_eq!(ids(&take(&pool, 100, 100_000, Time(0))), [2, 21, 3, 4, 5]);
    assert_eq!((pool.stats().messages, pool.stats().under_way), (0, 10));
    pool.published();
    pool.published();
    assert_eq!(pool.stats(), PoolStats::default());
}

#[test]
fn calls_about_a_canister_stand_in_its_line() {
    let pool = pool(100, 100_000);
    for number in 0..3 {
        let about = Some(CanisterId::from_index(7));
        pool.offer(Ingress {
            receiver: CanisterId::MANAGEMENT,
            effective_canister_id: about,
            ..message(number, 10, 9)
        });
    }
    pool.offer(message_for(10, 8, 0));
    assert_eq!(pool.stats().canisters, 2);
    assert_eq!(ids(&take(&pool, 2, 100_000, Time(0))), [0, 10]);
}

#[test]
fn one_canister_and_one_sender_take_a_part_only() {
    let pool = IngressPool::new(PoolConfig {
        messages_per_canister_max: 3,
        messages_per_sender_max: 2,
        ..PoolConfig::default()
    });
    let refused = |number, canister, sender| match pool.offer(message_for(number, canister, sender)) {
        Admission::Full(bound) => Some(bound.contains("canister")),
        _ => None,
    };
    assert_eq!((refused(1, 0, 1), refused(2, 0, 1)), (None, None));
    assert_eq!(refused(3, 1, 1), Some(false), "a third message of the sender");
    assert_eq!(refused(4, 0, 2), None);
    assert_eq!(refused(5, 0, 3), Some(true), "a fourth message for the canister");
    for number in 6..9 {
        assert_eq!(refused(number, 2, 0), None, "the anonymous sender is not counted");
    }
    take(&pool, 2, 100_000, Time(0));
    assert_eq!(refused(3, 1, 1), Some(false), "what is in a round still counts");
    pool.published();
    assert_eq!(refused(3, 1, 1), None, "and not any more once it is published");
}

#[test]
fn a_round_is_given_no_more_of_a_canister_than_it_does() {
    let pool = IngressPool::new(PoolConfig::default());
    for number in 0..3_000 {
        pool.offer(numbered(number));
    }
    pool.offer(message_for(201, 1, 0));
    let (slow, other) = (CanisterId::from_index(0), CanisterId::from_index(1));
    let in_state = std::cell::Cell::new(0);
    let next = || {
        let waits = |canister: &CanisterId| if *canister == slow { in_state.get() } else { 0 };
        let batch = take_beside(&pool, 5_000, (1 << 30, Time(0)), &waits);
        let of = |id| batch.iter().filter(|message| message.receiver == id).count();
        (of(slow), of(other), of(CanisterId::MANAGEMENT))
    };
    assert_eq!(next(), (1_000, 1, 0));
    // The round did 100 of them.
    in_state.set(900);
    pool.offer(message_for(202, 1, 0));
    pool.offer(Ingress {
        receiver: CanisterId::MANAGEMENT,
        effective_canister_id: Some(slow),
        ..message(203, 1, 9)
    });
    assert_eq!(next(), (1, 1, 1), "others, and who controls it, do not wait for it");
    in_state.set(10);
    assert_eq!(next(), (990, 0, 0), "it has become quick");
    in_state.set(900);
    pool.close();
    assert_eq!(next(), (1_009, 0, 0), "when it ends all of it goes into the state");
    assert_eq!(pool.stats().messages, 0);
}

fn numbered(number: u64) -> Ingress {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    Ingress {
        message_id: MessageId(id),
        ..message(0, 1, 9)
    }
}

#[test]
fn calls_that_waited_elsewhere_are_refused_where_there_is_a_crowd() {
    let late = Duration::from_millis(126);
    let slow = |bounds: PoolConfig, messages: u64, waited: Duration| {
        let pool = IngressPool::new(bounds);
        (0..messages).for_each(|number| assert_eq!(pool.offer(numbered(number)), Admission::Added));
        let other = pool.slow(&CanisterId::from_index(1), waited);
        assert_eq!(other, None, "a canister without calls has room");
        pool.slow(&CanisterId::from_index(0), waited).is_some()
    };
    let (crowd, bounds) = (UNDER_WAY_MIN as u64, PoolConfig::default());
    assert!(slow(bounds.clone(), crowd, late));
    assert!(!slow(bounds.clone(), crowd - 1, late), "so many are taken in any case");
    assert!(!slow(bounds.clone(), crowd, Duration::from_millis(125)), "in time");
    let without_bound = PoolConfig {
        waiting_ms_max: 0,
        ..bounds
    };
    assert!(!slow(without_bound, crowd, late));
}

/// A pool whose one canister has more under way than it does in time.
fn slow_pool() -> IngressPool {
    let pool = IngressPool::new(PoolConfig {
        waiting_ms_max: 1,
        ..PoolConfig::default()
    });
    for number in 0..UNDER_WAY_MIN as u64 + 200 {
        assert_eq!(pool.offer(numbered(number)), Admission::Added);
    }
    assert_eq!(take(&pool, 150, 100_000, Time(0)).len(), 150);
    // Longer than the waiting time that is allowed, whatever the machine does meanwhile.
    std::thread::sleep(Duration::from_millis(60));
    pool.published();
    pool
}

#[test]
fn a_canister_that_is_slow_takes_no_more_than_it_does_in_time() {
    let pool = slow_pool();
    assert_eq!(pool.stats().under_way, UNDER_WAY_MIN + 50);
    let (slow, other) = (CanisterId::from_index(0), CanisterId::from_index(1));
    assert!(
        pool.slow(&slow, Duration::ZERO)
            .is_some_and(|bound| bound.contains("pool.waiting_ms_max"))
    );
    assert_eq!(pool.slow(&other, Duration::ZERO), None);
    assert!(matches!(pool.offer(numbered(2_000_000)), Admission::Full(_)));
    assert_eq!(pool.offer(message_for(201, 1, 0)), Admission::Added);
    let management = Ingress {
        receiver: CanisterId::MANAGEMENT,
        effective_canister_id: Some(slow),
        ..message(202, 1, 9)
    };
    assert_eq!(pool.offer(management), Admission::Added);
}

#[test]
fn one_sender_leaves_half_of_a_slow_canister_to_the_others() {
    let pool = slow_pool();
    take(&pool, 1_000, 1_000_000, Time(0));
    pool.published();
    assert_eq!(pool.stats().under_way, 50);
    let from = |sender: u8, number: u64| Ingress {
        source: PrincipalId::self_authenticating([sender]),
        ..numbered(10_000 * u64::from(sender) + number)
    };
    let half = UNDER_WAY_MIN as u64 / 2;
    assert!((0..half).all(|number| pool.offer(from(1, number)) == Admission::Added));
    assert!(matches!(pool.offer(from(1, half)), Admission::Full(bound) if bound.contains("sender")));
    assert_eq!(pool.offer(from(2, 0)), Admission::Added);
    take(&pool, 600, 1_000_000, Time(0));
    assert!(
        matches!(pool.offer(from(1, half)), Admission::Full(_)),
        "those in rounds count"
    );
}

#[test]
fn what_is_published_makes_room() {
    let pool = slow_pool();
    let slow = CanisterId::from_index(0);
    take(&pool, 100, 100_000, Time(0));
    assert!(pool.slow(&slow, Duration::ZERO).is_some(), "those in rounds count");
    pool.published();
    assert_eq!((pool.stats().messages, pool.stats().under_way), (950, 950));
    assert_eq!(pool.slow(&slow, Duration::ZERO), None);
    // Expired ones do not count any more once they are dropped.
    assert!(take(&pool, 2_000, 10_000_000, Time(10)).is_empty());
    pool.published();
    assert_eq!(pool.stats(), PoolStats::default());
    assert!(pool.waiting.lock().lines.is_empty());
}

#[test]
fn keeps_order_and_refuses_duplicates_and_overflow() {
    let pool = pool(2, 10_000);
    assert_eq!(pool.offer(message(1, 10, 9)), Admission::Added);
    assert_eq!(pool.offer(message(1, 10, 9)), Admission::Duplicate);
    assert_eq!(pool.offer(message(2, 10, 9)), Admission::Added);
    assert!(matches!(pool.offer(message(3, 10, 9)), Admission::Full(_)));
    assert_eq!(ids(&take(&pool, 10, 10_000, Time(5))), [1, 2]);
    assert_eq!(
        pool.offer(message(1, 10, 9)),
        Admission::Added,
        "a taken id may come again: induction judges it"
    );
}

#[test]
fn bounds_bytes_of_pool_and_batch_but_always_makes_progress() {
    let pool = pool(10, 2_000);
    assert_eq!(pool.offer(message(1, 1_000, 9)), Admission::Added);
    assert!(matches!(pool.offer(message(2, 1_000, 9)), Admission::Full(_)));
    assert_eq!(
        take(&pool, 10, 100, Time(0)).len(),
        1,
        "a message larger than the batch goes alone"
    );
    assert!(take(&pool, 10, 100, Time(0)).is_empty());
    assert_eq!(pool.offer(message(2, 1_000, 9)), Admission::Added);
}

#[test]
fn drops_expired_messages() {
    let pool = pool(10, 10_000);
    pool.offer(message(1, 1, 4));
    pool.offer(message(2, 1, 5));
    assert_eq!(take(&pool, 10, 10_000, Time(5)).len(), 1);
}

#[test]
fn waits_for_messages_deadlines_and_the_end() {
    let pool = pool(10, 10_000);
    assert_eq!(
        pool.wait(Some(Instant::now() + Duration::from_millis(1))),
        Woken::Deadline
    );
    pool.offer(message(1, 1, 1));
    assert_eq!(pool.wait(None), Woken::Messages);
    pool.close();
    assert_eq!(pool.wait(None), Woken::Messages, "what was accepted is still taken");
    take(&pool, 10, 10_000, Time(0));
    assert_eq!(pool.wait(None), Woken::Closed);
    assert!(matches!(pool.offer(message(2, 1, 1)), Admission::Full(_)));
}

/// While a round is not published, few messages wait for that and many do not.
#[test]
fn few_messages_are_no_round_beside_another() {
    let pool = pool(10_000, 10_000_000);
    let numbered = |number: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        Ingress {
            message_id: MessageId(id),
            ..message(0, 1, 9)
        }
    };
    let soon = || Some(Instant::now() + Duration::from_millis(1));
    // By themselves, so that the time that has passed is not what wakes.
    let is_awake = |pool: &IngressPool| pool.waiting().is_worth_a_round();
    pool.offer(numbered(0));
    assert_eq!(
        pool.wait(None),
        Woken::Messages,
        "an idle replica takes one message at once"
    );
    assert_eq!(take(&pool, 10, 10_000, Time(0)).len(), 1);
    for number in 1..OVERLAP_MIN {
        pool.offer(numbered(number));
    }
    assert!(!is_awake(&pool));
    assert_eq!(
        pool.wait(soon()),
        Woken::Messages,
        "the deadline holds, and finds messages"
    );
    pool.offer(numbered(OVERLAP_MIN));
    assert!(is_awake(&pool));
    assert_eq!(pool.wait(None), Woken::Messages, "many are worth a round of their own");
    assert_eq!(take(&pool, OVERLAP_MIN - 1, 10_000_000, Time(0)).len(), OVERLAP_MIN - 1);
    assert!(!is_awake(&pool), "two rounds are not published");
    pool.published();
    assert!(!is_awake(&pool), "one round is not published");
    std::thread::scope(|scope| {
        let round = scope.spawn(|| pool.wait(None));
        pool.published();
        assert_eq!(round.join().unwrap(), Woken::Messages, "publishing wakes");
    });
    assert_eq!(take(&pool, 10, 10_000, Time(0)).len(), 1);
    pool.offer(numbered(OVERLAP_MIN + 1));
    assert!(!is_awake(&pool));
    pool.close();
    assert_eq!(pool.wait(None), Woken::Messages, "nothing waits for rounds at the end");
}

#[test]
fn an_abandoned_pool_is_empty_and_stays_closed() {
    let pool = pool(10, 10_000);
    pool.offer(message(1, 1, 1));
    pool.offer(message(2, 1, 1));
    pool.abandon();
    assert_eq!((pool.stats(), pool.wait(None)), (PoolStats::default(), Woken::Closed));
    assert!(matches!(pool.offer(message(3, 1, 1)), Admission::Full(_)));
}
