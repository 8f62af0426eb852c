//! The facts of a canister that transcripts record, and how an expected answer is compared with ours.

use super::transcript::Expect;
use replicore_engine::{ExecutionState, GlobalValue, WasmMemory};
use replicore_scheduler::CanisterState;
use replicore_scheduler::state::{CanisterStatus, CyclesUseCase};
use replicore_types::{OS_PAGE_BYTES, UserError};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Memories up to this many Wasm pages are hashed.
const HASHED_WASM_PAGES_MAX: u64 = 64;

/// The facts of one canister by the names that transcripts use.
pub type Facts = BTreeMap<&'static str, Value>;

const USE_CASES: [(CyclesUseCase, &str); 7] = [
    (CyclesUseCase::Instructions, "Instructions"),
    (CyclesUseCase::IngressInduction, "IngressInduction"),
    (
        CyclesUseCase::RequestAndResponseTransmission,
        "RequestAndResponseTransmission",
    ),
    (CyclesUseCase::Memory, "Memory"),
    (CyclesUseCase::ComputeAllocation, "ComputeAllocation"),
    (CyclesUseCase::BurnedCycles, "BurnedCycles"),
    (CyclesUseCase::Uninstall, "Uninstall"),
];

/// How one of our answers looks in a transcript.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The reply bytes.
    Reply(Vec<u8>),
    /// A reject, and whether it happened before the message entered a batch.
    Reject(UserError),
    /// Refused by the HTTP handler: the message names no effective canister id.
    HttpError(String),
    /// Not answered yet.
    Pending,
}

/// Everything that is compared of a canister, absolute values.
pub fn facts(canister: &CanisterState) -> Facts {
    let system = &canister.system;
    let mut facts = Facts::from([
        ("cycles_balance", json!(system.balance.get().to_string())),
        ("canister_version", json!(system.version)),
        ("status", json!(status_name(&system.status))),
        ("instructions", json!(system.instructions_executed.get())),
        (
            "certified_data",
            some_unless_empty(hex::encode(&*system.certified_data)),
        ),
        (
            "global_timer",
            system
                .global_timer
                .map_or(Value::Null, |time| json!(format!("Active(Time({}))", time.0))),
        ),
        ("open_call_contexts", some_unless_zero(system.calls.call_contexts.len())),
        ("open_callbacks", some_unless_zero(system.calls.callbacks.len())),
        ("reserved_balance", json!(system.reserved_balance.get().to_string())),
        ("log_length", json!(system.log.next_index())),
    ]);
    for (use_case, name) in USE_CASES {
        facts.insert(name, json!(system.consumed.get(use_case).get().to_string()));
    }
    if let Some(execution) = &canister.execution {
        wasm_facts(execution, &mut facts);
    }
    facts
}

fn wasm_facts(execution: &ExecutionState, facts: &mut Facts) {
    facts.insert("module_hash", json!(hex::encode(execution.module.hash)));
    facts.insert("heap_pages", json!(execution.heap.size_wasm_pages));
    facts.insert("stable_pages", json!(execution.stable.size_wasm_pages));
    facts.insert("heap_sha256", memory_hash(&execution.heap));
    facts.insert("stable_sha256", memory_hash(&execution.stable));
    facts.insert(
        "globals",
        json!(sorted(execution.globals.iter().map(global_name).collect())),
    );
}

/// SHA-256 over the whole memory, zeros included; null for an empty or a large one.
fn memory_hash(memory: &WasmMemory) -> Value {
    if memory.size_wasm_pages == 0 || memory.size_wasm_pages > HASHED_WASM_PAGES_MAX {
        return Value::Null;
    }
    let mut hash = Sha256::new();
    for index in 0..memory.size_bytes() / OS_PAGE_BYTES as u64 {
        match memory.pages.get(replicore_persistence::PageIndex(index)) {
            Some(page) => hash.update(*page),
            None => hash.update([0; OS_PAGE_BYTES]),
        }
    }
    json!(hex::encode(hash.finalize()))
}

fn global_name(global: &GlobalValue) -> String {
    match global {
        GlobalValue::I32(value) => format!("I32({value})"),
        GlobalValue::I64(value) => format!("I64({value})"),
        GlobalValue::F32(bits) => format!("F32({:?})", f32::from_bits(*bits)),
        GlobalValue::F64(bits) => format!("F64({:?})", f64::from_bits(*bits)),
        GlobalValue::V128(bits) => format!("V128({bits})"),
    }
}

fn status_name(status: &CanisterStatus) -> &'static str {
    match status {
        CanisterStatus::Running => "Running",
        CanisterStatus::Stopping(_) => "Stopping",
        CanisterStatus::Stopped => "Stopped",
    }
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn some_unless_empty(text: String) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn some_unless_zero(count: usize) -> Value {
    if count == 0 { Value::Null } else { json!(count) }
}

/// Candid of a blob of 32 bytes, up to the bytes: how an answer begins that is random.
const RANDOM_REPLY_PREFIX: &str = "4449444c016d7b010020";
/// Hexadecimal digits of such an answer.
const RANDOM_DIGITS: usize = 64;

/// `reply` with the random bytes in it, if there are any, replaced by zeros.
fn without_random(reply: &str) -> String {
    let Some(start) = reply.find(RANDOM_REPLY_PREFIX).map(|at| at + RANDOM_REPLY_PREFIX.len()) else {
        return reply.to_owned();
    };
    let end = reply.len().min(start + RANDOM_DIGITS);
    [&reply[..start], &"0".repeat(end - start), &reply[end..]].concat()
}

/// Compares the answer to one message. `random` says that it may hold random bytes.
pub fn compare_answer(expected: &Expect, answer: &Answer, random: bool) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differ = |what: &str, expected: String, ours: String| {
        if expected != ours {
            differences.push(format!("{what}: expected {expected}, got {ours}"));
        }
    };
    differ("kind", expected_kind(expected).into(), kind(answer).into());
    match answer {
        Answer::Reply(reply) => {
            if let Some(expected) = &expected.reply_hex {
                let ours = hex::encode(reply);
                match random {
                    true => differ("reply", without_random(expected), without_random(&ours)),
                    false => differ("reply", expected.clone(), ours),
                }
            }
            if let Some(expected) = expected.reply_len {
                differ("reply length", expected.to_string(), reply.len().to_string());
            }
            if let Some(expected) = &expected.reply_sha256 {
                differ("reply hash", expected.clone(), hex::encode(Sha256::digest(reply)));
            }
        }
        Answer::Reject(error) => {
            if let Some(expected) = &expected.error_code {
                differ("error code", expected.clone(), error.code.to_string());
            }
            if let Some(expected) = expected.reject_code {
                differ(
                    "reject code",
                    expected.to_string(),
                    (error.reject_code() as u8).to_string(),
                );
            }
            if let Some(expected) = &expected.reject_message {
                differ("reject message", first_line(expected), first_line(&error.description));
            }
        }
        Answer::HttpError(reason) if expected.kind != "http_error" => differ("refusal", String::new(), reason.clone()),
        Answer::HttpError(_) | Answer::Pending => {}
    }
    differences
}

fn expected_kind(expected: &Expect) -> &str {
    match expected.kind.as_str() {
        // The status of a submitted message is read when it is awaited.
        "submitted" => "pending",
        kind => kind,
    }
}

fn kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Reply(_) => "reply",
        Answer::Reject(_) => "reject",
        Answer::HttpError(_) => "http_error",
        Answer::Pending => "pending",
    }
}

/// Texts are compared up to their first line break.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Compares what changed of one canister with what should have changed.
pub fn compare_facts(
    alias: &str,
    expected: Option<&Option<BTreeMap<String, Value>>>,
    before: Option<&Facts>,
    after: Option<&CanisterState>,
    heap_hash: bool,
) -> Vec<String> {
    let empty = BTreeMap::new();
    let after_facts = after.map(facts);
    let gone = expected.is_some_and(|facts| match facts {
        Some(facts) => facts.get("exists") == Some(&json!(false)),
        None => true,
    });
    if gone != (before.is_some() && after.is_none()) {
        return vec![format!(
            "{alias}: expected {}",
            if gone { "to be gone" } else { "to exist" }
        )];
    }
    let (Some(after), Some(after_facts)) = (after, after_facts) else {
        return Vec::new();
    };
    let expected = expected.and_then(Option::as_ref).unwrap_or(&empty);
    let nothing = Facts::new();
    let before = before.unwrap_or(&nothing);
    let mut differences = Vec::new();
    for change in changes(before, &after_facts, after) {
        if !heap_hash && change.name == "heap_sha256" {
            continue;
        }
        let wanted = expected_value(expected, change.name);
        match wanted {
            Some(wanted) if change.name == "globals" && includes(&wanted, &change.value) => {}
            Some(wanted) if wanted != change.value => {
                differences.push(format!(
                    "{alias}.{}: expected {wanted}, got {}",
                    change.name, change.value
                ));
            }
            None if change.changed => {
                differences.push(format!(
                    "{alias}.{}: expected no change, got {}",
                    change.name, change.value
                ));
            }
            _ => {}
        }
    }
    differences
}

/// One fact after a step: for counters the difference, for everything else the new value.
struct Change {
    name: &'static str,
    changed: bool,
    value: Value,
}

const ABSOLUTE: [&str; 14] = [
    "cycles_balance",
    "canister_version",
    "status",
    "certified_data",
    "global_timer",
    "open_call_contexts",
    "open_callbacks",
    "reserved_balance",
    "module_hash",
    "heap_pages",
    "stable_pages",
    "heap_sha256",
    "stable_sha256",
    "globals",
];

fn changes(before: &Facts, after: &Facts, canister: &CanisterState) -> Vec<Change> {
    let value = |facts: &Facts, name: &str| facts.get(name).cloned().unwrap_or(Value::Null);
    let absolute = ABSOLUTE.into_iter().map(|name| {
        let (old, new) = (value(before, name), value(after, name));
        // A new canister starts without a reservation, and a module without globals has an empty list of them.
        let starts_empty = old.is_null() && (new == json!("0") || new == json!([]));
        Change {
            name,
            changed: old != new && !starts_empty,
            value: new,
        }
    });
    let counters = USE_CASES
        .into_iter()
        .map(|(_, name)| name)
        .chain(["instructions"])
        .map(|name| {
            let delta = number(&value(after, name)) - number(&value(before, name));
            Change {
                name,
                changed: delta != 0,
                value: json!(delta.to_string()),
            }
        });
    let log = new_log(before, canister);
    absolute
        .chain(counters)
        .chain([Change {
            name: "new_log",
            changed: !log.is_null(),
            value: log,
        }])
        .collect()
}

/// True where the first list holds every value of the second: transcripts also list exported constants.
fn includes(all: &Value, some: &Value) -> bool {
    let (Some(all), Some(some)) = (all.as_array(), some.as_array()) else {
        return false;
    };
    let mut rest = all.clone();
    some.iter().all(|value| {
        rest.iter()
            .position(|other| other == value)
            .map(|at| rest.swap_remove(at))
            .is_some()
    })
}

fn new_log(before: &Facts, canister: &CanisterState) -> Value {
    let first = before.get("log_length").and_then(Value::as_u64).unwrap_or(0);
    let records: Vec<_> = canister
        .system
        .log
        .records()
        .filter(|record| record.index >= first)
        .map(|record| {
            json!({
                "content": String::from_utf8_lossy(&record.content),
                "idx": record.index,
                "timestamp_nanos": record.time.0,
            })
        })
        .collect();
    if records.is_empty() {
        Value::Null
    } else {
        Value::Array(records)
    }
}

fn number(value: &Value) -> i128 {
    match value {
        Value::String(text) => text.parse().unwrap_or(0),
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| number.as_u64().map_or(0, i128::from), i128::from),
        _ => 0,
    }
}

/// What a transcript says of a fact; `None` where it says nothing, which means no change.
fn expected_value(expected: &BTreeMap<String, Value>, name: &str) -> Option<Value> {
    if USE_CASES.iter().any(|(_, use_case)| *use_case == name) {
        return expected
            .get("consumed_delta")
            .and_then(|deltas| deltas.get(name))
            .cloned();
    }
    Some(match (name, expected.get(name)?) {
        ("instructions", Value::Number(number)) => json!(number.to_string()),
        // The last element is the production replica's own instruction counter.
        ("globals", Value::Array(values)) => {
            let names = values.iter().take(values.len().saturating_sub(1));
            json!(sorted(
                names.filter_map(|value| value.as_str().map(str::to_owned)).collect()
            ))
        }
        (_, value) => value.clone(),
    })
}
