//! Environment variables.

use super::Host;
use crate::trap::{Advice, Failure, VARIABLE_NAME_NOT_UTF8};
use replicore_types::limits::ENVIRONMENT_VARIABLE_BYTES_MAX;
use std::collections::BTreeMap;

type Answer = Result<u64, Failure>;

pub(super) fn count(host: &mut Host<'_, '_>) -> Answer {
    Ok(host.message().view.environment_variables.len() as u64)
}

pub(super) fn name_size(host: &mut Host<'_, '_>, index: u64) -> Answer {
    Ok(name_at(&host.message().view.environment_variables, index)?.len() as u64)
}

pub(super) fn name_copy(host: &mut Host<'_, '_>, index: u64, dst: u64, offset: u64, size: u64) -> Answer {
    name_at(&host.message().view.environment_variables, index)?;
    let names = ("ic0.env_var_name_copy name", "ic0.env_var_name_copy heap");
    host.copy_out(names, (dst, offset, size), |running| {
        name_at(&running.message.view.environment_variables, index).map_or(&[][..], str::as_bytes)
    })
}

pub(super) fn name_exists(host: &mut Host<'_, '_>, src: u64, size: u64) -> Answer {
    let name = read_name(host, "ic0.env_var_name_exists", "heap", (src, size))?;
    Ok(u64::from(host.message().view.environment_variables.contains_key(&name)))
}

pub(super) fn value_size(host: &mut Host<'_, '_>, src: u64, size: u64) -> Answer {
    let name = read_name(host, "ic0.env_var_value_size", "heap", (src, size))?;
    Ok(value_of(&host.message().view.environment_variables, &name)?.len() as u64)
}

pub(super) fn value_copy(
    host: &mut Host<'_, '_>,
    name_src: u64,
    name_size: u64,
    dst: u64,
    offset: u64,
    size: u64,
) -> Answer {
    let name = read_name(host, "ic0.env_var_value_copy", "name", (name_src, name_size))?;
    value_of(&host.message().view.environment_variables, &name)?;
    let names = ("ic0.env_var_value_copy value", "ic0.env_var_value_copy heap");
    host.copy_out(names, (dst, offset, size), |running| {
        value_of(&running.message.view.environment_variables, &name).map_or(&[][..], str::as_bytes)
    })
}

/// `what` is how error texts call the bytes of the name.
fn read_name(host: &mut Host<'_, '_>, function: &str, what: &str, (src, size): (u64, u64)) -> Result<String, Failure> {
    host.check_heap_exists()?;
    if size > ENVIRONMENT_VARIABLE_BYTES_MAX as u64 {
        return Err(Failure::Contract(
            format!("{function}: Variable name is too large."),
            Advice::None,
        ));
    }
    let bytes = host.read_heap(&format!("{function} {what}"), src, size)?;
    String::from_utf8(bytes).map_err(|_| {
        Failure::Contract(
            format!("{function}: Variable name is not a valid UTF-8 string."),
            VARIABLE_NAME_NOT_UTF8,
        )
    })
}

fn name_at(variables: &BTreeMap<String, String>, index: u64) -> Result<&str, Failure> {
    usize::try_from(index)
        .ok()
        .and_then(|index| variables.keys().nth(index))
        .map(String::as_str)
        .ok_or_else(|| {
            Failure::ContractInFull(
                format!(
                    "Environment variable index {index} is out of bounds. The number of environment variables is {}.",
                    variables.len()
                ),
                Advice::None,
            )
        })
}

fn value_of<'v>(variables: &'v BTreeMap<String, String>, name: &str) -> Result<&'v str, Failure> {
    variables
        .get(name)
        .map(String::as_str)
        .ok_or_else(|| Failure::ContractInFull(format!("Environment variable {name} not found."), Advice::None))
}
