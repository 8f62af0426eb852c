//! The history and its pieces, against a plain model of both.

use super::{HistoryPiece, IngressHistory};
use proptest::prelude::*;
use replicore_types::limits::INGRESS_HISTORY_TTL;
use replicore_types::{CanisterId, IngressState, IngressStatus, MessageId, Payload, PrincipalId, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

const START: Time = Time(1_700_000_000_000_000_000);

fn id(number: u16) -> MessageId {
    let mut bytes = [0; 32];
    // Neither in the order of numbers nor in that of times.
    bytes[..2].copy_from_slice(&number.wrapping_mul(40_503).to_be_bytes());
    bytes[2..4].copy_from_slice(&number.to_be_bytes());
    MessageId(bytes)
}

fn status(taken_up: Time, state: IngressState) -> IngressStatus {
    IngressStatus {
        receiver: CanisterId::from_index(1),
        source: PrincipalId::anonymous(),
        time: taken_up,
        state,
    }
}

/// What one round does to the history: requests taken up, those of the open ones (by position) that are answered, bytes
/// of answers that may stay, and nanoseconds until the next round.
#[derive(Clone, Debug)]
struct Step {
    taken_up: u16,
    answered: Vec<prop::sample::Index>,
    bytes_max: Option<u64>,
    pause: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let pauses = prop_oneof![
        1_u64..200,
        Just(700_000_000),
        Just(3_000_000_000),
        Just(200_000_000_000)
    ];
    (
        0_u16..6,
        prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        prop::option::weighted(0.2, 0_u64..100),
        pauses,
    )
        .prop_map(|(taken_up, answered, bytes_max, pause)| Step {
            taken_up,
            answered,
            bytes_max,
            pause,
        })
}

/// A history, the times at which its open requests were taken up, and what a checkpoint after every round would hold.
#[derive(Default)]
struct World {
    history: IngressHistory,
    open: BTreeMap<MessageId, Time>,
    next: u16,
    checkpoint: BTreeMap<HistoryPiece, Vec<u8>>,
}

impl World {
    fn round(&mut self, step: &Step, now: Time) {
        let mut statuses = BTreeMap::new();
        for _ in 0..step.taken_up {
            let id = id(self.next);
            self.next += 1;
            self.open.insert(id, now);
            statuses.insert(id, status(now, IngressState::Processing));
        }
        for index in &step.answered {
            let Some((&id, &taken_up)) = self.open.iter().nth(index.index(self.open.len().max(1))) else {
                continue;
            };
            self.open.remove(&id);
            let reply = Payload::from(id.as_bytes()[..7].to_vec());
            statuses.insert(id, status(taken_up, IngressState::Completed(reply)));
        }
        let statuses: Vec<_> = statuses
            .into_iter()
            .map(|(id, status)| (id, Arc::new(status)))
            .collect();
        self.history.set_all(&statuses, now);
        self.history.prune(now);
        if let Some(bytes_max) = step.bytes_max {
            self.history.reduce_to(bytes_max, now, &mut Vec::new());
        }
    }

    /// What a checkpoint writes that knows the one after the round at `since`.
    fn write(&mut self, since: Time) {
        let pieces = self.history.pieces();
        self.checkpoint.retain(|piece, _| pieces.contains_key(piece));
        for (piece, _) in pieces.iter().filter(|(_, time)| **time > since) {
            self.checkpoint
                .insert(*piece, self.history.piece_bytes(*piece).unwrap());
        }
    }

    fn read_back(&self) -> IngressHistory {
        let mut history = IngressHistory::reduced_to(self.history.reduced());
        for (piece, bytes) in &self.checkpoint {
            history.add_piece(*piece, bytes).unwrap();
        }
        history
    }
}

fn same(left: &IngressHistory, right: &IngressHistory) {
    assert_eq!(left.statuses, right.statuses);
    assert_eq!(left.answered, right.answered);
    assert_eq!(left.open, right.open);
    assert_eq!(left.reduced, right.reduced);
    assert_eq!(left.answer_bytes, right.answer_bytes);
    assert!(left.changed_at.keys().eq(right.changed_at.keys()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_pieces_alone_keep_a_checkpoint_whole(steps in prop::collection::vec((step(), any::<bool>()), 1..40)) {
        let mut world = World::default();
        let (mut now, mut last) = (START, Time(0));
        for (step, writes) in steps {
            world.round(&step, now);
            if writes {
                world.write(last);
                last = now;
                same(&world.history, &world.read_back());
                for piece in world.history.pieces().keys() {
                    prop_assert_eq!(&world.checkpoint[piece], &world.history.piece_bytes(*piece).unwrap());
                }
            }
            if writes && step.pause > 1_000_000_000 {
                // A restart: what was read back goes on as if nothing had been.
                world.history = world.read_back();
            }
            now = Time(now.0 + step.pause);
        }
    }
}

#[test]
fn a_piece_costs_what_changed() {
    let mut history = IngressHistory::default();
    for second in 0..100 {
        let now = Time(START.0 + second * 1_000_000_000);
        history.set_all(&[(id(second as u16), Arc::new(status(now, IngressState::Done)))], now);
    }
    assert_eq!(history.pieces().len(), 100);
    let last = Time(START.0 + 99_000_000_000);
    let now = Time(last.0 + 1);
    history.set_all(&[(id(500), Arc::new(status(now, IngressState::Processing)))], now);
    let changed: Vec<_> = history.pieces().iter().filter(|(_, time)| **time > last).collect();
    assert_eq!(changed, [(&HistoryPiece::open(now), &now)]);
    // All are forgotten, one after the other.
    history.prune(Time(last.0 + INGRESS_HISTORY_TTL.as_nanos() as u64));
    assert_eq!(history.pieces().len(), 1);
}

#[test]
fn keys_are_longer_than_principals_and_read_back() {
    for piece in [
        HistoryPiece::FIRST,
        HistoryPiece::open(START),
        HistoryPiece::answered(START),
    ] {
        let key = piece.key();
        assert!(PrincipalId::try_from_slice(&key).is_err());
        assert_eq!(HistoryPiece::from_key(&key), Some(piece));
        assert_eq!(HistoryPiece::from_key(&key[..31]), None);
    }
    let mut unknown = HistoryPiece::FIRST.key();
    unknown[23] = 2;
    assert_eq!(HistoryPiece::from_key(&unknown), None);
}

#[test]
fn pieces_that_do_not_belong_are_refused() {
    let mut history = IngressHistory::default();
    history.set(id(1), status(START, IngressState::Done), START);
    history.set(id(2), status(START, IngressState::Processing), START);
    let [open, answered] = [HistoryPiece::open(START), HistoryPiece::answered(START)];
    let bytes = |piece| history.piece_bytes(piece).unwrap();
    let refused = |piece, bytes: &[u8]| IngressHistory::default().add_piece(piece, bytes).is_err();
    assert!(refused(open, &bytes(answered)) && refused(answered, &bytes(open)));
    assert!(refused(HistoryPiece::Open(7), &bytes(open)));
    assert!(refused(open, &bytes(open)[..20]));
    let mut twice = IngressHistory::default();
    twice.add_piece(open, &bytes(open)).unwrap();
    assert!(twice.add_piece(open, &bytes(open)).is_err());
}

/// The bytes of a piece are part of the format of checkpoints: another encoding is another version of the state hash.
#[test]
fn the_encoding_is_pinned() {
    let mut history = IngressHistory::default();
    let answer = IngressState::Completed(Payload::from(vec![1, 2, 3]));
    history.set(id(1), status(Time(5), answer), START);
    history.set(id(2), status(Time(START.0 - 1), IngressState::Processing), START);
    let digest = |piece| {
        let bytes = history.piece_bytes(piece).unwrap();
        blake3::hash(&bytes).to_hex()[..16].to_string()
    };
    let pieces = [HistoryPiece::answered(START), HistoryPiece::open(Time(START.0 - 1))];
    assert_eq!(pieces.map(digest), ["425b96c5e88bb47e", "db90f90fcf477019"]);
}
