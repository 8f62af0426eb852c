//! Who has how much in flight, in memory that does not grow.
//!
//! A table of counters, of which a salted hash of the name picks one. Two names may share a counter, one in 16,384; then
//! they share what one of them may have, which is half of everything by default. Nobody can aim at another's counter,
//! because the salt is chosen at start.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counters of a table, at 8 bytes each.
const COUNTERS: usize = 16 * 1024;

/// Counts by name.
#[derive(Debug)]
pub(crate) struct Crowd {
    counters: Box<[AtomicUsize]>,
    salt: RandomState,
    max: usize,
}

/// One that is counted; dropping it counts down.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    index: usize,
}

impl Crowd {
    /// A table in which every name may be counted up to `max` times.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            counters: (0..COUNTERS).map(|_| AtomicUsize::new(0)).collect(),
            salt: RandomState::new(),
            max,
        })
    }

    /// Counts one more of `name`, unless there are as many as there may be.
    pub(crate) fn enter(self: &Arc<Self>, name: &impl Hash) -> Option<Place> {
        let index = self.index(name);
        let counter = &self.counters[index];
        if counter.fetch_add(1, Ordering::Relaxed) >= self.max {
            counter.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place {
            crowd: self.clone(),
            index,
        })
    }
}

impl Crowd {
    /// True if one more of `name` would be counted now.
    pub(crate) fn has_room(&self, name: &impl Hash) -> bool {
        self.counters[self.index(name)].load(Ordering::Relaxed) < self.max
    }

    fn index(&self, name: &impl Hash) -> usize {
        self.salt.hash_one(name) as usize % COUNTERS
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.counters[self.index].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Under what a peer is counted: its address, or the network that IPv6 gives to one customer, whose addresses cost it
/// nothing.
pub(crate) fn peer_name(address: IpAddr) -> [u8; 8] {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [0, 0, 0, 0, a, b, c, d]
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, ..] = v6.octets();
            [a, b, c, d, e, f, g, h]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_apart_and_down_again() {
        let crowd = Crowd::new(2);
        let first = crowd.enter(&"alice").unwrap();
        let _second = crowd.enter(&"alice").unwrap();
        assert!(crowd.enter(&"alice").is_none() && !crowd.has_room(&"alice"));
        // One of a hundred others may share a counter with her, not all.
        let others: Vec<_> = (0..100).filter_map(|number| crowd.enter(&number)).collect();
        assert!(others.len() > 90);
        drop(first);
        assert!(crowd.has_room(&"alice"));
        assert!(crowd.enter(&"alice").is_some());
    }

    #[test]
    fn a_peer_is_an_address_or_a_customer() {
        let name = |text: &str| peer_name(text.parse().unwrap());
        assert_eq!(name("10.0.0.1"), name("::ffff:10.0.0.1"));
        assert_ne!(name("10.0.0.1"), name("10.0.0.2"));
        assert_eq!(name("2001:db8:1:2::1"), name("2001:db8:1:2:ffff::9"));
        assert_ne!(name("2001:db8:1:2::1"), name("2001:db8:1:3::1"));
    }
}
