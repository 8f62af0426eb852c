//! The thread that follows: it executes what the peer logged, compares, logs and publishes.

use super::client::Peer;
use super::error::FollowError;
use super::fetched_state::{Staging, fetch_state};
use super::wire::WireEntry;
use crate::certification::{CertifiedRoot, state_root_message, verify_subnet_signature};
use crate::checkpoints::{CheckpointQueue, CheckpointWriter};
use crate::log_writer::decode_record;
use crate::machine::StateMachine;
use crate::recovery::RecoveryError;
use crate::snapshot::{CertifiedSnapshot, Published};
use replicore_persistence::BatchLog;
use replicore_persistence::sync::SyncError;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tracing::warn;

/// From a broken connection to the next attempt.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(500);
/// Batches that are executed before those that wait are made visible.
const UNPUBLISHED_MAX: u32 = 64;
/// Bytes of those batches: they reach the disk together, and the log bounds what may.
const UNPUBLISHED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The connection of the moment, to be broken from outside.
#[derive(Default)]
pub(super) struct Link {
    is_stopping: AtomicBool,
    breaker: parking_lot::Mutex<Option<TcpStream>>,
}

impl Link {
    pub(super) fn set(&self, peer: &Peer) {
        *self.breaker.lock() = peer.breaker().ok();
        // Where the end came in between, nobody else breaks this one.
        if self.is_stopping() {
            self.stop();
        }
    }

    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        if let Some(stream) = &*self.breaker.lock() {
            let _gone_already = stream.shutdown(Shutdown::Both);
        }
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }
}

/// What the following thread owns.
pub(super) struct Following {
    pub(super) staging: Staging,
    pub(super) peer_address: SocketAddr,
    pub(super) root_key_der: Vec<u8>,
    pub(super) machine: StateMachine,
    pub(super) log: BatchLog,
    pub(super) log_bytes: u64,
    pub(super) writer: Arc<CheckpointWriter>,
    pub(super) checkpoints: CheckpointQueue,
    pub(super) truncate_below: Arc<AtomicU64>,
    pub(super) published: Arc<Published>,
    pub(super) link: Arc<Link>,
    /// Batches since the last state that is visible.
    pub(super) unpublished: u32,
    /// Their bytes.
    pub(super) unpublished_bytes: usize,
}

/// How a connection ended.
enum Ended {
    /// It broke; another one may last longer.
    Broken(io::Error),
    /// The peer does not have the next batch any more.
    TooOld,
}

impl Following {
    /// Follows until the link is stopped.
    pub(super) fn run(mut self, first: Peer) -> Result<(), FollowError> {
        let mut peer = Some(first);
        while !self.link.is_stopping() {
            let Some(mut connected) = peer.take().or_else(|| self.reconnect()) else {
                continue;
            };
            match self.follow(&mut connected)? {
                Ended::Broken(error) if !self.link.is_stopping() => {
                    warn!(%error, "the connection to the replica that is followed broke");
                }
                Ended::Broken(_) => {}
                Ended::TooOld => self.fetch_again()?,
            }
        }
        Ok(())
    }

    fn reconnect(&self) -> Option<Peer> {
        std::thread::sleep(RECONNECT_INTERVAL);
        Peer::connect(self.peer_address)
            .ok()
            .filter(|peer| peer.root_key_der() == self.root_key_der)
    }

    fn fetch_again(&mut self) -> Result<(), FollowError> {
        let Some(mut peer) = self.reconnect() else {
            return Ok(());
        };
        self.link.set(&peer);
        let ours = self.machine.state().metadata.height.0;
        match fetch_state(&self.staging, &self.writer, &mut peer, Some(ours)) {
            Ok(state) => {
                let (engine, cores) = (Arc::clone(self.machine.engine()), self.machine.cores());
                self.machine = StateMachine::new(state, engine, cores);
                Ok(())
            }
            Err(FollowError::Io(_, error)) => {
                warn!(%error, "the peer's state could not be fetched");
                Ok(())
            }
            Err(FollowError::Sync(SyncError::Source(error))) => {
                warn!(error, "the peer's state could not be fetched");
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    fn follow(&mut self, peer: &mut Peer) -> Result<Ended, FollowError> {
        self.link.set(peer);
        if let Err(error) = peer.follow(self.machine.state().metadata.height.0) {
            return Ok(Ended::Broken(error));
        }
        loop {
            let entry = match peer.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(Ended::TooOld),
                Err(error) => return Ok(Ended::Broken(error)),
            };
            self.execute(&entry)?;
            self.unpublished += 1;
            self.unpublished_bytes += entry.record.len();
            let are_many = self.unpublished >= UNPUBLISHED_MAX || self.unpublished_bytes >= UNPUBLISHED_BYTES_MAX;
            if !peer.has_more() || are_many {
                self.publish(&entry)?;
            }
        }
    }

    fn execute(&mut self, entry: &WireEntry) -> Result<(), FollowError> {
        let rebases = self.writer.rebases();
        let stored = rebases.take_some();
        self.machine.rebase(&stored);
        rebases.retire(stored);
        let record = decode_record(&entry.record).map_err(|error| RecoveryError::Record(entry.height, error));
        let (root_before, batch) = record?;
        let needed = self.machine.state().metadata.height.next();
        if batch.height != needed || entry.height != needed.0 {
            return Err(RecoveryError::Gap(needed, batch.height).into());
        }
        if root_before != self.machine.state().certified_root() {
            return Err(RecoveryError::Diverged(batch.height).into());
        }
        self.log.append(entry.height, &entry.record)?;
        self.machine.execute_batch(batch);
        if self.machine.state().certified_root() != entry.root {
            return Err(RecoveryError::Diverged(needed.next()).into());
        }
        Ok(())
    }

    /// Makes durable what was executed, and visible what the subnet has signed.
    fn publish(&mut self, entry: &WireEntry) -> Result<(), FollowError> {
        let is_signed = verify_subnet_signature(&self.root_key_der, &state_root_message(&entry.root), &entry.signature);
        let signature = entry.signature.as_slice().try_into().ok().filter(|_| is_signed);
        let signature = signature.ok_or_else(|| {
            FollowError::Unsound(format!(
                "the root after batch {} is not signed by the subnet",
                entry.height
            ))
        })?;
        self.log_bytes += self.log.sync()?.map_or(0, |report| report.bytes_written);
        match self.truncate_below.swap(0, Ordering::AcqRel) {
            0 => {}
            height => self.log.truncate_before(height)?,
        }
        let state = self.machine.state().clone();
        self.checkpoints.offer(&state, self.log_bytes);
        let root = CertifiedRoot::signed(entry.root, signature);
        self.published.store(CertifiedSnapshot::with_root(state, root));
        (self.unpublished, self.unpublished_bytes) = (0, 0);
        Ok(())
    }
}
