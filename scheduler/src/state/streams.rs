//! What is on its way to other subnets, and how much of theirs has come in.
//!
//! For every peer there is an outbox of numbered messages and a count of the messages taken over from the peer's outbox.
//! Both are certified (`/streams/<peer>`), so that the peer can take a slice of the outbox for what this subnet has
//! agreed on, and reads from the count what it may discard.

use crate::certified_state::CertifiedState;
use crate::state::ReplicatedState;
use imbl::OrdMap;
use replicore_types::limits::STREAM_MESSAGES_MAX;
use replicore_types::{CanisterId, Cycles, StreamHeader, StreamMessage, SubnetId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The streams to and from all peers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Streams {
    peers: OrdMap<SubnetId, Peer>,
    /// Cycles that left with messages.
    pub(crate) cycles_sent: Cycles,
    /// Cycles that came with messages.
    pub(crate) cycles_received: Cycles,
}

/// The streams to and from one subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// First and last canister id of the subnet.
    canisters: (CanisterId, CanisterId),
    /// Index of the oldest message in the outbox.
    begin: u64,
    /// Messages that the peer has not taken over, by index and without a gap.
    pub outbox: OrdMap<u64, StreamMessage>,
    /// Messages of the peer that were taken over.
    pub received: u64,
}

/// Canister ids of a new peer that belong to this subnet or to another peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangesOverlap;

impl fmt::Display for RangesOverlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the canister ids of the peer belong to another subnet already")
    }
}

impl std::error::Error for RangesOverlap {}

impl Peer {
    /// What the stream to the peer holds, and how much of the peer's came in.
    pub fn header(&self) -> StreamHeader {
        StreamHeader {
            begin: self.begin,
            end: self.begin + self.outbox.len() as u64,
            received: self.received,
        }
    }

    fn holds(&self, canister: &CanisterId) -> bool {
        (self.canisters.0..=self.canisters.1).contains(canister)
    }
}

impl ReplicatedState {
    /// Lets canisters of this subnet and of `peer` call each other. Part of the state: every replica of the subnet connects
    /// the same peers, before the first round.
    ///
    /// # Errors
    /// The canister ids belong to this subnet or to another peer.
    pub fn connect(&mut self, peer: SubnetId, canisters: (CanisterId, CanisterId)) -> Result<(), RangesOverlap> {
        let overlaps = |other: (CanisterId, CanisterId)| canisters.0 <= other.1 && other.0 <= canisters.1;
        let mut others = self.subnet.streams.peers.values().map(|peer| peer.canisters);
        if overlaps(self.metadata.canister_range) || others.any(overlaps) {
            return Err(RangesOverlap);
        }
        let new = Peer {
            canisters,
            begin: 0,
            outbox: OrdMap::new(),
            received: 0,
        };
        self.subnet.streams.peers.insert(peer, new);
        self.certified = CertifiedState::rebuild(self);
        Ok(())
    }

    /// What the stream to `peer` holds and how much of the peer's came in: from which message on the next slice is of
    /// use. `None` where it is not connected.
    pub fn stream_header(&self, peer: &SubnetId) -> Option<StreamHeader> {
        self.subnet.streams.peers.get(peer).map(Peer::header)
    }
}

impl Streams {
    /// The subnet that a canister lives on, if it is a peer.
    pub fn peer_of(&self, canister: &CanisterId) -> Option<SubnetId> {
        let mut peers = self.peers.iter();
        peers.find(|(_, peer)| peer.holds(canister)).map(|(id, _)| *id)
    }

    /// Cycles that came in with messages from peers.
    pub fn cycles_received(&self) -> Cycles {
        self.cycles_received
    }

    /// The peers and their streams, ascending.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&SubnetId, &Peer)> {
        self.peers.iter()
    }

    /// One peer's streams.
    pub(crate) fn peer(&self, id: &SubnetId) -> Option<&Peer> {
        self.peers.get(id)
    }

    /// True where another request may enter the outbox. Responses always may: the slots of their calls bound them.
    pub(crate) fn has_room(&self, peer: &SubnetId) -> bool {
        let peer = self.peers.get(peer);
        peer.is_some_and(|peer| peer.outbox.len() < STREAM_MESSAGES_MAX)
    }

    /// Sends a message to a peer that is connected.
    pub(crate) fn push(&mut self, peer: &SubnetId, message: StreamMessage) {
        if let Some(peer) = self.peers.get_mut(peer) {
            self.cycles_sent += message.cycles();
            let index = peer.header().end;
            peer.outbox.insert(index, message);
        }
    }

    /// Drops what the peer says to have taken over. One that claims what was never sent, or less than before, is not
    /// believed.
    pub(crate) fn discard(&mut self, peer: &SubnetId, received: u64) {
        if let Some(peer) = self.peers.get_mut(peer)
            && (peer.begin..=peer.header().end).contains(&received)
        {
            for index in peer.begin..received {
                peer.outbox.remove(&index);
            }
            peer.begin = received;
        }
    }

    /// Notes that the next message of a peer was taken over.
    pub(crate) fn note_received(&mut self, peer: &SubnetId, message: &StreamMessage) {
        if let Some(peer) = self.peers.get_mut(peer) {
            self.cycles_received += message.cycles();
            peer.received += 1;
        }
    }
}
