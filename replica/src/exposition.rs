//! The metrics as text, in the exposition format of Prometheus.

use crate::metrics::{Histogram, Metrics};
use crate::queries::QueryHandler;
use crate::snapshot::Published;
use std::fmt::{Display, Write};
use std::sync::Arc;

/// What can be looked at while the replica runs.
#[derive(Clone)]
pub struct Observed {
    /// Calls and rounds.
    pub metrics: Arc<Metrics>,
    /// Queries.
    pub queries: Arc<QueryHandler>,
    /// The last certified state.
    pub published: Arc<Published>,
}

impl Observed {
    /// Everything, as Prometheus reads it.
    pub fn to_text(&self) -> String {
        let mut text = Text(String::with_capacity(8 * 1024));
        self.write_calls(&mut text);
        self.write_rounds(&mut text);
        self.write_queries(&mut text);
        text.0
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
