//! Time and height. Both enter through the batch; nothing in the deterministic crates reads a clock.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Nanoseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The later instant, saturating at the end of time (year 2554).
    pub const fn plus(self, duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        Self(self.0.saturating_add(if nanos > u64::MAX as u128 {
            u64::MAX
        } else {
            nanos as u64
        }))
    }

    /// How long after `earlier` this is; zero where it is not after.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

/// Whole seconds since 1970-01-01 UTC: the resolution of call deadlines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CoarseTime(pub u32);

impl CoarseTime {
    /// `time` rounded down to a second.
    pub const fn floor(time: Time) -> Self {
        let seconds = time.0 / 1_000_000_000;
        Self(if seconds > u32::MAX as u64 {
            u32::MAX
        } else {
            seconds as u32
        })
    }

    /// The same instant in nanoseconds.
    pub const fn to_time(self) -> Time {
        Time(self.0 as u64 * 1_000_000_000)
    }
}

/// The number of a batch; the first batch has height 1, the empty state height 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Height(pub u64);

impl Height {
    /// The height after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
