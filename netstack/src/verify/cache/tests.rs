use super::*;

fn cache(entries: usize) -> SignatureCache {
    let config = SignatureCacheConfig {
        entries,
        ..SignatureCacheConfig::default()
    };
    SignatureCache::new(&config).unwrap().unwrap()
}

fn name(cache: &SignatureCache, kind: CacheKind, parts: &[&[u8]]) -> CacheKey {
    cache.key(kind, parts.iter().copied())
}

fn numbered(cache: &SignatureCache, what: &[u8], number: u32) -> CacheKey {
    name(cache, CacheKind::Request, &[what, &number.to_le_bytes()])
}

#[test]
fn every_cache_has_its_own_salt() {
    assert_ne!(numbered(&cache(1), b"a", 1), numbered(&cache(1), b"a", 1));
}

#[test]
fn an_entry_is_found_until_it_expires() {
    let cache = cache(100);
    let key = name(&cache, CacheKind::Chain, &[b"key", b"message", b"signature"]);
    assert!(!cache.contains(&key, Time(5)));
    cache.insert(&key, Time(10), Time(5));
    assert!(cache.contains(&key, Time(10)));
    assert!(!cache.contains(&key, Time(11)));
    cache.insert(&key, Time(u64::MAX), Time(11));
    let lifetime = Duration::from_secs(600).as_nanos() as u64;
    assert!(cache.contains(&key, Time(11 + lifetime)));
    assert!(!cache.contains(&key, Time(12 + lifetime)));
    let stats = cache.stats();
    let expected = KindStats {
        hits: 2,
        misses: 3,
        evictions: 0,
    };
    assert_eq!(stats.kinds[CacheKind::Chain as usize], expected);
    assert_eq!((stats.hits, stats.misses, stats.evictions), (2, 3, 0));
    assert_eq!(stats.kinds[CacheKind::Request as usize], KindStats::default());
}

#[test]
fn parts_and_kinds_do_not_run_into_each_other() {
    let cache = cache(1);
    let request = |parts| name(&cache, CacheKind::Request, parts);
    assert_ne!(request(&[b"ab", b"c", b""]), request(&[b"a", b"bc", b""]));
    assert_ne!(request(&[b"a"]), request(&[b"a", b""]));
    let of_kind = |kind| name(&cache, kind, &[b"a"]).hash;
    assert_ne!(of_kind(CacheKind::Request), of_kind(CacheKind::Delegation));
}

#[test]
fn it_can_be_switched_off() {
    let config = SignatureCacheConfig {
        enabled: false,
        ..SignatureCacheConfig::default()
    };
    assert!(SignatureCache::new(&config).unwrap().is_none());
}

/// The share of 1,000 sessions that are still there after an attacker has inserted so many eighths of the capacity, if
/// each session is used `uses` times in between and the attacker uses each of his own entries `repeats` times.
pub(super) fn survivors(eighths: usize, uses: usize, repeats: usize) -> f64 {
    let capacity = 16 * 1024;
    let cache = cache(capacity);
    let sessions: Vec<_> = (0..1_000).map(|number| numbered(&cache, b"session", number)).collect();
    sessions
        .iter()
        .for_each(|key| cache.insert(key, Time(1_000_000_000_000), Time(1)));
    let attacks = (eighths * capacity / 8) as u32;
    let every = attacks.checked_div(uses as u32).unwrap_or(0);
    for number in 0..attacks {
        let now = Time(2 + u64::from(number));
        if every > 0 && number.is_multiple_of(every) {
            // What is gone is verified and remembered anew, as the verifier does.
            for key in &sessions {
                if !cache.contains(key, now) {
                    cache.insert(key, Time(1_000_000_000_000), now);
                }
            }
        }
        let key = numbered(&cache, b"attack", number);
        cache.insert(&key, Time(u64::MAX), now);
        (0..repeats).for_each(|_| {
            cache.contains(&key, now);
        });
    }
    let now = Time(2 + u64::from(attacks));
    let found = sessions.iter().filter(|key| cache.contains(key, now)).count();
    found as f64 / sessions.len() as f64
}

/// The table and the plot of `docs/network.md`: `REPLICORE_SURVEY=FILE` prints the one and writes the other.
#[test]
fn sessions_survive_a_flood_of_signatures_that_are_seen_once() {
    if let Some(file) = std::env::var_os("REPLICORE_SURVEY") {
        for (uses, repeats) in [(0, 0), (1, 0), (8, 0), (1, 1), (8, 1), (64, 1)] {
            let shares: Vec<_> = [8, 16, 32, 64].map(|eighths| survivors(eighths, uses, repeats)).into();
            println!("session used {uses:2} times, attacker's entries {repeats} times: {shares:.3?}");
        }
        std::fs::write(file, super::survey::plot()).unwrap();
    }
    assert!(survivors(32, 0, 0) < 0.1, "what is of no use gives way");
    assert!(survivors(32, 1, 0) > 0.9, "what was of use once stays");
    // An attacker who repeats each of his signatures competes by recency.
    assert!(survivors(32, 1, 1) < 0.5);
    assert!(survivors(32, 32, 1) > 0.8);
}
