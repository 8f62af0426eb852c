//! The signature cache by itself.

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use replicore_netstack::SignatureCacheConfig;
use replicore_netstack::verify::{CacheKind, SignatureCache};
use replicore_types::Time;

/// Signatures that are looked up in turn: more than the processor's caches hold next to each other's sets.
const SIGNATURES: u64 = 100_000;

/// `netstack.cache_hit_ns`: naming a signature (44-byte key, 43-byte payload, 64-byte signature) and finding it among
/// 100,000 others.
pub fn cache_hit(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let cache = SignatureCache::new(&SignatureCacheConfig::default()).map_err(BenchError::new)?;
    let cache = cache.ok_or_else(|| BenchError::new("the signature cache is switched off by default"))?;
    let now = Time(1);
    let (mut key, payload, signature) = ([7; 44], [8; 43], [9; 64]);
    let mut name = |number: u64| {
        key[..8].copy_from_slice(&number.to_le_bytes());
        cache.key(CacheKind::Request, [&key[..], &payload, &signature])
    };
    for number in 0..SIGNATURES {
        cache.insert(&name(number), Time(u64::MAX), now);
    }
    let look_ups = effort.scale(1_000_000);
    let mut hits = 0_u64;
    let samples = effort.samples(|| {
        // A step that shares no factor with the count visits them out of order.
        let numbers = (0..look_ups).map(|step| step * 77_777 % SIGNATURES);
        let (elapsed, found) = seconds(|| numbers.filter(|&number| cache.contains(&name(number), now)).count() as u64);
        hits += found;
        Ok(elapsed / look_ups as f64 * 1e9)
    })?;
    let looked_up = samples.len() as u64 * look_ups;
    if hits < looked_up * 99 / 100 {
        return Err(BenchError::new(format!(
            "only {hits} of {looked_up} look-ups were hits"
        )));
    }
    Ok(vec![Figure::of("netstack.cache_hit_ns", "ns", samples, String::new())])
}
