//! The side that is followed: a listener, and a thread for each follower.

use super::feed::{Feed, Next};
use super::wire::{Answer, Ask, WIRE_VERSION, WireEntry, receive_ask, send, sign_checkpoint};
use crate::certification::RootKey;
use crate::checkpoints::CheckpointWriter;
use crate::dirty_memory::DirtyMemory;
use replicore_persistence::sync::CheckpointSource;
use std::io::{self, BufReader, BufWriter};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Followers at the same time: each has a thread, and may hold the files of a checkpoint.
const FOLLOWERS_MAX: usize = 16;
/// How often threads look whether the replica stops.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a follower may wait for a new checkpoint, and a write to it may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What followers are served from.
pub struct SyncState {
    /// Signs checkpoints.
    pub root_key: Arc<RootKey>,
    /// Has the checkpoints.
    pub writer: Arc<CheckpointWriter>,
    /// Has the batches.
    pub feed: Arc<Feed>,
    /// Is told where a new checkpoint is needed.
    pub memory: Arc<DirtyMemory>,
}

/// A listener for followers. Dropping it ends their threads.
pub struct SyncServer {
    address: SocketAddr,
    feed: Arc<Feed>,
    is_stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SyncServer {
    /// Listens.
    ///
    /// # Errors
    /// The address is taken, or there is no thread.
    pub fn start(address: SocketAddr, state: SyncState) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (is_stopping, feed) = (Arc::new(AtomicBool::new(false)), Arc::clone(&state.feed));
        let stop = Arc::clone(&is_stopping);
        let thread = std::thread::Builder::new()
            .name("sync".into())
            .spawn(move || accept(&listener, &Arc::new(state), &stop))?;
        info!(%address, "serving followers");
        Ok(Self {
            address,
            feed,
            is_stopping,
            thread: Some(thread),
        })
    }

    /// The address that followers connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SyncServer {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.feed.close();
        let _panic_is_shown = self.thread.take().map(JoinHandle::join);
    }
}

fn accept(listener: &TcpListener, state: &Arc<SyncState>, is_stopping: &Arc<AtomicBool>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !is_stopping.load(Ordering::Relaxed) {
        threads.retain(|thread| !thread.is_finished());
        let Ok((stream, peer)) = listener.accept() else {
            std::thread::sleep(LOOK_INTERVAL / 10);
            continue;
        };
        if threads.len() >= FOLLOWERS_MAX {
            warn!(%peer, "one follower too many was turned away");
            continue;
        }
        let (state, is_stopping) = (Arc::clone(state), Arc::clone(is_stopping));
        let serve = move || {
            info!(%peer, "a follower has come");
            let ended = Connection::new(stream, &state, &is_stopping).and_then(|mut connection| connection.serve());
            info!(%peer, ?ended, "a follower has gone");
        };
        if let Ok(thread) = std::thread::Builder::new().name("follower".into()).spawn(serve) {
            threads.push(thread);
        }
    }
    for thread in threads {
        let _panic_is_shown = thread.join();
    }
}

struct Connection<'a> {
    reader: BufReader<TcpStream>,
    writer: BufWriter<TcpStream>,
    state: &'a SyncState,
    is_stopping: &'a AtomicBool,
    /// The checkpoint that pieces are asked of.
    source: Option<CheckpointSource>,
}

impl<'a> Connection<'a> {
    fn new(stream: TcpStream, state: &'a SyncState, is_stopping: &'a AtomicBool) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK_INTERVAL))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            writer: BufWriter::new(stream.try_clone()?),
            reader: BufReader::new(stream),
            state,
            is_stopping,
            source: None,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        while let Some(ask) = self.next_ask()? {
            match ask {
                Ask::Hello(WIRE_VERSION) => {
                    self.answer(&Answer::Welcome(self.state.root_key.public_key_der().into()))?
                }
                Ask::Hello(other) => {
                    let text = format!("this replica speaks version {WIRE_VERSION} of the protocol, not {other}");
                    return self.answer(&Answer::Refused(text));
                }
                Ask::Checkpoint => self.send_manifest()?,
                Ask::Pieces(pieces) => {
                    for piece in pieces {
                        let bytes = self.source.as_ref().and_then(|source| source.piece(&piece));
                        match bytes {
                            Some(bytes) => self.answer(&Answer::Piece(bytes))?,
                            None => return self.answer(&Answer::Refused(format!("there is no {piece:?}"))),
                        }
                    }
                }
                Ask::Follow(height) => return self.send_entries(height + 1),
            }
        }
        Ok(())
    }

    /// The next message; `None` where the replica stops.
    fn next_ask(&mut self) -> io::Result<Option<Ask>> {
        loop {
            if self.is_stopping.load(Ordering::Relaxed) {
                return Ok(None);
            }
            // A follower sends its messages whole; where one is late, waiting is between messages.
            match std::io::BufRead::fill_buf(&mut self.reader) {
                Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return receive_ask(&mut self.reader).map(Some),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        send(&mut self.writer, answer)
    }

    fn send_manifest(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let height = self.state.writer.store().stats().height;
            // Batches must go on where the checkpoint ends.
            if height.is_some_and(|height| height + 1 >= self.state.feed.first_height()) {
                break;
            }
            self.state.memory.ask_for_checkpoint();
            if Instant::now() >= deadline || self.is_stopping.load(Ordering::Relaxed) {
                return self.answer(&Answer::Refused("no checkpoint was taken in time; try again".into()));
            }
            std::thread::sleep(LOOK_INTERVAL / 10);
        }
        let loaded = match self.state.writer.store().latest() {
            Ok(Some(loaded)) => loaded,
            Ok(None) => return self.answer(&Answer::Refused("there is no checkpoint".into())),
            Err(error) => return self.answer(&Answer::Refused(error.to_string())),
        };
        let source = CheckpointSource::new(loaded);
        let manifest = source.manifest();
        let signature = sign_checkpoint(&self.state.root_key, &manifest);
        self.source = Some(source);
        self.answer(&Answer::Manifest(manifest, signature.into()))
    }

    fn send_entries(&mut self, mut height: u64) -> io::Result<()> {
        self.source = None;
        loop {
            match self.state.feed.next(height, LOOK_INTERVAL) {
                Next::Nothing => {}
                Next::Closed => return Ok(()),
                Next::TooOld => {
                    let text = format!("batch {height} is no longer kept: fetch the checkpoint");
                    return self.answer(&Answer::Refused(text));
                }
                Next::Entries(entries) => {
                    for entry in entries {
                        height = entry.height + 1;
                        self.answer(&Answer::Entry(WireEntry {
                            height: entry.height,
                            record: entry.record.clone(),
                            root: entry.root,
                            signature: entry.signature.into(),
                        }))?;
                    }
                }
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
