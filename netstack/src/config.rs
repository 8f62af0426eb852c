//! Every bound of the network stack, in one place, each with its reason.
//!
//! None of them changes a result: two replicas with different values here still agree on the state.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// How bytes get in and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetBackend {
    /// io_uring where the kernel allows it, epoll otherwise.
    #[default]
    Auto,
    /// io_uring; starting fails where it is missing or forbidden.
    #[serde(alias = "io_uring")]
    Uring,
    /// epoll.
    Epoll,
}

/// What a [`crate::Server`] needs to start. All fields are plain, so that a configuration file can hold them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address to listen on; port 0 lets the system choose one.
    pub listen: SocketAddr,
    /// Network threads, each with its own listener and event loop; 0 means one per core.
    pub threads: usize,
    /// Which backend moves the bytes.
    pub backend: NetBackend,
    /// What of io_uring is used.
    pub ring: RingFeatures,
    /// Bounds on what clients may do.
    pub limits: NetLimits,
    /// The signature cache.
    pub signature_cache: SignatureCacheConfig,
    /// Whether Ed25519 signatures that came together are verified together. The answers are the same.
    pub signature_batches: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            threads: 0,
            backend: NetBackend::Auto,
            ring: RingFeatures::default(),
            limits: NetLimits::default(),
            signature_cache: SignatureCacheConfig::default(),
            signature_batches: true,
        }
    }
}

/// What of io_uring is used beyond the least that serves. The default is what has been measured to be of use; what the
/// kernel does not know is left out by itself. The answers are the same in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RingFeatures {
    /// One request to the kernel accepts every client, and one for each connection receives all that it sends.
    pub multishot: bool,
    /// Completions are worked off when the loop waits for them, instead of interrupting it.
    pub deferred: bool,
    /// A receive buffer is filled by several receives, one behind the other, instead of being used up by one.
    pub incremental_buffers: bool,
    /// Sockets are registered with the ring, so that operations need not look them up.
    pub registered_files: bool,
}

impl Default for RingFeatures {
    fn default() -> Self {
        Self {
            multishot: true,
            deferred: true,
            incremental_buffers: false,
            registered_files: false,
        }
    }
}

/// Bounds on connections and requests. Over a bound a client gets a clear answer, never a stall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetLimits {
    /// Open connections of the whole server; one more is answered 503 and closed.
    pub connections_max: usize,
    /// Open connections of one peer: of one IPv4 address or one IPv6 /64 network; one more is answered 503 and closed.
    /// A proxy in front of the server is one peer.
    pub connections_per_peer_max: usize,
    /// Bytes of a request's first line and headers; more is 431.
    pub header_bytes_max: usize,
    /// Bytes of a request body; more is 413. The protocol's bound is 5 MiB.
    pub body_bytes_max: usize,
    /// Bytes of one call's whole envelope; more is 413. The published bound on application subnets is 2 MiB.
    pub ingress_bytes_max: usize,
    /// Requests that one connection may have unanswered (HTTP pipelining); further ones wait unread in the socket.
    pub pipeline_max: usize,
    /// Answer bytes waiting for one connection's socket above which its next request is not read. Above 64 MiB the
    /// answers to those that were read are 503.
    pub output_bytes_max: usize,
    /// Bytes of incomplete requests that one network thread holds over all its connections; more is 503. As many bytes of
    /// unread answers: for more, the connection that leaves the most unread is closed.
    pub buffered_bytes_max: usize,
    /// Unanswered calls of the whole server; more is 429.
    pub calls_in_flight_max: usize,
    /// Unanswered queries of the whole server; more is 429.
    pub queries_in_flight_max: usize,
    /// Unanswered `read_state` requests of the whole server; more is 429.
    pub read_states_in_flight_max: usize,
    /// Unanswered requests of one peer; more is 429.
    pub in_flight_per_peer_max: usize,
    /// Unanswered requests of one sender, once it is verified that they are that sender's; more is 429. The anonymous
    /// sender is nobody in particular and is not counted.
    pub in_flight_per_sender_max: usize,
    /// Unanswered calls and queries of one canister; more is 429. The management canister is not counted.
    pub in_flight_per_canister_max: usize,
    /// A connection without a request is closed after this many milliseconds.
    pub idle_timeout_ms: u64,
    /// From a request's first byte to the end of its headers, in milliseconds; longer is 408.
    pub header_timeout_ms: u64,
    /// From the end of the headers to the end of the body, in milliseconds; longer is 408.
    pub body_timeout_ms: u64,
    /// From a complete request to its answer, in milliseconds; longer is 504. The service answers sooner by itself.
    pub answer_timeout_ms: u64,
    /// A client that has not taken what was sent to it after this many milliseconds is disconnected.
    pub write_timeout_ms: u64,
    /// On shutdown, how long requests in flight are waited for, in milliseconds; connections without one are not.
    pub drain_timeout_ms: u64,
    /// Receive buffers of each network thread; a power of two up to 32,768.
    pub receive_buffers: u16,
    /// Bytes of one receive buffer. 16 KiB hold a pipelined burst; smaller ones cost a third of pipelined throughput.
    pub receive_buffer_bytes: usize,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            connections_max: 16_000,
            connections_per_peer_max: 10_000,
            header_bytes_max: 16 * 1024,
            body_bytes_max: 5 * 1024 * 1024,
            ingress_bytes_max: replicore_types::limits::INGRESS_BYTES_MAX,
            pipeline_max: 64,
            output_bytes_max: 1024 * 1024,
            buffered_bytes_max: 512 * 1024 * 1024,
            calls_in_flight_max: 50_000,
            queries_in_flight_max: 20_000,
            read_states_in_flight_max: 10_000,
            in_flight_per_peer_max: 40_000,
            in_flight_per_sender_max: 10_000,
            in_flight_per_canister_max: 25_000,
            idle_timeout_ms: 120_000,
            header_timeout_ms: 10_000,
            body_timeout_ms: 60_000,
            answer_timeout_ms: 300_000,
            write_timeout_ms: 60_000,
            drain_timeout_ms: 5_000,
            receive_buffers: 256,
            receive_buffer_bytes: 16 * 1024,
        }
    }
}

/// Bytes of all receive buffers of one network thread.
const RECEIVE_BYTES_MAX: usize = 1 << 30;

impl NetLimits {
    /// Says which value makes no sense, if one does not.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("connections_max", self.connections_max),
            ("connections_per_peer_max", self.connections_per_peer_max),
            ("in_flight_per_peer_max", self.in_flight_per_peer_max),
            ("in_flight_per_sender_max", self.in_flight_per_sender_max),
            ("in_flight_per_canister_max", self.in_flight_per_canister_max),
            ("calls_in_flight_max", self.calls_in_flight_max),
            ("queries_in_flight_max", self.queries_in_flight_max),
            ("read_states_in_flight_max", self.read_states_in_flight_max),
            ("header_bytes_max", self.header_bytes_max),
            ("ingress_bytes_max", self.ingress_bytes_max),
            ("body_bytes_max", self.body_bytes_max),
            ("pipeline_max", self.pipeline_max),
            ("output_bytes_max", self.output_bytes_max),
            ("receive_buffer_bytes", self.receive_buffer_bytes),
        ];
        if let Some((name, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
            return Err(format!("{name} must be at least 1"));
        }
        if !self.receive_buffers.is_power_of_two() || self.receive_buffers > 1 << 15 {
            return Err("receive_buffers must be a power of two up to 32768".into());
        }
        if self.receive_buffer_bytes > 1 << 24 {
            return Err("receive_buffer_bytes must be at most 16 MiB".into());
        }
        if usize::from(self.receive_buffers) * self.receive_buffer_bytes > RECEIVE_BYTES_MAX {
            return Err(
                "receive_buffers times receive_buffer_bytes must be at most 1 GiB: each network thread takes it".into(),
            );
        }
        if self.buffered_bytes_max <= self.body_bytes_max + self.header_bytes_max {
            return Err("buffered_bytes_max must exceed body_bytes_max and header_bytes_max together".into());
        }
        Ok(())
    }
}

/// The cache of signatures that have been verified. It changes speed, never a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignatureCacheConfig {
    /// False verifies every signature anew.
    pub enabled: bool,
    /// Verified signatures held, at 32 bytes each; rounded up to a power of two.
    pub entries: usize,
    /// An entry is dropped after this many seconds at the latest, or when what it signs expires.
    pub lifetime_seconds: u64,
}

impl Default for SignatureCacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            entries: 256 * 1024,
            lifetime_seconds: 600,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_make_sense_and_nonsense_is_named() {
        assert_eq!(NetLimits::default().check(), Ok(()));
        let error = |change: fn(&mut NetLimits)| {
            let mut limits = NetLimits::default();
            change(&mut limits);
            limits.check().unwrap_err()
        };
        assert!(error(|limits| limits.pipeline_max = 0).contains("pipeline_max"));
        assert!(error(|limits| limits.receive_buffers = 3).contains("receive_buffers"));
        assert!(error(|limits| limits.buffered_bytes_max = 0).contains("buffered_bytes_max"));
    }
}
