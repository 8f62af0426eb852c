//! Messages from other subnets into the queues, and those for them into their streams.

use crate::round::Round;
use replicore_engine::Execute;
use replicore_types::{CanisterId, RejectCode, RejectContext, Request, Response, StreamMessage, StreamSlice, SubnetId};
use std::sync::Arc;

impl<E: Execute> Round<'_, E> {
    /// Takes over what a batch brings of the peers' streams. Messages that came with an earlier slice are passed over; a
    /// slice that begins after the next one expected brings nothing.
    pub fn induct_streams(&mut self, slices: Vec<StreamSlice>) {
        for slice in slices {
            let streams = &mut self.state.subnet.streams;
            let Some(expected) = streams.peer(&slice.from).map(|peer| peer.received) else {
                continue;
            };
            streams.discard(&slice.from, slice.header.received);
            let Some(known) = expected.checked_sub(slice.begin) else {
                continue;
            };
            let known = usize::try_from(known).unwrap_or(usize::MAX);
            for message in slice.messages.into_iter().skip(known) {
                self.state.subnet.streams.note_received(&slice.from, &message);
                self.stats.stream_messages_received += 1;
                self.take_over(&slice.from, message);
            }
        }
    }

    /// Delivers a message of a peer. One that is not between a canister there and one here has no place to go.
    fn take_over(&mut self, peer: &SubnetId, message: StreamMessage) {
        let (there, here) = match &message {
            StreamMessage::Request(request) => (request.sender, request.receiver),
            StreamMessage::Response(response) => (response.respondent, response.originator),
        };
        let (first, last) = self.state.metadata.canister_range;
        let is_from_there = self.state.subnet.streams.peer_of(&there) == Some(*peer);
        if !is_from_there || !(first..=last).contains(&here) {
            self.state.metadata.metrics.consumed_without_canister += message.cycles();
            return;
        }
        match message {
            StreamMessage::Request(request) => {
                if let Err(request) = self.try_deliver(request) {
                    let context = self.refusal(&request);
                    self.reject(&request, context);
                }
            }
            StreamMessage::Response(response) => self.deliver_response(response),
        }
    }

    /// Sends a request to the peer that hosts its receiver; gives it back where no peer does.
    pub fn try_send(&mut self, request: Arc<Request>) -> Result<(), Arc<Request>> {
        let streams = &mut self.state.subnet.streams;
        let Some(peer) = streams.peer_of(&request.receiver) else {
            return Err(request);
        };
        match streams.has_room(&peer) {
            true => streams.push(&peer, StreamMessage::Request(request)),
            false => self.reject(&request, stream_is_full(&request.receiver)),
        }
        Ok(())
    }

    /// Sends a response to the peer that hosts who waits for it; gives it back where no peer does.
    pub fn try_answer(&mut self, response: Arc<Response>) -> Result<(), Arc<Response>> {
        let streams = &mut self.state.subnet.streams;
        match streams.peer_of(&response.originator) {
            Some(peer) => {
                streams.push(&peer, StreamMessage::Response(response));
                Ok(())
            }
            None => Err(response),
        }
    }
}

fn stream_is_full(receiver: &CanisterId) -> RejectContext {
    RejectContext {
        code: RejectCode::SysTransient,
        message: format!("The stream to the subnet of canister {receiver} is full"),
    }
}
