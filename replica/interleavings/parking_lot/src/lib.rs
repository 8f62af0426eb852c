//! The part of `parking_lot` that the replica's hand-over structures use, on loom's types: whoever locks, waits or wakes
//! gives loom the choice of who goes on.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

/// A lock that loom knows.
pub struct Mutex<T>(loom::sync::Mutex<T>);

/// What a thread holds while it has the lock; empty only while it waits.
pub struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

/// A condition that loom knows.
pub struct Condvar(loom::sync::Condvar);

/// Whether a wait ended by its deadline. Time does not pass here.
pub struct WaitTimeoutResult;

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap()))
    }

    /// Waits as well: who tries takes the lock in the end, and a second choice would only add interleavings.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(self.lock())
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().unwrap()
    }
}

impl Condvar {
    pub fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().unwrap();
        guard.0 = Some(self.0.wait(held).unwrap());
    }

    /// Waits for a deadline that never comes: whoever is not woken deadlocks, which loom reports.
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl WaitTimeoutResult {
    pub fn timed_out(&self) -> bool {
        false
    }
}
