//! Quantities with a unit. Arithmetic saturates: an amount never wraps and never panics.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// Bytes in an operating-system page: the unit of write tracking, persistence and page charges.
pub const OS_PAGE_BYTES: usize = 4096;

/// Bytes in a WebAssembly page.
pub const WASM_PAGE_BYTES: usize = 65_536;

/// An amount of cycles, 128 bits as in the interface specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cycles(pub u128);

/// A number of metered Wasm instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NumInstructions(pub u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NumBytes(pub u64);

macro_rules! saturating_arithmetic {
    ($name:ident, $inner:ty) => {
        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);
            /// The largest amount; sums stop here.
            pub const MAX: Self = Self(<$inner>::MAX);

            /// The number without its unit.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// True for zero.
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }

            /// `self - other`, or `None` where that is negative.
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) {
                    Some(difference) => Some(Self(difference)),
                    None => None,
                }
            }
        }
        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }
        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }
        impl std::iter::Sum for $name {
            fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
                amounts.fold(Self::ZERO, |sum, amount| sum + amount)
            }
        }
        impl From<$inner> for $name {
            fn from(number: $inner) -> Self {
                Self(number)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

saturating_arithmetic!(Cycles, u128);
saturating_arithmetic!(NumInstructions, u64);
saturating_arithmetic!(NumBytes, u64);
