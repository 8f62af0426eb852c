//! Recorded traffic as a workload: what `replicore start --record` wrote, sent again to any endpoint.
//!
//! Keys are not recorded, so that other users send the requests: each recorded sender becomes a user of ours, always the
//! same one, and where an argument holds the recorded principal it gets ours (both have 29 bytes). Canister ids stay: an
//! endpoint that was empty when the recording began gives the same ids to the same calls.
//!
//! Open loop: requests are due at the recorded times, divided by the speed. Causes keep preceding effects: what had been
//! answered when a request arrived in the recording, requests of the same sender and calls to the same canister or to the
//! management canister, is answered before the request is sent again. A slower endpoint delays what depends on its answers,
//! and that shows as latency, which counts from when a request was due.

use crate::agent::{Agent, AgentError, CallOutcome};
use crate::certificate::Verifier;
use crate::error::WorkloadError;
use crate::identity::Identity;
use crate::load::{LoadReport, Progress, Seen, merge};
use crate::request::Kind;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use candid::Principal;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Numbers of the users that stand for recorded senders begin here, apart from those of the models.
const FIRST_USER: u64 = 1 << 40;
/// Earlier requests of one sender, or to one canister, that are looked at for causes: more are not under way at once.
const CAUSES_MAX: usize = 1_000;

/// A recording, in the order of arrival.
#[derive(Clone, Default)]
pub struct Recording {
    requests: Vec<Request>,
    senders: Vec<Identity>,
}

#[derive(Clone, Debug)]
struct Request {
    at: Duration,
    kind: Kind,
    sender: usize,
    canister: Principal,
    effective: Principal,
    method: String,
    argument: Vec<u8>,
    /// Requests that must have been answered before.
    causes: Vec<usize>,
}

/// One line of the file; other fields are skipped.
#[derive(Deserialize)]
struct Line {
    at_us: u64,
    done_us: u64,
    kind: String,
    sender: Principal,
    canister: Principal,
    effective: Option<Principal>,
    method: String,
    argument: String,
    answer: String,
}

/// How a recording is sent.
#[derive(Clone, Copy, Debug)]
pub struct ReplayOptions {
    /// The endpoint.
    pub address: SocketAddr,
    /// Times as fast as it was recorded; infinity sends everything as soon as its causes are answered.
    pub speed: f64,
    /// Connections: the bound of what is in flight.
    pub connections: usize,
}

/// What sending it gave.
#[derive(Debug)]
pub struct ReplayReport {
    /// Latencies and counts, as of any load.
    pub load: LoadReport,
    /// Requests that the endpoint rejected, as it may have done when they were recorded.
    pub rejected: u64,
}

impl Recording {
    /// Reads a recording. Requests that were refused for lack of room are left out: they did nothing.
    ///
    /// # Errors
    /// A line is not of a recording; its number is in the error.
    pub fn read(source: impl BufRead) -> Result<Self, WorkloadError> {
        let mut lines = Vec::new();
        for (number, line) in source.lines().enumerate() {
            let wrong =
                |what: &dyn std::fmt::Display| WorkloadError::Unexpected(format!("line {}: {what}", number + 1));
            let line = line.map_err(|error| wrong(&error))?;
            let line: Line = serde_json::from_str(&line).map_err(|error| wrong(&error))?;
            if line.answer != "refused" {
                let argument = STANDARD.decode(&line.argument).map_err(|error| wrong(&error))?;
                lines.push((line, argument));
            }
        }
        lines.sort_by_key(|(line, _)| (line.at_us, line.done_us));
        Ok(Self::of(lines))
    }

    fn of(lines: Vec<(Line, Vec<u8>)>) -> Self {
        let mut recording = Self::default();
        let mut numbers: BTreeMap<Principal, usize> = BTreeMap::new();
        for (line, _) in &lines {
            numbers.entry(line.sender).or_insert_with(|| {
                recording.senders.push(match line.sender == Principal::anonymous() {
                    true => Identity::anonymous(),
                    false => Identity::numbered(FIRST_USER + recording.senders.len() as u64),
                });
                recording.senders.len() - 1
            });
        }
        let mut causes = Causes::default();
        for (index, (line, mut argument)) in lines.into_iter().enumerate() {
            for (recorded, number) in &numbers {
                replace(&mut argument, *recorded, recording.senders[*number].principal());
            }
            let sender = numbers[&line.sender];
            let kind = if line.kind == "query" { Kind::Query } else { Kind::Call };
            recording.requests.push(Request {
                at: Duration::from_micros(line.at_us),
                kind,
                sender,
                canister: line.canister,
                effective: line.effective.unwrap_or(line.canister),
                method: line.method,
                argument,
                causes: causes.of(sender, line.canister, line.at_us),
            });
            let times = (line.at_us, line.done_us, index);
            causes.senders.entry(sender).or_default().push(times);
            // Queries change nothing that others could see.
            if kind == Kind::Call {
                causes.canisters.entry(line.canister).or_default().push(times);
            }
        }
        recording
    }

    /// Requests in it.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// True where it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Senders in it.
    pub fn senders(&self) -> usize {
        self.senders.len()
    }

    /// Sends it.
    ///
    /// # Errors
    /// An answer does not verify. Refusals, rejections and broken connections are counted, not errors.
    pub fn replay(
        &self,
        options: &ReplayOptions,
        verifier: &Arc<Verifier>,
        progress: &Progress,
    ) -> Result<ReplayReport, WorkloadError> {
        let shared = Shared {
            recording: self,
            options,
            verifier,
            progress,
            next: AtomicUsize::new(0),
            answered: Mutex::new(vec![false; self.requests.len()]),
            changed: Condvar::new(),
            rejected: AtomicU64::new(0),
            start: Instant::now(),
        };
        let seen = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..options.connections.max(1))
                .map(|_| scope.spawn(|| shared.connection()))
                .collect();
            let joined = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(WorkloadError::unexpected("a connection's thread panicked")))
            });
            joined.collect::<Result<Vec<_>, _>>()
        })?;
        Ok(ReplayReport {
            load: merge(seen, shared.start.elapsed(), progress),
            rejected: shared.rejected.load(Ordering::Relaxed),
        })
    }
}

/// Puts one principal in the place of another of the same length, wherever its bytes stand.
fn replace(argument: &mut [u8], recorded: Principal, ours: Principal) {
    let (recorded, ours) = (recorded.as_slice(), ours.as_slice());
    // Short ones (the anonymous user's) would be found by chance.
    if recorded.len() != 29 || ours.len() != 29 {
        return;
    }
    let mut start = 0;
    while let Some(found) = argument[start..].windows(29).position(|window| window == recorded) {
        argument[start + found..start + found + 29].copy_from_slice(ours);
        start += found + 29;
    }
}

/// What was answered before what.
#[derive(Default)]
struct Causes {
    /// Arrival, answer and index of requests by sender, and of calls by canister.
    senders: BTreeMap<usize, Vec<(u64, u64, usize)>>,
    canisters: BTreeMap<Principal, Vec<(u64, u64, usize)>>,
}

impl Causes {
    fn of(&self, sender: usize, canister: Principal, at: u64) -> Vec<usize> {
        let groups = [
            self.senders.get(&sender),
            self.canisters.get(&canister),
            self.canisters.get(&Principal::management_canister()),
        ];
        let mut causes: Vec<usize> = groups
            .into_iter()
            .flatten()
            .flat_map(|group| last_answered(group, at))
            .collect();
        causes.sort_unstable();
        causes.dedup();
        causes
    }
}

/// Those that were answered by `at`, without those that the others have waited for.
fn last_answered(requests: &[(u64, u64, usize)], at: u64) -> Vec<usize> {
    let recent = requests.iter().rev().take(CAUSES_MAX);
    let answered: Vec<_> = recent.filter(|(_, done, _)| *done <= at).collect();
    let last_arrival = answered.iter().map(|(arrived, ..)| *arrived).max().unwrap_or(0);
    let needed = answered
        .iter()
        .filter(|(arrived, done, _)| *done > last_arrival || *arrived == last_arrival);
    needed.map(|(_, _, index)| *index).collect()
}

struct Shared<'a> {
    recording: &'a Recording,
    options: &'a ReplayOptions,
    verifier: &'a Arc<Verifier>,
    progress: &'a Progress,
    /// The next request to be taken by a connection. Causes come before effects, so that somebody always can go on.
    next: AtomicUsize,
    answered: Mutex<Vec<bool>>,
    changed: Condvar,
    rejected: AtomicU64,
    start: Instant,
}

impl Shared<'_> {
    fn connection(&self) -> Result<Seen, WorkloadError> {
        let mut agent = Agent::new(self.options.address, Identity::anonymous(), Arc::clone(self.verifier));
        let mut seen = Seen::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = self.recording.requests.get(index) else {
                return Ok(seen);
            };
            let due = self.start + Duration::from_secs_f64(request.at.as_secs_f64() / self.options.speed);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.wait_for(&request.causes);
            seen.sent(due);
            let result = self.perform(&mut agent, request, due, &mut seen);
            // Also after an error: nobody may wait for ever.
            self.answered.lock().unwrap_or_else(PoisonError::into_inner)[index] = true;
            self.changed.notify_all();
            result?;
        }
    }

    fn wait_for(&self, causes: &[usize]) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        while !causes.iter().all(|cause| answered[*cause]) {
            answered = self.changed.wait(answered).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn perform(
        &self,
        agent: &mut Agent,
        request: &Request,
        due: Instant,
        seen: &mut Seen,
    ) -> Result<(), WorkloadError> {
        agent.set_identity(self.recording.senders[request.sender].clone());
        let Request {
            canister,
            effective,
            method,
            argument,
            ..
        } = request;
        let outcome = match request.kind {
            Kind::Call => agent.update_effective(*canister, *effective, method, argument),
            Kind::Query => agent.query(*canister, method, argument),
        };
        match outcome {
            Ok(CallOutcome::Accepted) | Err(AgentError::Io(_)) => seen.lost(),
            Ok(outcome) => {
                if matches!(outcome, CallOutcome::Rejected(..)) {
                    self.rejected.fetch_add(1, Ordering::Relaxed);
                }
                seen.answered(request.kind, due);
                self.progress.completed.fetch_add(1, Ordering::Relaxed);
            }
            Err(AgentError::Http(429 | 503, _)) => {
                self.progress.refused.fetch_add(1, Ordering::Relaxed);
            }
            // As recorded: a path or an envelope that the endpoint does not take.
            Err(AgentError::Http(400..500, _)) => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: u64, done: u64, sender: Principal, canister: &str, argument: &[u8]) -> String {
        format!(
            r#"{{"at_us":{at},"done_us":{done},"kind":"call","sender":"{sender}","canister":"{canister}","effective":null,"method":"m","argument":"{}","answer":"certified","more":1}}"#,
            STANDARD.encode(argument)
        )
    }

    #[test]
    fn requests_wait_for_what_was_answered_before_them() {
        let (first, second) = (Identity::numbered(1).principal(), Identity::numbered(2).principal());
        let own = "rwlgt-iiaaa-aaaaa-aaaaa-cai";
        let text = [
            line(0, 10, first, "aaaaa-aa", b""),
            line(20, 50, first, own, b""),
            line(30, 40, first, own, b""),
            line(60, 70, first, own, b""),
            line(65, 90, second, own, b""),
            line(5, 8, second, own, b""),
        ]
        .join("\n");
        let recording = Recording::read(text.as_bytes()).unwrap();
        let causes: Vec<_> = recording
            .requests
            .iter()
            .map(|request| request.causes.clone())
            .collect();
        // By arrival: management, second's early one, two of first at once, one after both, second's late one.
        let expected: [&[usize]; 6] = [&[], &[], &[0, 1], &[0, 1], &[0, 2, 3], &[0, 1, 2, 3]];
        assert_eq!(causes, expected);
    }

    #[test]
    fn arguments_name_our_users() {
        let recorded = Identity::numbered(1).principal();
        let argument = [b"DIDL", recorded.as_slice(), recorded.as_slice(), b"!"].concat();
        let recording = Recording::read(line(0, 1, recorded, "aaaaa-aa", &argument).as_bytes()).unwrap();
        let ours = recording.senders[0].principal();
        let expected = [b"DIDL", ours.as_slice(), ours.as_slice(), b"!"].concat();
        assert_eq!(recording.requests[0].argument, expected);
        assert_ne!(ours, recorded);
    }

    #[test]
    fn what_is_no_recording_is_an_error_with_its_line() {
        let good = line(0, 1, Principal::anonymous(), "aaaaa-aa", b"");
        let error = Recording::read(format!("{good}\nnonsense").as_bytes()).err().unwrap();
        assert!(error.to_string().starts_with("line 2"), "{error}");
    }
}
