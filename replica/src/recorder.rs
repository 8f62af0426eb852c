//! Traffic as a file: every verified call and query with its times, so that it can be sent again.
//!
//! One JSON object a line, in the order of the answers:
//! ```text
//! {"at_us":1200,"done_us":5300,"kind":"call","sender":"2vxsx-fae","canister":"aaaaa-aa","effective":"rwlgt-...",
//!  "method":"install_code","argument":"RElETA...","answer":"certified"}
//! ```
//! Times are microseconds since the recording began, of the request's arrival behind the signature check and of its answer:
//! what had been answered before another request arrived may have been its cause. Arguments are in base64. Requests that
//! ended unanswered are not in it. Recording never holds a request up: where the disk does not keep up, records are left out,
//! and the log says how many.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::RwLock;
use replicore_netstack::{
    CallReply, Query, QueryReply, QueryResponse, ReadState, ReadStateError, ReplicaService, Responder, ServiceBusy,
    StatusReport, Target, VerifiedIngress,
};
use replicore_types::{CanisterId, MessageId, Payload, Time};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// Records between the network threads and the file. Arguments are shared with the requests, not copied.
const PENDING_MAX: usize = 16_384;

/// Where records go.
struct Recorder {
    start: Instant,
    /// None once the recording is over.
    records: RwLock<Option<Sender<Record>>>,
    lost: AtomicU64,
}

/// A recording under way. Dropping it ends it, with everything in the file.
pub struct Recording {
    recorder: Arc<Recorder>,
    thread: Option<JoinHandle<()>>,
}

struct Record {
    at_us: u64,
    done_us: u64,
    kind: &'static str,
    sender: String,
    canister: String,
    effective: Option<String>,
    method: String,
    argument: Payload,
    answer: &'static str,
}

/// A record as it is written.
#[derive(Serialize)]
struct Line<'a> {
    at_us: u64,
    done_us: u64,
    kind: &'a str,
    sender: &'a str,
    canister: &'a str,
    effective: Option<&'a str>,
    method: &'a str,
    argument: String,
    answer: &'a str,
}

/// A service whose requests are recorded.
pub struct Recorded<S> {
    service: Arc<S>,
    recorder: Arc<Recorder>,
}

impl<S> Recorded<S> {
    /// Begins a recording.
    ///
    /// # Errors
    /// The file cannot be made; one that exists is never written over.
    pub fn begin(service: Arc<S>, path: &Path) -> io::Result<(Self, Recording)> {
        let file = BufWriter::new(File::create_new(path)?);
        let (sender, receiver) = bounded(PENDING_MAX);
        let recorder = Arc::new(Recorder {
            start: Instant::now(),
            records: RwLock::new(Some(sender)),
            lost: AtomicU64::new(0),
        });
        let thread = std::thread::Builder::new().name("recorder".into()).spawn(move || {
            if let Err(error) = write_all(file, &receiver) {
                error!(%error, "the recording ends here");
            }
        })?;
        let recording = Recording {
            recorder: Arc::clone(&recorder),
            thread: Some(thread),
        };
        Ok((Self { service, recorder }, recording))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Requests may still be under way somewhere; they are in no recording.
        drop(self.recorder.records.write().take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the recorder panicked");
        }
        match self.recorder.lost.load(Ordering::Relaxed) {
            0 => {}
            count => warn!(count, "requests are missing in the recording"),
        }
    }
}

fn write_all(mut file: BufWriter<File>, records: &Receiver<Record>) -> io::Result<()> {
    while let Ok(record) = records.recv() {
        serde_json::to_writer(&mut file, &record.line())?;
        file.write_all(b"\n")?;
        if records.is_empty() {
            file.flush()?;
        }
    }
    file.flush()
}

impl Record {
    fn line(&self) -> Line<'_> {
        Line {
            at_us: self.at_us,
            done_us: self.done_us,
            kind: self.kind,
            sender: &self.sender,
            canister: &self.canister,
            effective: self.effective.as_deref(),
            method: &self.method,
            argument: STANDARD.encode(&self.argument[..]),
            answer: self.answer,
        }
    }
}

impl Recorder {
    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn answered(&self, mut record: Record, answer: &'static str) {
        record.done_us = self.now_us();
        record.answer = answer;
        if let Some(records) = &*self.records.read()
            && records.try_send(record).is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<S: ReplicaService> ReplicaService for Recorded<S> {
    fn status(&self) -> StatusReport {
        self.service.status()
    }

    fn now(&self) -> Time {
        self.service.now()
    }

    fn wants_arrivals(&self) -> bool {
        self.service.wants_arrivals()
    }

    fn arrived(&self, message: &MessageId, at: Instant) {
        self.service.arrived(message, at);
    }

    fn has_room(&self, canister: &CanisterId, waited: Duration) -> Result<(), ServiceBusy> {
        self.service.has_room(canister, waited)
    }

    fn call(&self, message: VerifiedIngress, target: Target, wait: bool, respond: Responder<CallReply>) {
        let record = Record {
            at_us: self.recorder.now_us(),
            done_us: 0,
            kind: "call",
            sender: message.source.to_string(),
            canister: message.receiver.to_string(),
            effective: effective(target),
            method: message.method_name.clone(),
            argument: message.method_payload.clone(),
            answer: "",
        };
        let recorder = Arc::clone(&self.recorder);
        let respond = Box::new(move |reply: CallReply| {
            let answer = match &reply {
                CallReply::Certificate(_) => "certified",
                CallReply::Accepted => "accepted",
                CallReply::Rejected(_) => "rejected",
                CallReply::Busy(_) => "refused",
            };
            recorder.answered(record, answer);
            respond(reply);
        });
        self.service.call(message, target, wait, respond);
    }

    fn query(&self, query: Query, respond: Responder<Result<QueryReply, ServiceBusy>>) {
        let record = Record {
            at_us: self.recorder.now_us(),
            done_us: 0,
            kind: "query",
            sender: query.source.to_string(),
            canister: query.receiver.to_string(),
            effective: effective(query.target),
            method: query.method_name.clone(),
            argument: query.method_payload.clone(),
            answer: "",
        };
        let recorder = Arc::clone(&self.recorder);
        let respond = Box::new(move |reply: Result<QueryReply, ServiceBusy>| {
            let answer = match &reply {
                Ok(reply) => match &reply.response {
                    QueryResponse::Replied(_) => "replied",
                    QueryResponse::Rejected(_) => "rejected",
                },
                Err(_) => "refused",
            };
            recorder.answered(record, answer);
            respond(reply);
        });
        self.service.query(query, respond);
    }

    fn read_state(&self, read: ReadState, respond: Responder<Result<Payload, ReadStateError>>) {
        self.service.read_state(read, respond);
    }
}

fn effective(target: Target) -> Option<String> {
    match target {
        Target::Canister(canister) => Some(canister.to_string()),
        Target::Subnet(_) => None,
    }
}
