//! Signatures that are verified together.
//!
//! What a turn of an event loop has received is decoded and checked request by request; the Ed25519 signatures among it
//! are set aside and verified at the end of the turn. So batches form by load: a request that comes alone is verified
//! alone and at once, and nothing ever waits for company.
//!
//! One rule on both ways (ZIP 215): the batch equation and the single one are both cofactored, so that a batch holds if
//! each of its signatures does. A batch that does not hold is taken apart and each request is verified by itself.

use super::cache::CacheKey;
use super::ed25519_keys::{self, Ed25519Keys};
use super::equation::Equation;
use super::{VerifyError, schemes};
use rand_10::Rng;
use replicore_types::Time;

/// Signatures of one batch equation. Larger ones gain little and keep the answers of the turn waiting.
const SIGNATURES_MAX: usize = 256;
/// Signatures below which a batch costs as much as verifying them one by one.
const SIGNATURES_MIN: usize = 3;
/// After a batch that does not hold, this many requests are verified one by one: whoever sends bad signatures in bulk
/// makes us verify each of them once, not twice.
const SUSPICION: u32 = 512;

/// An Ed25519 signature that is still to be verified.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub key: [u8; 32],
    pub payload: Vec<u8>,
    pub signature: [u8; 64],
    /// What a failure is called.
    pub failure: fn(String) -> VerifyError,
    /// What to remember once it is verified.
    pub remember: Option<(CacheKey, Time)>,
}

impl Check {
    fn prove(&self, keys: &Ed25519Keys) -> Result<(), VerifyError> {
        keys.point(&self.key)
            .and_then(|key| ed25519_keys::verify(&key, &self.payload, &self.signature))
            .map_err(|reason| (self.failure)(schemes::basic(reason)))
    }
}

/// Something that is true if some signatures are: nobody gets at it before [`Batch`] or `Unproven::prove` has verified
/// them.
#[derive(Debug)]
pub struct Unproven<T> {
    value: T,
    checks: Vec<Check>,
    /// What else to remember once all is verified.
    remember: Vec<(CacheKey, Time)>,
}

impl<T> Unproven<T> {
    pub(super) fn new(value: T, checks: Vec<Check>, remember: Vec<(CacheKey, Time)>) -> Self {
        Self {
            value,
            checks,
            remember,
        }
    }

    /// The same proof for what `change` makes of the value.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Unproven<U> {
        Unproven {
            value: change(self.value),
            checks: self.checks,
            remember: self.remember,
        }
    }

    /// The value, if nothing is left to verify.
    pub(crate) fn proven(self) -> Result<T, Self> {
        if self.checks.is_empty() && self.remember.is_empty() {
            Ok(self.value)
        } else {
            Err(self)
        }
    }

    /// Verifies by itself what is left to verify; what is to be remembered goes to `remember`.
    pub(super) fn prove(
        self,
        keys: &Ed25519Keys,
        mut remember: impl FnMut((CacheKey, Time)),
    ) -> Result<T, VerifyError> {
        self.outcome(keys, &mut remember)?;
        Ok(self.value)
    }

    fn outcome(&self, keys: &Ed25519Keys, remember: &mut impl FnMut((CacheKey, Time))) -> Result<(), VerifyError> {
        prove_each(&self.checks, keys, &mut *remember)?;
        self.remember.iter().copied().for_each(remember);
        Ok(())
    }

    fn remember_all(&self, remember: &mut impl FnMut((CacheKey, Time))) {
        let of_checks = self.checks.iter().filter_map(|check| check.remember);
        of_checks.chain(self.remember.iter().copied()).for_each(remember);
    }
}

/// Verifies signatures one by one, in order.
pub(super) fn prove_each(
    checks: &[Check],
    keys: &Ed25519Keys,
    mut remember: impl FnMut((CacheKey, Time)),
) -> Result<(), VerifyError> {
    for check in checks {
        check.prove(keys)?;
        check.remember.into_iter().for_each(&mut remember);
    }
    Ok(())
}

/// What batches have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStats {
    /// Batches of several signatures that held.
    pub batches: u64,
    /// Signatures in them.
    pub batched: u64,
    /// Batches that did not hold and were taken apart.
    pub taken_apart: u64,
    /// Signatures verified one by one.
    pub single: u64,
}

/// Requests of one turn that wait for the end of it. One belongs to each event loop.
#[derive(Debug)]
pub struct Batch<T> {
    waiting: Vec<Unproven<T>>,
    /// Requests that are still to be verified one by one.
    suspicion: u32,
    /// What has been done since [`Batch::take_stats`].
    stats: BatchStats,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            suspicion: 0,
            stats: BatchStats::default(),
        }
    }
}

impl<T> Batch<T> {
    /// Sets a request aside until `Verifier::prove`.
    pub fn push(&mut self, unproven: Unproven<T>) {
        self.waiting.push(unproven);
    }

    /// True if no request waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True if as many requests wait as are verified together: there is no point in setting more aside.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= SIGNATURES_MAX
    }

    /// What has been done since the last call.
    pub(crate) fn take_stats(&mut self) -> BatchStats {
        std::mem::take(&mut self.stats)
    }

    /// Has what waits now verified one by one.
    pub(super) fn verify_singly(&mut self) {
        self.suspicion = self.suspicion.max(self.waiting.len() as u32);
    }

    /// Verifies all that waits and hands each request to `done` with its outcome, in the order in which they came.
    pub(super) fn prove(
        &mut self,
        keys: &Ed25519Keys,
        mut remember: impl FnMut((CacheKey, Time)),
        mut done: impl FnMut(T, Result<(), VerifyError>),
    ) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut rest = waiting.drain(..).peekable();
        while rest.peek().is_some() {
            let mut signatures = 0;
            let mut group = Vec::new();
            while let Some(next) =
                rest.next_if(|next| group.is_empty() || signatures + next.checks.len() <= SIGNATURES_MAX)
            {
                signatures += next.checks.len();
                group.push(next);
            }
            let all_hold = self.holds(&group, signatures, keys);
            for unproven in group {
                let outcome = if all_hold {
                    unproven.remember_all(&mut remember);
                    Ok(())
                } else {
                    unproven.outcome(keys, &mut remember)
                };
                done(unproven.value, outcome);
            }
        }
        drop(rest);
        self.waiting = waiting;
    }

    /// True if the signatures of a group were verified together; false says nothing about any of them.
    fn holds(&mut self, group: &[Unproven<T>], signatures: usize, keys: &Ed25519Keys) -> bool {
        if signatures < SIGNATURES_MIN || self.suspicion > 0 {
            self.suspicion = self.suspicion.saturating_sub(group.len() as u32);
            self.stats.single += signatures as u64;
            return false;
        }
        let (mut equation, mut random) = (Equation::with_capacity(signatures), rand_10::rng());
        let mut checks = group.iter().flat_map(|unproven| &unproven.checks);
        let have_form = checks.all(|check| {
            let random = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
            equation
                .add(&check.key, &check.payload, &check.signature, random, keys)
                .is_some()
        });
        let holds = have_form && equation.holds();
        if holds {
            self.stats.batches += 1;
            self.stats.batched += signatures as u64;
        } else {
            self.stats.taken_apart += 1;
            self.stats.single += signatures as u64;
            self.suspicion = SUSPICION;
        }
        holds
    }
}

#[cfg(test)]
mod tests;
