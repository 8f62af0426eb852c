//! Measurements with stable names.
//!
//! Every figure has an id (`scheduler.empty_round_us`), is measured the way its documentation says, and comes with the
//! spread of its runs and a hash of what the work computed. Figures whose state roots disagree are not printed. With
//! [`Effort::smoke`] every measurement is a quick test that it still works.

#![forbid(unsafe_code)]

pub mod ablation;
pub mod baseline;
pub mod counts;
pub mod embedded;
mod engine;
pub mod engine_canister;
pub mod engine_kernels;
mod engine_peers;
mod ledger;
mod machine;
mod measure;
mod netstack;
mod peers;
mod persistence;
mod persistence_encryption;
mod persistence_states;
pub mod profile;
mod queries;
pub mod replicas;
pub mod report;
mod scaling;
mod scheduler;
mod scheduler_history;
mod scheduler_skew;
pub mod simulate;
mod sizes;
mod spans;

pub use machine::Machine;
pub use measure::{Effort, Figure};

use std::fmt;
use std::time::{Duration, Instant};

/// Why a figure could not be measured.
#[derive(Debug)]
pub enum BenchError {
    /// Something went wrong: the suite ends.
    Failed(String),
    /// What the figure needs or compares with is not there on this machine: the suite goes on without the figure and says so.
    LeftOut(String),
}

impl BenchError {
    fn new(what: impl fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }

    fn left_out(why: impl fmt::Display) -> Self {
        Self::LeftOut(why.to_string())
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Failed(what) | Self::LeftOut(what)) = self;
        f.write_str(what)
    }
}

impl std::error::Error for BenchError {}

/// A measurement that gives one or more figures.
type Measurement = fn(&Effort) -> Result<Vec<Figure>, BenchError>;

/// Every measurement with the ids of its figures.
const MEASUREMENTS: &[(&[&str], Measurement)] = &[
    (&["harness.noop_ns"], measure::harness_noop),
    (&["engine.noop_update_us"], engine::noop_update),
    (&["engine.host_call_ns"], engine::host_call),
    (&["engine.host_copy_1k_ns"], engine::host_copy),
    (&["engine.write5_random_pages_us"], engine::write_five_pages),
    (
        &[
            "engine.trap_rollback_page_us",
            "engine.trap_host_us",
            "engine.trap_exhausted_us",
        ],
        engine::traps,
    ),
    (&["engine.stable_single_write_us"], engine::stable_write),
    (&["engine.slice_resume_us"], engine::slice_resume),
    (&["engine.cold_1gib_first_message_us"], engine::cold_heap),
    (&["engine.zipf_update_us"], engine::zipf),
    (
        &[
            "engine.kernels_ratio",
            "engine.kernel_worst_ratio",
            "engine.kernel_f64_ratio",
        ],
        engine_kernels::kernels,
    ),
    (
        &["engine.first_call_quarter_mb_ms"],
        engine_kernels::first_call_quarter_mb,
    ),
    (&["engine.first_call_1mb_ms"], engine_kernels::first_call_1mb),
    (&["engine.cached_call_ms"], engine_kernels::cached_call),
    (&["persistence.page_commit_us"], persistence::page_commit),
    (
        &["persistence.checkpoint_page_us", "persistence.checkpoint_256_ms"],
        persistence::checkpoint,
    ),
    (&["persistence.checkpoint_stall_ms"], persistence::checkpoint_stall),
    (&["persistence.group_commit_ratio"], persistence::group_commit),
    (&["persistence.log_append_ratio"], persistence::log_append),
    (
        &["persistence.checkpoint_100k_canisters_ms"],
        persistence_states::many_canisters,
    ),
    (&["persistence.open_10gib_ms"], persistence_states::open_large),
    (
        &[
            "persistence.encrypted_checkpoint_page_us",
            "persistence.encrypted_read_us",
        ],
        persistence_encryption::encryption,
    ),
    (
        &["scheduler.empty_round_us", "scheduler.single_update_round_us"],
        scheduler::small_rounds,
    ),
    (&["scheduler.noop_update_us"], scheduler::noop_update),
    (&["scheduler.two_core_speedup"], scheduler::two_core_speedup),
    (&["scheduler.call_roundtrip_us"], scheduler::call_roundtrip),
    (&["scheduler.skewed_speedup"], scheduler_skew::speedup),
    (&["scheduler.one_canister_ratio"], scheduler::one_canister_ratio),
    (&["scheduler.idle_100k_round_us"], scheduler::idle_round),
    (&["scheduler.active_20k_round_ms"], scheduler::active_round),
    (&["scheduler.state_tree_1000_ms"], scheduler::state_tree),
    (&["scheduler.checkpoint_history_1000_ms"], scheduler_history::checkpoint),
    (
        &["netstack.update_roundtrip_us", "netstack.query_roundtrip_us"],
        netstack::roundtrips,
    ),
    (&["netstack.http_rps", "netstack.http_vs_axum"], netstack::plain),
    (&["netstack.http_pipelined_rps"], netstack::pipelined),
    (
        &["netstack.server_ns", "netstack.server_pipelined_ns"],
        netstack::ladder,
    ),
    (
        &["netstack.idle_connections_ratio", "netstack.idle_connection_kib"],
        netstack::idle_connections,
    ),
    (
        &[
            "netstack.signed_update_rps",
            "netstack.delegated_update_ratio",
            "netstack.canister_signature_ratio",
        ],
        netstack::signed_updates,
    ),
    (&["netstack.signed_update_p99_ms"], netstack::signed_update_latency),
    (&["netstack.overload_goodput_ratio"], netstack::overload),
    (&["netstack.cache_hit_ns"], netstack::cache_hit),
    (
        &["netstack.validation_us", "netstack.validation_batch_us"],
        netstack::validation,
    ),
    (&["ledger.transfers_rps"], ledger::transfers),
    (&["ledger.postgres_ratio"], ledger::postgres_ratio),
    (&["ledger.redis_always_ratio"], ledger::redis_always_ratio),
    (&["sizes.release_binary_mb"], sizes::release_binary),
    (&["sizes.idle_rss_mb", "sizes.canister_idle_kib"], sizes::idle_replica),
    (&["tracing.check_ns"], spans::check),
    (&["tracing.throughput_ratio"], spans::throughput),
    (&["stages.update_us"], netstack::update_stages),
    (&["scaling.cores_rps"], scaling::cores),
    (&["scaling.canisters_rps"], scaling::canisters),
    (&["netstack.query_rps"], queries::uncached),
    (&["netstack.query_cached_rps"], queries::cached),
];

/// The ids of every figure.
pub fn ids() -> impl Iterator<Item = &'static str> {
    MEASUREMENTS.iter().flat_map(|(ids, _)| ids.iter().copied())
}

/// What a run tells as it goes.
pub trait Report {
    /// A figure is there.
    fn figure(&mut self, figure: &Figure);

    /// A measurement gave no figure, and why: something it compares with is not installed on this machine.
    fn left_out(&mut self, ids: &[&str], why: &str);

    /// A measurement took longer than its share.
    fn overran(&mut self, ids: &[&str], elapsed: Duration, share: Duration) {
        let _ = (ids, elapsed, share);
    }
}

/// Measures the figures whose id is one of `wanted` or begins with one of them (all where nothing is named), and hands
/// each to `report` as soon as it is there.
///
/// The time of the whole ([`Effort`]) is shared out as it goes: what one measurement leaves over, the later ones have.
///
/// # Errors
/// A name that matches no figure, or a measurement that failed.
pub fn run(wanted: &[String], effort: &Effort, report: &mut impl Report) -> Result<(), BenchError> {
    let matches = |id: &str| wanted.is_empty() || wanted.iter().any(|name| id.starts_with(name.as_str()));
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !ids().any(|id| id.starts_with(name.as_str())))
    {
        let known: Vec<_> = ids().collect();
        return Err(BenchError::new(format!(
            "no figure is called `{unknown}`; there are: {}",
            known.join(", ")
        )));
    }
    let chosen: Vec<_> = MEASUREMENTS
        .iter()
        .filter(|(ids, _)| ids.iter().any(|id| matches(id)))
        .collect();
    let begin = Instant::now();
    for (position, (ids, measurement)) in chosen.iter().enumerate() {
        let left = effort.whole.saturating_sub(begin.elapsed());
        let share = left / (chosen.len() - position) as u32;
        let own = effort.begin(share);
        let start = Instant::now();
        let figures = match measurement(&own) {
            Err(BenchError::LeftOut(why)) => {
                report.left_out(ids, &why);
                continue;
            }
            result => result?,
        };
        if start.elapsed() > own.budget {
            report.overran(ids, start.elapsed(), own.budget);
        }
        figures
            .iter()
            .filter(|figure| matches(figure.id))
            .for_each(|figure| report.figure(figure));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        figures: Vec<Figure>,
        left_out: Vec<String>,
    }

    impl Report for Seen {
        fn figure(&mut self, figure: &Figure) {
            self.figures.push(figure.clone());
        }

        fn left_out(&mut self, ids: &[&str], why: &str) {
            assert!(!why.is_empty(), "{ids:?}");
            self.left_out.extend(ids.iter().map(|id| (*id).to_owned()));
        }
    }

    #[test]
    fn every_measurement_works_and_gives_the_figures_it_names() {
        let mut seen = Seen::default();
        run(&[], &Effort::smoke(), &mut seen).unwrap();
        for figure in &seen.figures {
            assert!(figure.value.is_finite() && figure.value >= 0.0, "{figure:?}");
            assert!(figure.low <= figure.value && figure.value <= figure.high, "{figure:?}");
        }
        let present = ids().filter(|id| !seen.left_out.iter().any(|left_out| left_out == id));
        let measured: Vec<_> = seen.figures.iter().map(|figure| figure.id).collect();
        assert_eq!(measured, present.collect::<Vec<_>>());
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = run(&["no.such".into()], &Effort::smoke(), &mut Seen::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("scheduler.empty_round_us"), "{error}");
    }

    /// What tables elsewhere are made of: an id that is here is never taken away or given another meaning.
    const PROMISED: [(&str, &str); 6] = [
        (
            "engine",
            "noop_update_us write5_random_pages_us trap_rollback_page_us stable_single_write_us host_call_ns \
             host_copy_1k_ns kernels_ratio kernel_worst_ratio kernel_f64_ratio first_call_quarter_mb_ms \
             first_call_1mb_ms cached_call_ms slice_resume_us",
        ),
        (
            "persistence",
            "page_commit_us checkpoint_page_us checkpoint_256_ms checkpoint_stall_ms \
             checkpoint_100k_canisters_ms group_commit_ratio log_append_ratio open_10gib_ms",
        ),
        (
            "scheduler",
            "noop_update_us two_core_speedup empty_round_us single_update_round_us call_roundtrip_us \
             idle_100k_round_us active_20k_round_ms state_tree_1000_ms one_canister_ratio",
        ),
        (
            "netstack",
            "http_rps http_vs_axum http_pipelined_rps query_rps query_cached_rps signed_update_rps \
             signed_update_p99_ms delegated_update_ratio canister_signature_ratio cache_hit_ns \
             update_roundtrip_us query_roundtrip_us overload_goodput_ratio",
        ),
        ("ledger", "transfers_rps postgres_ratio redis_always_ratio"),
        ("sizes", "release_binary_mb idle_rss_mb canister_idle_kib"),
    ];

    #[test]
    fn promised_ids_are_there() {
        let known: Vec<_> = ids().collect();
        for (layer, names) in PROMISED {
            for name in names.split(' ') {
                let id = format!("{layer}.{name}");
                assert!(known.contains(&id.as_str()), "{id}");
            }
        }
    }

    #[test]
    fn ids_are_unique_and_of_a_layer() {
        let mut known: Vec<_> = ids().collect();
        known.sort_unstable();
        assert!(known.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(known.iter().all(|id| id.contains('.')));
    }
}
