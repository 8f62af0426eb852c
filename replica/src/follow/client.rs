//! The follower's end of a connection.

use super::wire::{Answer, Ask, WIRE_VERSION, WireEntry, is_genuine, receive_answer, send};
use replicore_persistence::sync::{SyncError, SyncManifest, SyncPiece, SyncSource};
use std::io::{self, BufReader, BufWriter};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long the other side may be silent where it owes an answer; a new checkpoint may have to be written first.
const ANSWER_WAIT: Duration = Duration::from_secs(150);
/// How long connecting may take.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// A connection to the replica that is followed.
pub struct Peer {
    reader: BufReader<TcpStream>,
    writer: BufWriter<TcpStream>,
    root_key_der: Vec<u8>,
}

impl Peer {
    /// Connects and learns the subnet's key.
    ///
    /// # Errors
    /// The connection, or another protocol.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_WAIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        let mut peer = Self {
            writer: BufWriter::new(stream.try_clone()?),
            reader: BufReader::new(stream),
            root_key_der: Vec::new(),
        };
        send(&mut peer.writer, &Ask::Hello(WIRE_VERSION))?;
        peer.root_key_der = match peer.answer()? {
            Answer::Welcome(root_key_der) => root_key_der,
            _ => return Err(unexpected()),
        };
        Ok(peer)
    }

    /// DER encoding of the key of the subnet that the peer says it is.
    pub fn root_key_der(&self) -> &[u8] {
        &self.root_key_der
    }

    /// A handle that another thread can break the connection with.
    ///
    /// # Errors
    /// The system gives none.
    pub fn breaker(&self) -> io::Result<TcpStream> {
        self.reader.get_ref().try_clone()
    }

    /// What the peer's checkpoint consists of; genuine: its list hashes to the state hash, which the subnet has signed.
    ///
    /// # Errors
    /// The connection, or a peer that has no checkpoint or none that is genuine.
    pub fn manifest(&mut self) -> io::Result<SyncManifest> {
        send(&mut self.writer, &Ask::Checkpoint)?;
        match self.answer()? {
            Answer::Manifest(manifest, signature) if is_genuine(&manifest, &signature, &self.root_key_der) => {
                Ok(manifest)
            }
            Answer::Manifest(..) => {
                let text =
                    "the peer's checkpoint is not signed by its subnet, or lists another state than it is signed for";
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            _ => Err(unexpected()),
        }
    }

    /// Asks for every batch after this height.
    ///
    /// # Errors
    /// The connection.
    pub fn follow(&mut self, height: u64) -> io::Result<()> {
        // Idle replicas have a round every few seconds. A longer silence may be a peer that is gone without a word: it
        // breaks the connection, and a new one shows.
        send(&mut self.writer, &Ask::Follow(height))
    }

    /// The next batch; `None` where the peer keeps it no longer, and a checkpoint has to be fetched.
    ///
    /// # Errors
    /// The connection.
    pub fn next_entry(&mut self) -> io::Result<Option<WireEntry>> {
        match receive_answer(&mut self.reader)? {
            Answer::Entry(entry) => Ok(Some(entry)),
            Answer::Refused(_) => Ok(None),
            _ => Err(unexpected()),
        }
    }

    /// True where another batch has arrived already.
    pub fn has_more(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    fn answer(&mut self) -> io::Result<Answer> {
        match receive_answer(&mut self.reader)? {
            Answer::Refused(why) => Err(io::Error::other(why)),
            answer => Ok(answer),
        }
    }
}

impl SyncSource for Peer {
    fn pieces(&mut self, wanted: &[SyncPiece]) -> Result<Vec<Vec<u8>>, SyncError> {
        let failed = |error: io::Error| SyncError::Source(error.to_string());
        send(&mut self.writer, &Ask::Pieces(wanted.to_vec())).map_err(failed)?;
        let piece = |_| match self.answer().map_err(failed)? {
            Answer::Piece(bytes) => Ok(bytes),
            _ => Err(failed(unexpected())),
        };
        wanted.iter().map(piece).collect()
    }
}

fn unexpected() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the peer answered something else than it was asked",
    )
}
