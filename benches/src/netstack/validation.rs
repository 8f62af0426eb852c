//! What a signed request costs before the service hears of it: its envelope decoded, its id computed, its signatures
//! verified.

use super::sessions::{Session, now_nanos};
use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use replicore_netstack::SignatureCacheConfig;
use replicore_netstack::envelope::{Endpoint, Envelope};
use replicore_netstack::verify::{Batch, Circumstances, Verifier};
use replicore_types::{CanisterId, Time};
use std::sync::Arc;

/// Requests of one sample, each with a key of its own.
const REQUESTS: u64 = 256;

/// `netstack.validation_us` and `netstack.validation_batch_us`: microseconds for a request of an Ed25519 key, alone and in
/// batches of 256 that share no key, without the cache. Beside the first, one whose delegation is known to the cache
/// (`delegated`), one that is new to it in every part (`delegated_first`) and one that is sent again (`repeated`); beside
/// the second, batches of 2, 4, 16 and 64, and of 256 and 16 whose keys are known (`keys_known`).
pub fn validation(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let own_keys: Vec<_> = (0..REQUESTS).map(Session::own).collect();
    let own = bodies(&own_keys);
    let delegated: Vec<_> = (0..REQUESTS).map(Session::delegated).collect();
    let plain = verifier(false)?;
    let warm = verifier(true)?;
    each(&warm, &own)?;
    let samples = effort.samples(|| {
        // A cache that knows the sessions, but none of the requests that come next.
        let sessions = verifier(true)?;
        batches(&sessions, &bodies(&own_keys), 256)?;
        let first = each(&sessions, &bodies(&delegated))?;
        let next = bodies(&delegated);
        Ok([
            each(&plain, &own)?,
            each(&sessions, &next)?,
            first,
            each(&warm, &own)?,
            batches(&plain, &own, 256)?,
            batches(&plain, &own, 2)?,
            batches(&plain, &own, 4)?,
            batches(&plain, &own, 16)?,
            batches(&plain, &own, 64)?,
            batches(&sessions, &bodies(&own_keys), 256)?,
            batches(&sessions, &bodies(&own_keys), 16)?,
        ])
    })?;
    let of = |which: usize| samples.iter().map(|sample| sample[which]).collect::<Vec<_>>();
    Ok(vec![
        Figure::of("netstack.validation_us", "us", of(0), String::new())
            .against("delegated", of(1))
            .against("delegated_first", of(2))
            .against("repeated", of(3)),
        Figure::of("netstack.validation_batch_us", "us", of(4), String::new())
            .against("batches_of_2", of(5))
            .against("batches_of_4", of(6))
            .against("batches_of_16", of(7))
            .against("batches_of_64", of(8))
            .against("keys_known", of(9))
            .against("keys_known_16", of(10)),
    ])
}

/// A request of each session, unlike every other.
fn bodies(sessions: &[Session]) -> Vec<Vec<u8>> {
    let canister = CanisterId::from_index(1);
    sessions
        .iter()
        .map(|session| session.body(canister, now_nanos()))
        .collect()
}

fn verifier(enabled: bool) -> Result<Verifier, BenchError> {
    let config = SignatureCacheConfig {
        enabled,
        ..SignatureCacheConfig::default()
    };
    Verifier::new(&config).map_err(BenchError::new)
}

/// No request here has anything to do with a subnet.
fn no_root_key() -> Arc<[u8]> {
    Arc::from([])
}

fn circumstances() -> Circumstances<'static> {
    Circumstances {
        now: Time(now_nanos()),
        root_key: &no_root_key,
    }
}

/// Microseconds a request, one by one.
fn each(verifier: &Verifier, bodies: &[Vec<u8>]) -> Result<f64, BenchError> {
    let circumstances = circumstances();
    let (elapsed, outcome) = seconds(|| {
        bodies.iter().try_for_each(|body| {
            let envelope = Envelope::decode(body, Endpoint::Call).map_err(BenchError::new)?;
            verifier
                .verify(envelope, &circumstances)
                .map_err(BenchError::new)
                .map(drop)
        })
    });
    outcome?;
    Ok(elapsed / bodies.len() as f64 * 1e6)
}

/// Microseconds a request, so many at a time.
fn batches(verifier: &Verifier, bodies: &[Vec<u8>], size: usize) -> Result<f64, BenchError> {
    let circumstances = circumstances();
    let mut batch = Batch::default();
    let mut proven = 0;
    let (elapsed, outcome) = seconds(|| {
        for group in bodies.chunks(size) {
            for body in group {
                let envelope = Envelope::decode(body, Endpoint::Call).map_err(BenchError::new)?;
                batch.push(verifier.examine(envelope, &circumstances).map_err(BenchError::new)?);
            }
            verifier.prove(&mut batch, circumstances.now, |_, outcome| {
                proven += usize::from(outcome.is_ok());
            });
        }
        Ok::<_, BenchError>(())
    });
    outcome?;
    if proven != bodies.len() {
        return Err(BenchError::new("a good signature was refused"));
    }
    Ok(elapsed / bodies.len() as f64 * 1e6)
}
