//! The metrics as text, in the exposition format of Prometheus.

use crate::admission::AdmissionPolicy;
use crate::checkpoints::CheckpointWriter;
use crate::dirty_memory::DirtyMemory;
use crate::metrics::{Histogram, Metrics};
use crate::pool::IngressPool;
use crate::process_stats;
use crate::queries::QueryHandler;
use crate::snapshot::Published;
use crate::waiters::Waiters;
use replicore_engine::Engine;
use replicore_netstack::ServerObserver;
use replicore_netstack::verify::{CacheKind, CacheStats, KindStats};
use replicore_persistence::encryption::pages_decrypted;
use replicore_types::Lock;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::time::Instant;

/// What can be looked at while the replica runs.
#[derive(Clone)]
pub struct Observed {
    /// Calls and rounds.
    pub metrics: Arc<Metrics>,
    /// Queries.
    pub queries: Arc<QueryHandler>,
    /// The last certified state.
    pub published: Arc<Published>,
    /// The public HTTP interface.
    pub server: ServerObserver,
    /// Which calls the operator admits.
    pub admission: Arc<AdmissionPolicy>,
    /// Messages that wait for a batch.
    pub pool: Arc<IngressPool>,
    /// Callers that wait for certificates.
    pub waiters: Arc<Waiters>,
    /// Warm instances.
    pub engine: Arc<Engine>,
    /// Threads that execute canisters in rounds.
    pub scheduler_cores: usize,
    /// When the process began to serve.
    pub started: Instant,
    /// The checkpoint store.
    pub checkpoints: Arc<CheckpointWriter>,
}

impl Observed {
    /// Everything, as Prometheus reads it.
    pub fn to_text(&self) -> String {
        let mut text = Text(String::with_capacity(16 * 1024));
        self.write_network(&mut text);
        self.write_calls(&mut text);
        self.write_admission(&mut text);
        self.write_pool(&mut text);
        self.write_rounds(&mut text);
        self.write_storage(&mut text);
        self.write_queries(&mut text);
        self.write_process(&mut text);
        text.0
    }

    fn write_network(&self, text: &mut Text) {
        let stats = self.server.stats();
        text.counter("http_requests_total", "Requests received.", stats.requests);
        text.gauge("http_connections", "Open connections.", stats.connections);
        text.head("http_in_flight", "gauge", "Unanswered requests.");
        for (kind, count) in [
            ("call", stats.calls_in_flight),
            ("query", stats.queries_in_flight),
            ("read_state", stats.read_states_in_flight),
        ] {
            text.sample("http_in_flight", &format!("{{kind=\"{kind}\"}}"), count);
        }
        let batches = stats.signature_batches;
        text.head("signatures_total", "counter", "Ed25519 signatures verified.");
        text.sample("signatures_total", "{how=\"batched\"}", batches.batched);
        text.sample("signatures_total", "{how=\"single\"}", batches.single);
        text.head("signature_batches_total", "counter", "Batches of signatures.");
        text.sample("signature_batches_total", "{outcome=\"held\"}", batches.batches);
        text.sample(
            "signature_batches_total",
            "{outcome=\"taken_apart\"}",
            batches.taken_apart,
        );
        text.head(
            "signature_key_lookups_total",
            "counter",
            "Look-ups of keys whose curve points are kept.",
        );
        for (scheme, keys) in stats.keys {
            for (outcome, count) in [("hit", keys.hits), ("miss", keys.misses)] {
                let labels = format!("{{scheme=\"{scheme}\",outcome=\"{outcome}\"}}");
                text.sample("signature_key_lookups_total", &labels, count);
            }
        }
        if let Some(cache) = stats.signature_cache {
            write_signature_cache(text, &cache);
        }
    }

    fn write_admission(&self, text: &mut Text) {
        text.head(
            "admission_total",
            "counter",
            "Calls by what the admission policy said, and which rule.",
        );
        for count in self.admission.counts() {
            for (decision, number) in [
                ("allowed", count.allowed),
                ("denied", count.denied),
                ("limited", count.limited),
            ] {
                let labels = format!("{{rule=\"{}\",decision=\"{decision}\"}}", count.rule);
                text.sample("admission_total", &labels, number);
            }
        }
    }

    fn write_pool(&self, text: &mut Text) {
        let stats = self.pool.stats();
        text.gauge("pool_messages", "Calls that wait for a batch.", stats.messages);
        text.gauge(
            "pool_under_way",
            "The same with those in rounds that are not published yet.",
            stats.under_way,
        );
        text.gauge("pool_bytes", "Bytes that they count for.", stats.bytes);
        text.gauge("pool_canisters", "Canisters that they are for.", stats.canisters);
        text.gauge(
            "calls_awaited",
            "Calls whose senders wait for the certificate.",
            self.waiters.len(),
        );
    }

    fn write_process(&self, text: &mut Text) {
        let (updates, queries) = self.engine.warm_instances();
        text.head("warm_instances", "gauge", "Idle instances that are kept ready.");
        text.sample("warm_instances", "{purpose=\"updates\"}", updates);
        text.sample("warm_instances", "{purpose=\"queries\"}", queries);
        let made = self.engine.instances_made();
        text.counter(
            "instances_made_total",
            "Instances made, for want of one that was ready.",
            made,
        );
        text.head(
            "lock_found_taken_total",
            "counter",
            "How often a thread found a lock taken, and waited.",
        );
        for lock in Lock::ALL {
            let labels = format!("{{lock=\"{}\"}}", lock.name());
            text.sample("lock_found_taken_total", &labels, lock.found_taken());
        }
        text.gauge(
            "scheduler_cores",
            "Threads that execute canisters in rounds.",
            self.scheduler_cores,
        );
        text.gauge(
            "uptime_seconds",
            "Since the replica began to serve.",
            self.started.elapsed().as_secs_f64(),
        );
        if let Some(bytes) = process_stats::resident_bytes() {
            text.gauge("resident_memory_bytes", "Memory in use.", bytes);
        }
        let times = process_stats::thread_times();
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        text.head(
            "thread_running_seconds_total",
            "counter",
            "Time on the processor by thread name.",
        );
        for (name, time) in &times {
            let labels = format!("{{thread=\"{}\"}}", escaped(name));
            text.sample("thread_running_seconds_total", &labels, seconds(time.running_nanos));
        }
        text.head(
            "thread_waiting_seconds_total",
            "counter",
            "Time without a processor while there was work.",
        );
        for (name, time) in &times {
            let labels = format!("{{thread=\"{}\"}}", escaped(name));
            text.sample("thread_waiting_seconds_total", &labels, seconds(time.waiting_nanos));
        }
    }

    fn write_calls(&self, text: &mut Text) {
        let metrics = &self.metrics;
        let answers = [
            ("certified", &metrics.calls_certified),
            ("accepted", &metrics.calls_accepted),
            ("rejected", &metrics.calls_rejected),
            ("refused", &metrics.calls_refused),
        ];
        text.head("calls_total", "counter", "Calls by how they were answered.");
        for (answer, counter) in answers {
            text.sample("calls_total", &format!("{{answer=\"{answer}\"}}"), counter.get());
        }
        text.histogram(
            "call_seconds",
            "From a call's arrival to its certificate.",
            &metrics.call_latency,
        );
    }

    fn write_rounds(&self, text: &mut Text) {
        let metrics = &self.metrics;
        let height = self
            .published
            .load()
            .map_or(0, |snapshot| snapshot.state.metadata.height.0);
        text.gauge("certified_height", "Height of the last certified state.", height);
        for (name, help, counter) in [
            ("rounds_total", "Rounds executed.", &metrics.rounds),
            (
                "ingress_inducted_total",
                "Ingress messages inducted.",
                &metrics.ingress_inducted,
            ),
            (
                "messages_executed_total",
                "Messages, tasks and slices executed.",
                &metrics.messages_executed,
            ),
            (
                "messages_failed_total",
                "Those of the executed ones that failed.",
                &metrics.messages_failed,
            ),
            (
                "messages_routed_total",
                "Messages from canister to canister.",
                &metrics.messages_routed,
            ),
            (
                "instructions_total",
                "Instructions executed in rounds.",
                &metrics.instructions,
            ),
            (
                "heap_delta_bytes_total",
                "Bytes of pages written.",
                &metrics.heap_delta_bytes,
            ),
        ] {
            text.counter(name, help, counter.get());
        }
        text.histogram("round_seconds", "Execution of a round.", &metrics.round_duration);
    }

    fn write_storage(&self, text: &mut Text) {
        let stats = self.checkpoints.store().stats();
        text.gauge(
            "page_frame_bytes",
            "Bytes of changed pages in memory.",
            DirtyMemory::bytes(),
        );
        text.counter(
            "pages_decrypted_total",
            "Pages of encrypted checkpoints that were decrypted.",
            pages_decrypted(),
        );
        text.gauge(
            "checkpoint_height",
            "Height of the last checkpoint.",
            stats.height.unwrap_or(0),
        );
        text.gauge(
            "checkpoint_live_bytes",
            "Bytes that the last checkpoint uses.",
            stats.live_bytes,
        );
        text.gauge(
            "checkpoint_file_bytes",
            "Bytes of its files. Divided by those in use it is the space amplification.",
            stats.total_bytes,
        );
    }

    fn write_queries(&self, text: &mut Text) {
        let stats = self.queries.stats();
        text.head("queries_total", "counter", "Queries by how they were answered.");
        for (answer, count) in [
            ("at_once", stats.answered_at_once),
            ("by_thread", stats.answered_by_thread),
            ("refused", stats.refused),
        ] {
            text.sample("queries_total", &format!("{{answer=\"{answer}\"}}"), count);
        }
        text.counter(
            "queries_rejected_total",
            "Answered queries that are rejections.",
            stats.rejected,
        );
        text.counter(
            "query_instructions_total",
            "Instructions executed in queries.",
            stats.instructions,
        );
        text.gauge(
            "queries_waiting",
            "Queries that wait for a query thread.",
            stats.waiting,
        );
        text.gauge("queries_paused", "Queries between slices.", stats.paused);
        let cache = stats.cache;
        text.counter("query_cache_hits_total", "Queries answered from the cache.", cache.hits);
        text.counter(
            "query_cache_misses_total",
            "Queries that were not in the cache.",
            cache.misses,
        );
        text.counter(
            "query_cache_stale_total",
            "Misses with an outdated answer.",
            cache.stale,
        );
        text.counter(
            "query_cache_uncacheable_total",
            "Answers that were not kept.",
            cache.uncacheable,
        );
        text.gauge("query_cache_entries", "Answers in the cache.", cache.entries);
        text.gauge("query_cache_bytes", "Bytes that they count for.", cache.bytes);
        text.histogram(
            "query_seconds",
            "From a query's arrival to its answer.",
            self.queries.latency(),
        );
    }
}

fn write_signature_cache(text: &mut Text, cache: &CacheStats) {
    for (name, help, of) in [
        (
            "signature_cache_hits_total",
            "Verifications that were saved.",
            (|kind| kind.hits) as fn(&KindStats) -> u64,
        ),
        (
            "signature_cache_misses_total",
            "Look-ups of what was not known.",
            |kind| kind.misses,
        ),
        (
            "signature_cache_evictions_total",
            "Entries that gave way before their time.",
            |kind| kind.evictions,
        ),
    ] {
        text.head(name, "counter", help);
        for (kind, stats) in CacheKind::ALL.iter().zip(&cache.kinds) {
            text.sample(name, &format!("{{kind=\"{}\"}}", kind.name()), of(stats));
        }
    }
}

/// A label value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Text under construction. Every name begins with `replicore_`.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let written = write!(
            self.0,
            "# HELP replicore_{name} {help}\n# TYPE replicore_{name} {kind}\n"
        );
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let written = writeln!(self.0, "replicore_{name}{labels} {value}");
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.sample(name, "", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let mut total = 0;
        for (bucket, count) in histogram.counts().into_iter().enumerate() {
            total += count;
            let bound = Histogram::upper_bound(bucket).map_or("+Inf".to_owned(), |bound| bound.to_string());
            self.sample(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), total);
        }
        self.sample(&format!("{name}_sum"), "", histogram.sum_seconds());
        self.sample(&format!("{name}_count"), "", total);
    }
}
