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
        None => Err(absent()),
    }
}

pub(super) fn certificate_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    if host.message().data_certificate().is_none() {
        return Err(absent());
    }
    let names = ("ic0.data_certificate_copy", "ic0.data_certificate_copy heap");
    host.copy_out(names, (dst, offset, size), |running| {
        running
            .message
            .certificate
            .as_ref()
            .map_or(&[][..], |certificate| certificate.as_slice())
    })
}

fn absent() -> Failure {
    Failure::contract("ic0_data_certificate_size failed because no data certificate is available")
}
