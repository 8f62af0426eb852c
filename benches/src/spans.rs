//! What tracing costs where it is off, where a message is not sampled, and where it is.

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use crate::netstack::Running;
use replicore::config::TracingConfig;
use replicore::spans::Spans;
use replicore_netstack::{HttpRequest, HttpResponse, HttpService, Server, ServerConfig, ServerHandle};
use replicore_types::{MessageId, Payload};
use sha2::{Digest, Sha256};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CLIENTS: u64 = 32;

/// Takes what it is sent, on a port of its own.
struct Sink {
    requests: AtomicU64,
}

impl HttpService for Sink {
    fn respond(&self, _: HttpRequest<'_>) -> HttpResponse {
        self.requests.fetch_add(1, Ordering::Relaxed);
        HttpResponse {
            status: 200,
            content_type: "application/json",
            body: Payload::from(&b"{}"[..]),
        }
    }
}

fn sink() -> Result<(ServerHandle, Arc<Sink>), BenchError> {
    let sink = Arc::new(Sink {
        requests: AtomicU64::new(0),
    });
    let config = ServerConfig {
        threads: 1,
        ..ServerConfig::default()
    };
    let handle = Server::start_plain(config, Arc::clone(&sink) as _).map_err(BenchError::new)?;
    Ok((handle, sink))
}

fn tracing(sink: &ServerHandle, sample_one_in: u64) -> TracingConfig {
    TracingConfig {
        otlp_url: Some(format!("http://{}", sink.local_addr())),
        sample_one_in,
    }
}

/// `tracing.check_ns`: what a stage does for a message that is not sampled; beside it the same where tracing is off.
pub fn check(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let (handle, _sink) = sink()?;
    let started = Spans::start(&tracing(&handle, u64::MAX), "none").map_err(BenchError::new)?;
    let (spans, thread) = started.ok_or_else(|| BenchError::new("tracing did not start"))?;
    let ids: Vec<MessageId> = (0..1_024_u32)
        .map(|number| MessageId(Sha256::digest(number.to_be_bytes()).into()))
        .collect();
    let turns = effort.scale(1_000);
    let nanos = |spans: &Option<Arc<Spans>>| {
        let (elapsed, sampled) = seconds(|| {
            let looks = (0..turns).flat_map(|_| &ids);
            looks
                .filter(|id| black_box(spans).as_ref().is_some_and(|spans| spans.is_sampled(id)))
                .count()
        });
        match sampled {
            0 => Ok(elapsed / (turns * ids.len() as u64) as f64 * 1e9),
            _ => Err(BenchError::new("a message was sampled against the odds")),
        }
    };
    let on = Some(spans);
    let samples = effort.samples(|| Ok([nanos(&on)?, nanos(&None)?]))?;
    drop(on);
    let ended = thread.join();
    ended.map_err(|_| BenchError::new("the thread that sends spans panicked"))?;
    let column = |index: usize| samples.iter().map(|pair| pair[index]).collect::<Vec<_>>();
    let figure = Figure::of("tracing.check_ns", "ns", column(0), String::new()).against("off", column(1));
    Ok(vec![figure])
}

/// `tracing.throughput_ratio`: certified transfers a second of a replica that traces one message in 1,000, over those of
/// one that traces none, in turn; beside it the same where every message is traced, and the rate without.
pub fn throughput(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let (handle, sink) = sink()?;
    let with = |sample_one_in| {
        let tracing = tracing(&handle, sample_one_in);
        Running::start_with(|config| config.tracing = tracing)
    };
    let (mut off, mut sampled, mut all) = (Running::start()?, with(1_000)?, with(1)?);
    let slice =
        (effort.time_left() / (effort.runs as u32 * 4)).clamp(Duration::from_millis(200), Duration::from_secs(2));
    let mut root = String::new();
    let samples = effort.samples(|| {
        let mut rates = [0.0; 3];
        for (running, rate) in [&mut off, &mut sampled, &mut all].into_iter().zip(&mut rates) {
            let (report, reached) = running.load(CLIENTS, slice, 0)?;
            *rate = report.transfers as f64 / report.elapsed.as_secs_f64();
            root = reached;
        }
        Ok(rates)
    })?;
    for running in [off, sampled, all] {
        running.stop()?;
    }
    if sink.requests.load(Ordering::Relaxed) == 0 {
        return Err(BenchError::new("no span was sent"));
    }
    let ratios = |index: usize| samples.iter().map(|rates| rates[index] / rates[0]).collect::<Vec<_>>();
    let rates = samples.iter().map(|rates| rates[0]).collect();
    let figure = Figure::of("tracing.throughput_ratio", "x", ratios(1), root);
    Ok(vec![
        figure.against("every_message", ratios(2)).against("off_rps", rates),
    ])
}
