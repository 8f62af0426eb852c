//! The history as a checkpoint holds it: pieces by time, of which few change between two checkpoints.
//!
//! ```text
//! answered, second s   requests that got their answer in it, batch by batch and in their order, with their statuses
//! open, second s       requests that were taken up in it and have no answer yet, by id
//! ```
//! What has an answer changes twice more: it is reduced to `Done` and it is forgotten, both oldest first. So a checkpoint
//! finds what changed since the last one in the pieces of the seconds in between, in those at the old end, and in those
//! from which a long call was answered.

use super::IngressHistory;
use imbl::OrdMap;
use replicore_types::{IngressStatus, MessageId, Time};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Beginning of every key; with it a key is longer than any principal.
const KEY_PREFIX: [u8; 23] = *b"ingress history by time";
/// Length of a key: prefix, kind, second (big endian).
const KEY_BYTES: usize = KEY_PREFIX.len() + 1 + 8;

/// One piece of the ingress history: its kind and the second of batch time that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HistoryPiece {
    /// Requests without an answer, by when they were taken up.
    Open(u64),
    /// Requests with an answer, by when they got it.
    Answered(u64),
}

impl HistoryPiece {
    /// The piece before all others.
    pub const FIRST: Self = Self::Open(0);

    /// The piece for a request that was taken up at `time`.
    pub(super) fn open(time: Time) -> Self {
        Self::Open(time.0 / NANOS_PER_SECOND)
    }

    /// The piece for a request that was answered at `time`.
    pub(super) fn answered(time: Time) -> Self {
        Self::Answered(time.0 / NANOS_PER_SECOND)
    }

    /// The key under which a checkpoint holds the piece: 32 bytes, more than a principal has.
    pub fn key(self) -> [u8; KEY_BYTES] {
        let (kind, second) = match self {
            Self::Open(second) => (0, second),
            Self::Answered(second) => (1, second),
        };
        let mut key = [0; KEY_BYTES];
        let (prefix, rest) = key.split_at_mut(KEY_PREFIX.len());
        prefix.copy_from_slice(&KEY_PREFIX);
        rest[0] = kind;
        rest[1..].copy_from_slice(&second.to_be_bytes());
        key
    }

    /// The piece with this key, if it is one of a piece.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (kind, second) = key.strip_prefix(&KEY_PREFIX)?.split_first()?;
        let second = u64::from_be_bytes(second.try_into().ok()?);
        match kind {
            0 => Some(Self::Open(second)),
            1 => Some(Self::Answered(second)),
            _ => None,
        }
    }

    /// First and last instant of the piece.
    fn times(self) -> RangeInclusive<Time> {
        let (Self::Open(second) | Self::Answered(second)) = self;
        let first = second.saturating_mul(NANOS_PER_SECOND);
        Time(first)..=Time(first.saturating_add(NANOS_PER_SECOND - 1))
    }
}

/// A request with its status, as a piece has it.
type Entry = (MessageId, Arc<IngressStatus>);

impl IngressHistory {
    /// Every piece that holds something, and the batch time at which it changed last: those of an earlier checkpoint
    /// are as it has them where that is not after the checkpoint's own time.
    pub fn pieces(&self) -> &OrdMap<HistoryPiece, Time> {
        &self.changed_at
    }

    /// The content of a piece; `None` where it holds nothing.
    pub fn piece_bytes(&self, piece: HistoryPiece) -> Option<Vec<u8>> {
        self.changed_at.get(&piece)?;
        let entry = |id: &MessageId| Some((*id, Arc::clone(self.statuses.get(id)?)));
        let batches: Vec<(Time, Vec<Entry>)> = match piece {
            HistoryPiece::Open(_) => {
                let mut batches = BTreeMap::<Time, Vec<Entry>>::new();
                for (time, id) in self.open_in(piece) {
                    batches.entry(*time).or_default().extend(entry(id));
                }
                batches.into_iter().collect()
            }
            HistoryPiece::Answered(_) => {
                let batches = self.answered.range(piece.times());
                batches
                    .map(|(time, ids)| (*time, ids.iter().filter_map(entry).collect()))
                    .collect()
            }
        };
        Some(postcard::to_stdvec(&batches).expect("statuses have a known length and encode into memory"))
    }

    /// Adds a piece that [`IngressHistory::piece_bytes`] gave.
    ///
    /// # Errors
    /// The bytes are no piece, or not this one.
    pub(in crate::state) fn add_piece(&mut self, piece: HistoryPiece, bytes: &[u8]) -> Result<(), String> {
        let batches: Vec<(Time, Vec<Entry>)> = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        let is_answered = matches!(piece, HistoryPiece::Answered(_));
        for (time, entries) in batches {
            if !piece.times().contains(&time) {
                return Err("a status of another time".into());
            }
            for (id, status) in &entries {
                if status.state.is_terminal() != is_answered || (!is_answered && status.time != time) {
                    return Err(format!("request {id} does not belong there"));
                }
                if !is_answered {
                    self.open.insert((time, *id));
                }
                self.answer_bytes += super::answer_bytes(&status.state);
                if self.statuses.insert(*id, Arc::clone(status)).is_some() {
                    return Err(format!("request {id} has two statuses"));
                }
            }
            if is_answered {
                let ids = entries.into_iter().map(|(id, _)| id).collect();
                self.answered.insert(time, Arc::new(ids));
            }
        }
        self.changed_at.insert(piece, Time(0));
        Ok(())
    }

    /// Notes that a piece changed at batch time `now`, or that it holds nothing any more.
    pub(super) fn note_change(&mut self, piece: HistoryPiece, now: Time) {
        let is_empty = match piece {
            HistoryPiece::Open(_) => self.open_in(piece).next().is_none(),
            HistoryPiece::Answered(_) => self.answered.range(piece.times()).next().is_none(),
        };
        match is_empty {
            true => self.changed_at.remove(&piece),
            false => self.changed_at.insert(piece, now),
        };
    }

    /// Requests without an answer that were taken up in the second of a piece.
    fn open_in(&self, piece: HistoryPiece) -> impl Iterator<Item = &(Time, MessageId)> {
        let (first, last) = piece.times().into_inner();
        self.open
            .range((first, MessageId([0; 32]))..=(last, MessageId([0xff; 32])))
    }
}
