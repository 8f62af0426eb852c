//! Stable memory in its 64-bit form and in the older 32-bit one.

use super::{Host, Mode, memory};
use crate::trap::{Failure, TrapCode};
use replicore_types::limits::{
    STABLE_ACCESS_BYTES_PER_MESSAGE_MAX, STABLE_ACCESS_BYTES_PER_QUERY_MAX, STABLE_ACCESS_BYTES_PER_UPGRADE_MAX,
    STABLE_MEMORY_BYTES_MAX,
};
use replicore_types::{NumBytes, OS_PAGE_BYTES, WASM_PAGE_BYTES};

type Answer = Result<u64, Failure>;

/// Instructions for the first write to an OS page in a message.
const PAGE_WRITE: u64 = 1_000;
/// Wasm pages that the 32-bit functions can address.
const PAGES_32BIT_MAX: u64 = 65_536;
const PAGES_MAX: u64 = STABLE_MEMORY_BYTES_MAX / WASM_PAGE_BYTES as u64;
/// What growth answers where it fails.
const FAILED_64BIT: u64 = u64::MAX;
const FAILED_32BIT: u64 = u32::MAX as u64;

pub(super) fn size64(host: &mut Host<'_, '_>) -> Answer {
    Ok(host.running().stable.size_wasm_pages())
}

pub(super) fn grow64(host: &mut Host<'_, '_>, additional: u64) -> Answer {
    Ok(grow(host, additional, PAGES_MAX)?.unwrap_or(FAILED_64BIT))
}

pub(super) fn read64(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    read(host, dst, offset, size)
}

pub(super) fn write64(host: &mut Host<'_, '_>, offset: u64, src: u64, size: u64) -> Answer {
    write(host, offset, src, size)
}

pub(super) fn size32(host: &mut Host<'_, '_>) -> Answer {
    check_32bit(host)?;
    size64(host)
}

pub(super) fn grow32(host: &mut Host<'_, '_>, additional: u64) -> Answer {
    check_32bit(host)?;
    Ok(grow(host, additional, PAGES_32BIT_MAX)?.unwrap_or(FAILED_32BIT))
}

pub(super) fn read32(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    check_32bit(host)?;
    read(host, dst, offset, size)
}

pub(super) fn write32(host: &mut Host<'_, '_>, offset: u64, src: u64, size: u64) -> Answer {
    check_32bit(host)?;
    write(host, offset, src, size)
}

/// The old size, or `None` where there is no room. Failures that are about cycles end the message.
fn grow(host: &mut Host<'_, '_>, additional: u64, pages_max: u64) -> Result<Option<u64>, Failure> {
    let running = host.running();
    let current = running.stable.size_wasm_pages();
    let size = match current.checked_add(additional) {
        Some(size) if size <= pages_max => size,
        _ => return Ok(None),
    };
    let added = NumBytes(additional * WASM_PAGE_BYTES as u64);
    match memory::allocate(&mut running.message, added) {
        Ok(()) => {
            running.stable.grow_to(size);
            Ok(Some(current))
        }
        Err(Failure::OutOfMemory) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn read(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    // Nothing is read anywhere, outside the memory too.
    if size == 0 {
        return Ok(0);
    }
    check_bounds(host, offset, dst, size)?;
    access(host, offset, size)?;
    host.write_heap_with("stable_read", dst, size, |target, running| {
        running.stable.read(offset, target)
    })?;
    Ok(0)
}

fn write(host: &mut Host<'_, '_>, offset: u64, src: u64, size: u64) -> Answer {
    if size == 0 {
        return Ok(0);
    }
    check_bounds(host, offset, src, size)?;
    access(host, offset, size)?;
    let fresh = host.running().stable.pages_not_yet_written(offset, size);
    check_write_limit(host, fresh)?;
    host.charge(fresh * PAGE_WRITE)?;
    host.with_heap("stable_write", src, size, |bytes, running| {
        running.stable.write(offset, bytes)
    })?;
    Ok(0)
}

/// Stable bounds first, then the heap's: the order in which the traps take precedence.
fn check_bounds(host: &mut Host<'_, '_>, offset: u64, address: u64, size: u64) -> Result<(), Failure> {
    let stable_bytes = host.running().stable.size_bytes();
    if offset.checked_add(size).is_none_or(|end| end > stable_bytes) {
        return Err(Failure::Trapped(TrapCode::StableMemoryOutOfBounds));
    }
    if address.checked_add(size).is_none_or(|end| end > host.heap_bytes()) {
        return Err(Failure::Trapped(TrapCode::HeapOutOfBounds));
    }
    Ok(())
}

fn check_32bit(host: &mut Host<'_, '_>) -> Result<(), Failure> {
    if host.running().stable.size_wasm_pages() > PAGES_32BIT_MAX {
        return Err(Failure::Trapped(TrapCode::StableMemoryTooBigFor32Bit));
    }
    Ok(())
}

/// Notes the access to a range; reads and writes count alike.
fn access(host: &mut Host<'_, '_>, offset: u64, size: u64) -> Result<(), Failure> {
    let running = host.running();
    let fresh = running.stable.pages_not_yet_accessed(offset, size);
    if (running.stable.pages_accessed() + fresh) * OS_PAGE_BYTES as u64 <= bytes_max(running.message.mode) {
        running.stable.note_access(offset, size);
        return Ok(());
    }
    Err(Failure::MemoryAccessLimit(format!(
        "Exceeded the limit for the number of accessed pages in the stable memory in a single message execution: \
         limit {} KB for regular messages and {} KB for queries.",
        STABLE_ACCESS_BYTES_PER_MESSAGE_MAX / 1024,
        STABLE_ACCESS_BYTES_PER_QUERY_MAX / 1024,
    )))
}

/// The bound on the bytes of pages accessed, and on those of pages written.
fn bytes_max(mode: Mode) -> u64 {
    match mode {
        // Whatever changes nothing counts as a query; `start` counts as a message, also in an upgrade.
        Mode::Query
        | Mode::ReplicatedQuery
        | Mode::InspectMessage
        | Mode::CompositeQuery
        | Mode::CompositeReplyCallback
        | Mode::CompositeRejectCallback
        | Mode::CompositeCleanup => STABLE_ACCESS_BYTES_PER_QUERY_MAX,
        Mode::Init | Mode::PreUpgrade | Mode::PostUpgrade => STABLE_ACCESS_BYTES_PER_UPGRADE_MAX,
        Mode::Start | Mode::Update | Mode::ReplyCallback | Mode::RejectCallback | Mode::Cleanup | Mode::SystemTask => {
            STABLE_ACCESS_BYTES_PER_MESSAGE_MAX
        }
    }
}

fn check_write_limit(host: &mut Host<'_, '_>, fresh: u64) -> Result<(), Failure> {
    let running = host.running();
    let bytes_max = bytes_max(running.message.mode);
    if (running.stable.pages_written() + fresh) * OS_PAGE_BYTES as u64 <= bytes_max {
        return Ok(());
    }
    Err(Failure::MemoryAccessLimit(format!(
        "Exceeded the limit for the number of modified pages in the stable memory in a single execution: limit {} KB \
         for regular messages, {} KB for upgrade messages and {} KB for queries.",
        STABLE_ACCESS_BYTES_PER_MESSAGE_MAX / 1024,
        STABLE_ACCESS_BYTES_PER_UPGRADE_MAX / 1024,
        STABLE_ACCESS_BYTES_PER_QUERY_MAX / 1024,
    )))
}
