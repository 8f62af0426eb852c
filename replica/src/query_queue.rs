//! The queue before the query threads: bounded, and fair between canisters.
//!
//! Each canister has its own line; threads take from the lines in turn. A canister that is asked more than it can answer,
//! or whose queries are long, thus delays its own queries and not those of others. A query that has used its slice
//! stands in line again.

use parking_lot::{Condvar, Mutex, MutexGuard};
use replicore_types::{CanisterId, Lock};
use std::collections::{HashMap, VecDeque};

/// What stops something from being queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueFull {
    /// The whole queue is at its bound.
    Whole,
    /// The canister's own line is.
    Canister,
    /// Nothing is taken any more.
    Closed,
}

/// A bounded queue with a line per canister.
pub struct FairQueue<T> {
    lines: Mutex<Lines<T>>,
    arrived: Condvar,
    waiting_max: usize,
    per_canister_max: usize,
}

struct Lines<T> {
    by_canister: HashMap<CanisterId, VecDeque<T>>,
    /// Canisters with a line, in the order of their turns.
    turns: VecDeque<CanisterId>,
    waiting: usize,
    /// Threads that sleep.
    idle: usize,
    closed: bool,
}

impl<T> FairQueue<T> {
    /// An empty queue with these bounds.
    pub fn new(waiting_max: usize, per_canister_max: usize) -> Self {
        Self {
            lines: Mutex::new(Lines {
                by_canister: HashMap::new(),
                turns: VecDeque::new(),
                waiting: 0,
                idle: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
            waiting_max,
            per_canister_max,
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines<T>> {
        Lock::QueryQueue.take(self.lines.try_lock(), || self.lines.lock())
    }

    /// Queues something new for a canister, or gives it back with the bound that is reached.
    pub fn push(&self, canister: CanisterId, item: T) -> Result<(), (T, QueueFull)> {
        let lines = self.lines();
        let in_line = lines.by_canister.get(&canister).map_or(0, VecDeque::len);
        let full = match () {
            () if lines.closed => QueueFull::Closed,
            () if lines.waiting >= self.waiting_max => QueueFull::Whole,
            () if in_line >= self.per_canister_max => QueueFull::Canister,
            () => {
                self.insert(lines, canister, item);
                return Ok(());
            }
        };
        drop(lines);
        Err((item, full))
    }

    /// Queues something again that was taken before: it has its place, whatever the bounds say.
    pub fn push_again(&self, canister: CanisterId, item: T) {
        self.insert(self.lines(), canister, item);
    }

    fn insert(&self, mut lines: MutexGuard<'_, Lines<T>>, canister: CanisterId, item: T) {
        let line = lines.by_canister.entry(canister).or_default();
        line.push_back(item);
        if line.len() == 1 {
            lines.turns.push_back(canister);
        }
        lines.waiting += 1;
        let sleeper = lines.idle > 0;
        drop(lines);
        if sleeper {
            self.arrived.notify_one();
        }
    }

    /// Takes the next item; sleeps while there is none. `None` once the queue is closed and empty.
    pub fn pop(&self) -> Option<(CanisterId, T)> {
        let mut lines = self.lines();
        loop {
            if let Some(taken) = lines.take() {
                return Some(taken);
            }
            if lines.closed {
                return None;
            }
            lines.idle += 1;
            self.arrived.wait(&mut lines);
            lines.idle -= 1;
        }
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.lines().waiting
    }

    /// Takes nothing new; what waits is still handed out.
    pub fn close(&self) {
        self.lines().closed = true;
        self.arrived.notify_all();
    }
}

impl<T> Lines<T> {
    fn take(&mut self) -> Option<(CanisterId, T)> {
        let canister = self.turns.pop_front()?;
        let line = self.by_canister.get_mut(&canister)?;
        let item = line.pop_front();
        match line.is_empty() {
            true => {
                self.by_canister.remove(&canister);
            }
            false => self.turns.push_back(canister),
        }
        self.waiting -= 1;
        item.map(|item| (canister, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> CanisterId {
        CanisterId::from_index(index)
    }

    #[test]
    fn canisters_take_turns_and_keep_their_own_order() {
        let queue = FairQueue::new(100, 10);
        for number in 0..4 {
            queue.push(id(0), number).unwrap();
        }
        queue.push(id(1), 10).unwrap();
        queue.push(id(2), 20).unwrap();
        assert_eq!(queue.pop(), Some((id(0), 0)));
        // A query that was not finished stands in line again, behind those of its canister.
        queue.push_again(id(0), 0);
        queue.close();
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, number)| number).collect();
        assert_eq!(order, [10, 20, 1, 2, 3, 0]);
    }

    #[test]
    fn bounds_name_themselves() {
        let queue = FairQueue::new(3, 2);
        assert_eq!(queue.push(id(0), 'a'), Ok(()));
        assert_eq!(queue.push(id(0), 'b'), Ok(()));
        assert_eq!(queue.push(id(0), 'c'), Err(('c', QueueFull::Canister)));
        assert_eq!(queue.push(id(1), 'd'), Ok(()));
        assert_eq!(queue.push(id(1), 'e'), Err(('e', QueueFull::Whole)));
        assert_eq!(queue.len(), 3);
        queue.close();
        assert_eq!(queue.push(id(2), 'f'), Err(('f', QueueFull::Closed)));
    }

    #[test]
    fn a_sleeping_thread_is_woken() {
        let queue = FairQueue::new(3, 2);
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| (queue.pop(), queue.pop()));
            queue.push(id(1), 'a').unwrap();
            while queue.len() > 0 {
                std::thread::yield_now();
            }
            queue.close();
            assert_eq!(taken.join().unwrap(), (Some((id(1), 'a')), None));
        });
    }
}
