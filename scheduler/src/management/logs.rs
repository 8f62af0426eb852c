//! The canister log.

use super::error;
use super::status::may_view;
use super::types::{self, CanisterLogRecord, FetchCanisterLogsArgs, FetchCanisterLogsResult, LogFilter};
use super::work::{Reply, Work};
use crate::state::CanisterState;
use replicore_engine::LogRecord;
use replicore_types::{CanisterId, NumBytes, PrincipalId, UserError};
use serde_bytes::ByteBuf;

/// `fetch_canister_logs` called by a canister: paid with attached cycles, by the bytes that the log may have.
pub(crate) fn fetch_replicated<E>(work: &mut Work<'_, E>, args: &FetchCanisterLogsArgs) -> Result<Reply, UserError> {
    let canister = work.canister(CanisterId(args.canister_id))?;
    let fee = work
        .subnet()
        .fetch_canister_logs_fee(NumBytes(canister.system.log.bytes()));
    let Some(left) = work.cycles.checked_sub(fee) else {
        return Err(error::request_underpaid("fetch_canister_logs", work.cycles, fee));
    };
    let reply = fetch(canister, &work.caller.principal, args)?;
    work.cycles = left;
    Ok(Reply::Now(reply))
}

/// The records of the log that `args` asks for, oldest first.
///
/// # Errors
/// `CanisterRejectedMessage` (IC0406) for callers who may not read the log.
pub(crate) fn fetch(
    canister: &CanisterState,
    caller: &PrincipalId,
    args: &FetchCanisterLogsArgs,
) -> Result<Vec<u8>, UserError> {
    if !may_view(&canister.system, &canister.system.settings.log_visibility, caller) {
        return Err(error::rejected(format!(
            "Caller {caller} is not allowed to access canister logs"
        )));
    }
    let records = canister
        .system
        .log
        .records()
        .filter(|record| is_wanted(record, args.filter));
    let canister_log_records = records
        .map(|record| CanisterLogRecord {
            idx: record.index,
            timestamp_nanos: record.time.as_nanos(),
            content: ByteBuf::from(record.content.clone()),
        })
        .collect();
    types::encode(FetchCanisterLogsResult { canister_log_records })
}

/// Ranges are half-open.
fn is_wanted(record: &LogRecord, filter: Option<LogFilter>) -> bool {
    match filter {
        None => true,
        Some(LogFilter::ByIndex(range)) => (range.start..range.end).contains(&record.index),
        Some(LogFilter::ByTimestamp(range)) => (range.start..range.end).contains(&record.time.as_nanos()),
    }
}
