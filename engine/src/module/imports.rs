//! The functions that a canister may import from `ic0`, with their types.
//!
//! Types are written one letter a value: `P` a pointer or size in the width of the memory, `i` an `i32`, `l` an `i64`.

use replicore_types::fees::WasmWidth;
use wasmparser::ValType;

/// Name, parameters, results.
type Signature = (&'static str, &'static str, &'static str);

/// Available to modules of both widths, sorted by name.
const COMMON: &[Signature] = &[
    ("accept_message", "", ""),
    ("call_cycles_add128", "ll", ""),
    ("call_data_append", "PP", ""),
    ("call_new", "PPPPPPPP", ""),
    ("call_on_cleanup", "PP", ""),
    ("call_perform", "", "i"),
    ("call_with_best_effort_response", "i", ""),
    ("canister_cycle_balance128", "P", ""),
    ("canister_liquid_cycle_balance128", "P", ""),
    ("canister_self_copy", "PPP", ""),
    ("canister_self_size", "", "P"),
    ("canister_status", "", "i"),
    ("canister_version", "", "l"),
    ("certified_data_set", "PP", ""),
    ("cost_call", "llP", ""),
    ("cost_create_canister", "P", ""),
    ("cost_http_request", "llP", ""),
    ("cost_http_request_v2", "PPP", ""),
    ("cost_sign_with_ecdsa", "PPiP", "i"),
    ("cost_sign_with_schnorr", "PPiP", "i"),
    ("cost_vetkd_derive_key", "PPiP", "i"),
    ("cycles_burn128", "llP", ""),
    ("data_certificate_copy", "PPP", ""),
    ("data_certificate_present", "", "i"),
    ("data_certificate_size", "", "P"),
    ("debug_print", "PP", ""),
    ("env_var_count", "", "P"),
    ("env_var_name_copy", "PPPP", ""),
    ("env_var_name_exists", "PP", "i"),
    ("env_var_name_size", "P", "P"),
    ("env_var_value_copy", "PPPPP", ""),
    ("env_var_value_size", "PP", "P"),
    ("global_timer_set", "l", "l"),
    ("in_replicated_execution", "", "i"),
    ("is_controller", "PP", "i"),
    ("mint_cycles128", "llP", ""),
    ("msg_arg_data_copy", "PPP", ""),
    ("msg_arg_data_size", "", "P"),
    ("msg_caller_copy", "PPP", ""),
    ("msg_caller_info_data_copy", "PPP", ""),
    ("msg_caller_info_data_size", "", "P"),
    ("msg_caller_info_signer_copy", "PPP", ""),
    ("msg_caller_info_signer_size", "", "P"),
    ("msg_caller_size", "", "P"),
    ("msg_cycles_accept128", "llP", ""),
    ("msg_cycles_available128", "P", ""),
    ("msg_cycles_refunded128", "P", ""),
    ("msg_deadline", "", "l"),
    ("msg_method_name_copy", "PPP", ""),
    ("msg_method_name_size", "", "P"),
    ("msg_reject", "PP", ""),
    ("msg_reject_code", "", "i"),
    ("msg_reject_msg_copy", "PPP", ""),
    ("msg_reject_msg_size", "", "P"),
    ("msg_reply", "", ""),
    ("msg_reply_data_append", "PP", ""),
    ("performance_counter", "i", "l"),
    ("root_key_copy", "PPP", ""),
    ("root_key_size", "", "P"),
    ("stable64_grow", "l", "l"),
    ("stable64_read", "lll", ""),
    ("stable64_size", "", "l"),
    ("stable64_write", "lll", ""),
    ("subnet_self_copy", "PPP", ""),
    ("subnet_self_size", "", "P"),
    ("time", "", "l"),
    ("trap", "PP", ""),
];

/// Available to wasm32 modules only: the forms that the 64- and 128-bit ones replaced.
const WASM32_ONLY: &[Signature] = &[
    ("call_cycles_add", "l", ""),
    ("canister_cycle_balance", "", "l"),
    ("msg_cycles_accept", "l", "l"),
    ("msg_cycles_available", "", "l"),
    ("msg_cycles_refunded", "", "l"),
    ("stable_grow", "i", "i"),
    ("stable_read", "iii", ""),
    ("stable_size", "", "i"),
    ("stable_write", "iii", ""),
];

/// Parameter and result types of an `ic0` function, if modules of this width may import it.
pub(super) fn signature(name: &str, width: WasmWidth) -> Option<(Vec<ValType>, Vec<ValType>)> {
    let older = match width {
        WasmWidth::Wasm32 => WASM32_ONLY,
        WasmWidth::Wasm64 => &[],
    };
    let (_, parameters, results) = COMMON.iter().chain(older).find(|(known, ..)| *known == name)?;
    Some((types(parameters, width), types(results, width)))
}

fn types(letters: &str, width: WasmWidth) -> Vec<ValType> {
    letters
        .bytes()
        .map(|letter| match (letter, width) {
            (b'i', _) | (b'P', WasmWidth::Wasm32) => ValType::I32,
            _ => ValType::I64,
        })
        .collect()
}
