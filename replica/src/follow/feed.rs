//! The last batches of a replica that is followed, in memory.

use crate::certification::BLS_SIGNATURE_BYTES;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of batches kept: who falls back further fetches a checkpoint again, and of it only what changed.
const BYTES_MAX: usize = 64 << 20;

/// A batch that is durable and certified.
#[derive(Debug)]
pub struct Entry {
    /// Its height.
    pub height: u64,
    /// As in the batch log.
    pub record: Vec<u8>,
    /// The root of the certified state after it.
    pub root: [u8; 32],
    /// The subnet's signature on the root.
    pub signature: [u8; BLS_SIGNATURE_BYTES],
}

/// Where the commit thread puts batches and the threads of followers take them.
pub struct Feed {
    kept: Mutex<Kept>,
    added: Condvar,
}

struct Kept {
    /// Consecutive heights.
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// The height of the entry that comes next.
    next_height: u64,
    is_closed: bool,
}

/// What is there for a follower.
pub enum Next {
    /// The batches from the height on.
    Entries(Vec<Arc<Entry>>),
    /// Nothing yet.
    Nothing,
    /// The height is no longer there.
    TooOld,
    /// The replica stops.
    Closed,
}

impl Feed {
    /// A feed whose first entry will have this height.
    pub fn new(next_height: u64) -> Self {
        Self {
            kept: Mutex::new(Kept {
                entries: VecDeque::new(),
                bytes: 0,
                next_height,
                is_closed: false,
            }),
            added: Condvar::new(),
        }
    }

    /// Adds the next batch.
    pub fn push(&self, entry: Entry) {
        let mut kept = self.kept.lock();
        kept.next_height = entry.height + 1;
        kept.bytes += entry.record.len();
        kept.entries.push_back(Arc::new(entry));
        while kept.bytes > BYTES_MAX && kept.entries.len() > 1 {
            let oldest = kept.entries.pop_front();
            kept.bytes -= oldest.map_or(0, |oldest| oldest.record.len());
        }
        drop(kept);
        self.added.notify_all();
    }

    /// Ends the waiting of everybody.
    pub fn close(&self) {
        self.kept.lock().is_closed = true;
        self.added.notify_all();
    }

    /// The height of the oldest batch, or of the one that comes next where there is none.
    pub fn first_height(&self) -> u64 {
        let kept = self.kept.lock();
        kept.entries.front().map_or(kept.next_height, |entry| entry.height)
    }

    /// The batches from `height` on; waits a while for the first one.
    pub fn next(&self, height: u64, wait: Duration) -> Next {
        let mut kept = self.kept.lock();
        if kept.next_height == height && !kept.is_closed {
            self.added.wait_for(&mut kept, wait);
        }
        if kept.is_closed {
            return Next::Closed;
        }
        let first = kept.entries.front().map_or(kept.next_height, |entry| entry.height);
        match height.checked_sub(first) {
            _ if height == kept.next_height => Next::Nothing,
            Some(position) if height < kept.next_height => {
                Next::Entries(kept.entries.range(position as usize..).cloned().collect())
            }
            _ => Next::TooOld,
        }
    }
}
