//! The System API as one table: every function with its parameters and the modes it is legal in.
//!
//! The table makes the linker's functions for both pointer widths ([`link`]) and the list that tests and documents read
//! ([`FUNCTIONS`]). A parameter or result of type `I` is a pointer or a size: `i32` in wasm32, `i64` in wasm64. What a
//! call costs stands in `module/system_calls.rs`: the instrumented code pays before it calls.

use super::context::{Contexts, Mode};
use super::{Host, HostState, call, certified_data, costs, cycles, environment, info, log, message, stable};
use crate::trap::Failure;
use wasmtime::{Caller, Linker};

use Mode::*;

/// Messages that have an argument to read.
const ARGUMENT: Contexts = Contexts::of(&[
    Init,
    PostUpgrade,
    Update,
    ReplicatedQuery,
    Query,
    CompositeQuery,
    ReplyCallback,
    CompositeReplyCallback,
    InspectMessage,
]);
const CALLER_INFO: Contexts = Contexts::NOT_START.without(&[Init, PreUpgrade, PostUpgrade, SystemTask]);
const REJECT_CODE: Contexts = Contexts::of(&[
    ReplyCallback,
    RejectCallback,
    CompositeReplyCallback,
    CompositeRejectCallback,
    Cleanup,
    CompositeCleanup,
]);
const REJECT_MESSAGE: Contexts = Contexts::of(&[RejectCallback, CompositeRejectCallback]);
/// Messages that can answer their caller.
const ANSWER: Contexts = Contexts::of(&[
    Update,
    ReplicatedQuery,
    Query,
    CompositeQuery,
    ReplyCallback,
    RejectCallback,
    CompositeReplyCallback,
    CompositeRejectCallback,
]);
const CYCLES_AVAILABLE: Contexts = Contexts::of(&[Update, ReplicatedQuery, ReplyCallback, RejectCallback]);
const CYCLES_REFUNDED: Contexts = Contexts::of(&[ReplyCallback, RejectCallback]);
/// Replicated messages whose own state lasts, and replicated queries.
const REPLICATED: Contexts = Contexts::of(&[
    Init,
    PreUpgrade,
    PostUpgrade,
    Update,
    ReplicatedQuery,
    ReplyCallback,
    RejectCallback,
    Cleanup,
    SystemTask,
]);
/// Messages that can call.
const CALLS: Contexts = Contexts::of(&[
    Update,
    CompositeQuery,
    ReplyCallback,
    RejectCallback,
    CompositeReplyCallback,
    CompositeRejectCallback,
    SystemTask,
]);
const CALLS_WITH_CYCLES: Contexts = Contexts::of(&[Update, ReplyCallback, RejectCallback, SystemTask]);
const CERTIFIED: Contexts = Contexts::of(&[
    Init,
    PreUpgrade,
    PostUpgrade,
    Update,
    ReplyCallback,
    RejectCallback,
    SystemTask,
]);
const TIMER: Contexts = Contexts::of(&[
    Init,
    PreUpgrade,
    PostUpgrade,
    Update,
    ReplyCallback,
    RejectCallback,
    Cleanup,
    SystemTask,
]);
const CERTIFICATE: Contexts = Contexts::of(&[Query, CompositeQuery]);
const INSPECT: Contexts = Contexts::of(&[InspectMessage]);

/// One function of the System API.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Its name in module `ic0`.
    pub name: &'static str,
    /// Types of its parameters: `I`, `u32` or `u64`.
    pub parameters: &'static [&'static str],
    /// Type of its result, or `()`.
    pub result: &'static str,
    /// Where it is legal.
    pub contexts: Contexts,
    /// True for the older forms that only wasm32 modules may import.
    pub wasm32_only: bool,
}

/// A pointer-sized integer of one width.
trait Pointer: wasmtime::WasmTy + Word + Returned {}
impl Pointer for u32 {}
impl Pointer for u64 {}

/// A parameter, widened.
trait Word: Copy {
    fn word(self) -> u64;
}
impl Word for u32 {
    fn word(self) -> u64 {
        u64::from(self)
    }
}
impl Word for u64 {
    fn word(self) -> u64 {
        self
    }
}

/// A result, narrowed; the functions never return more than the type holds.
trait Returned {
    fn returned(word: u64) -> Self;
}
impl Returned for u32 {
    fn returned(word: u64) -> Self {
        word as u32
    }
}
impl Returned for u64 {
    fn returned(word: u64) -> Self {
        word
    }
}
impl Returned for () {
    fn returned(_: u64) -> Self {}
}

macro_rules! functions {
    ($(
        $(#[$only:ident])? fn $name:ident($($parameter:ident: $type:ident),*) -> $result:ty,
        in $contexts:expr => $implementation:path;
    )*) => {
        /// Every function, in the order of the table.
        pub const FUNCTIONS: &[Function] = &[$(Function {
            name: stringify!($name),
            parameters: &[$(stringify!($type)),*],
            result: stringify!($result),
            contexts: $contexts,
            wasm32_only: functions!(@only $($only)?),
        }),*];

        /// Defines every function for modules whose pointers are `I`.
        fn link_width<I: Pointer>(linker: &mut Linker<HostState>, wasm32: bool) -> wasmtime::Result<()> {
            $(
                if wasm32 || !functions!(@only $($only)?) {
                    const CONTEXTS: Contexts = $contexts;
                    linker.func_wrap(
                        "ic0",
                        stringify!($name),
                        |mut caller: Caller<'_, HostState>, $($parameter: $type),*| -> wasmtime::Result<$result> {
                            $(let $parameter = $parameter.word();)*
                            Host::enter(&mut caller, stringify!($name), CONTEXTS, |host| {
                                $implementation(host, $($parameter),*)
                            })
                            .map(<$result as Returned>::returned)
                        },
                    )?;
                }
            )*
            Ok(())
        }
    };
    (@only wasm32) => { true };
    (@only) => { false };
}

functions! {
    // The message.
    fn msg_arg_data_size() -> I, in ARGUMENT => message::argument_size;
    fn msg_arg_data_copy(dst: I, offset: I, size: I) -> (), in ARGUMENT => message::argument_copy;
    fn msg_caller_size() -> I, in Contexts::NOT_START => message::caller_size;
    fn msg_caller_copy(dst: I, offset: I, size: I) -> (), in Contexts::NOT_START => message::caller_copy;
    fn msg_caller_info_data_size() -> I, in CALLER_INFO => message::caller_info_data_size;
    fn msg_caller_info_data_copy(dst: I, offset: I, size: I) -> (), in CALLER_INFO => message::caller_info_data_copy;
    fn msg_caller_info_signer_size() -> I, in CALLER_INFO => message::caller_info_signer_size;
    fn msg_caller_info_signer_copy(dst: I, offset: I, size: I) -> (), in CALLER_INFO => message::caller_info_signer_copy;
    fn msg_reject_code() -> u32, in REJECT_CODE => message::reject_code;
    fn msg_reject_msg_size() -> I, in REJECT_MESSAGE => message::reject_message_size;
    fn msg_reject_msg_copy(dst: I, offset: I, size: I) -> (), in REJECT_MESSAGE => message::reject_message_copy;
    fn msg_deadline() -> u64, in ANSWER => message::deadline;
    fn msg_reply_data_append(src: I, size: I) -> (), in ANSWER => message::reply_data_append;
    fn msg_reply() -> (), in ANSWER => message::reply;
    fn msg_reject(src: I, size: I) -> (), in ANSWER => message::reject;
    fn msg_method_name_size() -> I, in INSPECT => message::method_name_size;
    fn msg_method_name_copy(dst: I, offset: I, size: I) -> (), in INSPECT => message::method_name_copy;
    fn accept_message() -> (), in INSPECT => message::accept;

    // Cycles.
    fn msg_cycles_available128(dst: I) -> (), in CYCLES_AVAILABLE => cycles::available128;
    #[wasm32] fn msg_cycles_available() -> u64, in CYCLES_AVAILABLE => cycles::available;
    fn msg_cycles_refunded128(dst: I) -> (), in CYCLES_REFUNDED => cycles::refunded128;
    #[wasm32] fn msg_cycles_refunded() -> u64, in CYCLES_REFUNDED => cycles::refunded;
    fn msg_cycles_accept128(high: u64, low: u64, dst: I) -> (), in CYCLES_AVAILABLE => cycles::accept128;
    #[wasm32] fn msg_cycles_accept(amount: u64) -> u64, in CYCLES_AVAILABLE => cycles::accept;
    fn cycles_burn128(high: u64, low: u64, dst: I) -> (), in REPLICATED => cycles::burn128;
    fn mint_cycles128(high: u64, low: u64, dst: I) -> (), in CALLS.without(&[CompositeQuery, CompositeReplyCallback, CompositeRejectCallback]) => cycles::mint128;
    fn canister_cycle_balance128(dst: I) -> (), in Contexts::NOT_START => cycles::balance128;
    #[wasm32] fn canister_cycle_balance() -> u64, in Contexts::NOT_START => cycles::balance;
    fn canister_liquid_cycle_balance128(dst: I) -> (), in Contexts::NOT_START => cycles::liquid_balance128;

    // Calls.
    fn call_new(callee_src: I, callee_size: I, name_src: I, name_size: I, reply_fun: I, reply_env: I, reject_fun: I, reject_env: I) -> (), in CALLS => call::new;
    fn call_on_cleanup(fun: I, env: I) -> (), in CALLS => call::on_cleanup;
    fn call_data_append(src: I, size: I) -> (), in CALLS => call::data_append;
    fn call_with_best_effort_response(timeout_seconds: u32) -> (), in CALLS => call::with_best_effort_response;
    fn call_cycles_add128(high: u64, low: u64) -> (), in CALLS_WITH_CYCLES => call::cycles_add128;
    #[wasm32] fn call_cycles_add(amount: u64) -> (), in CALLS_WITH_CYCLES => call::cycles_add;
    fn call_perform() -> u32, in CALLS => call::perform;

    // Stable memory.
    fn stable64_size() -> u64, in Contexts::ALL => stable::size64;
    fn stable64_grow(additional: u64) -> u64, in Contexts::ALL => stable::grow64;
    fn stable64_read(dst: u64, offset: u64, size: u64) -> (), in Contexts::ALL => stable::read64;
    fn stable64_write(offset: u64, src: u64, size: u64) -> (), in Contexts::ALL => stable::write64;
    #[wasm32] fn stable_size() -> u32, in Contexts::ALL => stable::size32;
    #[wasm32] fn stable_grow(additional: u32) -> u32, in Contexts::ALL => stable::grow32;
    #[wasm32] fn stable_read(dst: u32, offset: u32, size: u32) -> (), in Contexts::ALL => stable::read32;
    #[wasm32] fn stable_write(offset: u32, src: u32, size: u32) -> (), in Contexts::ALL => stable::write32;

    // The canister, the subnet, time.
    fn canister_self_size() -> I, in Contexts::NOT_START => info::self_size;
    fn canister_self_copy(dst: I, offset: I, size: I) -> (), in Contexts::NOT_START => info::self_copy;
    fn subnet_self_size() -> I, in Contexts::NOT_START => info::subnet_size;
    fn subnet_self_copy(dst: I, offset: I, size: I) -> (), in Contexts::NOT_START => info::subnet_copy;
    fn canister_status() -> u32, in Contexts::NOT_START => info::status;
    fn canister_version() -> u64, in Contexts::NOT_START => info::version;
    fn root_key_size() -> I, in REPLICATED => info::root_key_size;
    fn root_key_copy(dst: I, offset: I, size: I) -> (), in REPLICATED => info::root_key_copy;
    fn time() -> u64, in Contexts::NOT_START => info::time;
    fn global_timer_set(deadline: u64) -> u64, in TIMER => info::global_timer_set;
    fn performance_counter(counter: u32) -> u64, in Contexts::ALL => info::performance_counter;
    fn is_controller(src: I, size: I) -> u32, in Contexts::ALL => info::is_controller;
    fn in_replicated_execution() -> u32, in Contexts::ALL => info::in_replicated_execution;

    // Certified data.
    fn certified_data_set(src: I, size: I) -> (), in CERTIFIED => certified_data::set;
    fn data_certificate_present() -> u32, in Contexts::NOT_START => certified_data::certificate_present;
    fn data_certificate_size() -> I, in CERTIFICATE => certified_data::certificate_size;
    fn data_certificate_copy(dst: I, offset: I, size: I) -> (), in CERTIFICATE => certified_data::certificate_copy;

    // Environment variables.
    fn env_var_count() -> I, in Contexts::NOT_START => environment::count;
    fn env_var_name_size(index: I) -> I, in Contexts::NOT_START => environment::name_size;
    fn env_var_name_copy(index: I, dst: I, offset: I, size: I) -> (), in Contexts::NOT_START => environment::name_copy;
    fn env_var_name_exists(src: I, size: I) -> u32, in Contexts::NOT_START => environment::name_exists;
    fn env_var_value_size(src: I, size: I) -> I, in Contexts::NOT_START => environment::value_size;
    fn env_var_value_copy(name_src: I, name_size: I, dst: I, offset: I, size: I) -> (), in Contexts::NOT_START => environment::value_copy;

    // What things cost.
    fn cost_call(name_size: u64, payload_size: u64, dst: I) -> (), in Contexts::ALL => costs::call;
    fn cost_create_canister(dst: I) -> (), in Contexts::ALL => costs::create_canister;
    fn cost_http_request(request_size: u64, response_size_max: u64, dst: I) -> (), in Contexts::ALL => costs::http_request;
    fn cost_http_request_v2(src: I, size: I, dst: I) -> (), in Contexts::ALL => costs::http_request_v2;
    fn cost_sign_with_ecdsa(src: I, size: I, curve: u32, dst: I) -> u32, in Contexts::ALL => costs::sign_with_ecdsa;
    fn cost_sign_with_schnorr(src: I, size: I, algorithm: u32, dst: I) -> u32, in Contexts::ALL => costs::sign_with_schnorr;
    fn cost_vetkd_derive_key(src: I, size: I, curve: u32, dst: I) -> u32, in Contexts::ALL => costs::vetkd_derive_key;

    // Words to the developer. What their bytes cost depends on the room left in the log.
    fn debug_print(src: I, size: I) -> (), in Contexts::ALL => log::debug_print;
    fn trap(src: I, size: I) -> (), in Contexts::ALL => log::trap;
}

/// Defines the System API for modules of this width.
pub(crate) fn link(linker: &mut Linker<HostState>, width: replicore_types::fees::WasmWidth) -> wasmtime::Result<()> {
    match width {
        replicore_types::fees::WasmWidth::Wasm32 => link_width::<u32>(linker, true),
        replicore_types::fees::WasmWidth::Wasm64 => link_width::<u64>(linker, false),
    }
}

/// The name of a function as error texts print it. Two of them print their module with a dot.
pub(crate) fn printed_name(name: &str) -> String {
    match name {
        "root_key_copy" | "subnet_self_copy" => format!("ic0.{name}"),
        _ => format!("ic0_{name}"),
    }
}

/// The failure of a call in the wrong mode.
pub(crate) fn wrong_mode(name: &str, mode: &'static str) -> Failure {
    Failure::WrongMode(printed_name(name), mode)
}
