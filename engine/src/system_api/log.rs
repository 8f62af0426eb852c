//! `debug_print`, `trap` and the canister log.

use super::{Host, MessageState};
use crate::LogRecord;
use crate::trap::Failure;

type Answer = Result<u64, Failure>;

/// Bytes of the log that a record takes beside its content.
const RECORD_OVERHEAD_BYTES: usize = 40;
const DEBUG_PRINT: u64 = 100;
const TRAP: u64 = 500;
/// Bytes of the text of `trap` that are kept.
const TRAP_TEXT_BYTES_MAX: u64 = 32 * 1024;

pub(super) fn debug_print(host: &mut Host<'_, '_>, src: u64, size: u64) -> Answer {
    let cost = DEBUG_PRINT.saturating_add(logging_cost(host, size));
    host.charge(cost)?;
    host.check_heap_exists()?;
    let content = host
        .read_heap("debug_print", src, size)
        .unwrap_or_else(|_| b"(debug_print message out of memory bounds)".to_vec());
    append(host.message(), content);
    Ok(0)
}

pub(super) fn trap(host: &mut Host<'_, '_>, src: u64, size: u64) -> Answer {
    let cost = TRAP.saturating_add(size).saturating_add(logging_cost(host, size));
    host.charge(cost)?;
    host.check_heap_exists()?;
    let kept = size.min(TRAP_TEXT_BYTES_MAX);
    let text = match host.with_heap("trap", src, kept, |bytes, _| {
        String::from_utf8_lossy(bytes).into_owned()
    }) {
        Ok(text) => text,
        Err(_) => "(trap message out of memory bounds)".to_string(),
    };
    Err(Failure::CalledTrap(text))
}

/// Bytes of the log that a record with this content takes.
fn record_bytes(content_bytes: usize) -> usize {
    RECORD_OVERHEAD_BYTES + content_bytes
}

/// Adds the record of a failure.
pub(crate) fn trap_record(message: &mut MessageState, text: &str) {
    append(message, ["[TRAP]: ", text].concat().into_bytes());
}

/// Every byte is written once, and once more when the oldest record makes room; what the log still has room for also
/// leaves the canister.
fn logging_cost(host: &mut Host<'_, '_>, size: u64) -> u64 {
    let message = host.message();
    let capacity = message.view.log_bytes_max as u64;
    let room = capacity.saturating_sub(message.log_bytes as u64);
    2 * size.min(capacity) + 50 * size.min(room)
}

/// Appends a record, cut to what the log can hold; the oldest records of this message make room.
fn append(message: &mut MessageState, mut content: Vec<u8>) {
    let capacity = message.view.log_bytes_max;
    content.truncate(capacity.saturating_sub(RECORD_OVERHEAD_BYTES));
    let index = message.view.log_next_index + message.log_records_made;
    message.log_records_made += 1;
    message.log_bytes += record_bytes(content.len());
    message.log.push(LogRecord {
        index,
        time: message.view.time,
        content,
    });
    let mut dropped = 0;
    while message.log_bytes > capacity && dropped < message.log.len() {
        message.log_bytes -= record_bytes(message.log[dropped].content.len());
        dropped += 1;
    }
    message.log.drain(..dropped);
}
