//! Certified data and the certificate that queries see.

use super::Host;
use crate::trap::{CERTIFIED_DATA_TOO_LARGE, Failure};
use replicore_types::limits::CERTIFIED_DATA_BYTES_MAX;

type Answer = Result<u64, Failure>;

pub(super) fn set(host: &mut Host<'_, '_>, src: u64, size: u64) -> Answer {
    if size > CERTIFIED_DATA_BYTES_MAX as u64 {
        return Err(Failure::Contract(
            format!(
                "ic0_certified_data_set failed because the passed data must be no larger than \
                 {CERTIFIED_DATA_BYTES_MAX} bytes. Found {size} bytes."
            ),
            CERTIFIED_DATA_TOO_LARGE,
        ));
    }
    host.check_heap_exists()?;
    check_bounds(
        "ic0_certified_data_set failed because src + size",
        ("src", src, size),
        host.heap_bytes(),
    )?;
    let data = host.read_heap("ic0.certified_data_set", src, size)?;
    host.message().certified_data = Some(data);
    Ok(0)
}

pub(super) fn certificate_present(host: &mut Host<'_, '_>) -> Answer {
    Ok(u64::from(host.message().has_data_certificate()))
}

pub(super) fn certificate_size(host: &mut Host<'_, '_>) -> Answer {
    match host.message().data_certificate() {
        Some(certificate) => Ok(certificate.len() as u64),
        None => Err(host.wrong_mode("data_certificate_size")),
    }
}

pub(super) fn certificate_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    host.check_heap_exists()?;
    let Some(certificate) = host.message().data_certificate() else {
        return Err(host.wrong_mode("data_certificate_copy"));
    };
    let certificate_bytes = certificate.len() as u64;
    let copy = "ic0_data_certificate_copy failed because";
    check_bounds(
        &format!("{copy} offset + size"),
        ("offset", offset, size),
        certificate_bytes,
    )?;
    check_bounds(&format!("{copy} dst + size"), ("dst", dst, size), host.heap_bytes())?;
    let names = ("ic0.data_certificate_copy", "ic0.data_certificate_copy heap");
    host.copy_out(names, (dst, offset, size), |running| {
        running
            .message
            .certificate
            .as_ref()
            .map_or(&[][..], |certificate| certificate.as_slice())
    })
}

/// The functions of this file describe addresses out of bounds in more words than the others.
fn check_bounds(beginning: &str, (name, start, size): (&str, u64, u64), bytes: u64) -> Result<(), Failure> {
    if start.checked_add(size).is_some_and(|end| end <= bytes) {
        return Ok(());
    }
    Err(Failure::contract(format!(
        "{beginning} is out of bounds. Found {name} = {start} and size = {size} while {name} + size must be <= {bytes}"
    )))
}
