//! Every bound of the protocol that the deterministic crates enforce, with its reason, and how they relate.
//!
//! Bounds of one process (connections, caches, threads) are in the replica's configuration instead: they may differ
//! between replicas without changing a result; these may not.

use std::time::Duration;

/// Error texts travel in certified state; the published bound is 8 KiB.
pub const ERROR_DESCRIPTION_BYTES_MAX: usize = 8 * 1024;
/// Reject texts a canister may produce; the published bound is 8 KiB.
pub const REJECT_MESSAGE_BYTES_MAX: usize = 8 * 1024;

// -- Instructions ----------------------------------------------------------------------------------------------------

/// An update, callback, heartbeat or timer execution; system subnets allow [`SYSTEM_MESSAGE_INSTRUCTIONS_MAX`].
pub const MESSAGE_INSTRUCTIONS_MAX: u64 = 40_000_000_000;
/// The same on system subnets.
pub const SYSTEM_MESSAGE_INSTRUCTIONS_MAX: u64 = 50_000_000_000;
/// One slice of a long execution: the unit in which rounds are shared.
pub const SLICE_INSTRUCTIONS_MAX: u64 = 2_000_000_000;
/// A non-replicated query.
pub const QUERY_INSTRUCTIONS_MAX: u64 = 5_000_000_000;
/// All calls of one composite query together.
pub const COMPOSITE_QUERY_INSTRUCTIONS_MAX: u64 = 5_000_000_000;
/// Charged for every call within a composite query, on top of what it executes.
pub const COMPOSITE_QUERY_CALL_INSTRUCTIONS: u64 = 50_000_000;
/// How deep the calls of a composite query may nest.
pub const COMPOSITE_QUERY_DEPTH_MAX: usize = 6;
/// `canister_inspect_message`: runs before a message is paid for, hence small.
pub const INSPECT_MESSAGE_INSTRUCTIONS_MAX: u64 = 200_000_000;
/// `install_code`: compile charge, start, pre_upgrade, init and post_upgrade together.
pub const INSTALL_CODE_INSTRUCTIONS_MAX: u64 = 300_000_000_000;
/// The same on system subnets.
pub const SYSTEM_INSTALL_CODE_INSTRUCTIONS_MAX: u64 = 1_000_000_000_000;
/// Instructions after which a code install on a system subnet pauses until the next round; elsewhere it is
/// [`SLICE_INSTRUCTIONS_MAX`].
pub const SYSTEM_INSTALL_CODE_SLICE_INSTRUCTIONS_MAX: u64 = 5_000_000_000;
/// What one round works off of a canister's debit of install instructions: until it is gone the canister takes no
/// further install, and while it is this or more the canister executes nothing.
pub const INSTALL_CODE_INSTRUCTIONS_PER_ROUND: u64 = 2_000_000_000;
/// One round, per scheduler core.
pub const ROUND_INSTRUCTIONS_MAX: u64 = 4_000_000_000;

const _: () = assert!(SLICE_INSTRUCTIONS_MAX <= ROUND_INSTRUCTIONS_MAX);
const _: () = assert!(SLICE_INSTRUCTIONS_MAX <= MESSAGE_INSTRUCTIONS_MAX);

// -- Messages --------------------------------------------------------------------------------------------------------

/// Ingress argument and envelope: published bound of application subnets.
pub const INGRESS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Payload of a call within the subnet, the method name included.
pub const LOCAL_REQUEST_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Payload of a reply to an update or inter-canister call.
pub const REPLY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Payload of a reply to a query.
pub const QUERY_REPLY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Method names in calls.
pub const METHOD_NAME_BYTES_MAX: usize = 20_000;
/// Requests waiting from one canister to another, and as many reserved response slots.
pub const QUEUE_CAPACITY: usize = 500;
/// Open calls of all canisters that a subnet means to hold: each holds a callback in the state. What is left of it when a
/// round begins bounds what its messages may open, so a round may go beyond it, once.
pub const CALLBACKS_MAX: usize = 1_000_000;
/// A canister may hold this part of the open calls that are left.
pub const CALLBACK_SHARES: usize = 4;
/// Open calls that a canister may hold whatever the others do.
pub const CALLBACKS_GUARANTEED_PER_CANISTER: usize = 50;
/// Messages kept for one other subnet; above it calls to its canisters are rejected. Responses always find room: the slots
/// of their calls bound them.
pub const STREAM_MESSAGES_MAX: usize = 10_000;
/// Bytes of messages in one slice of a stream; one message always fits.
pub const STREAM_SLICE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory of messages that a subnet means to hold: what waits, and room for every guaranteed response that may come (the
/// production replica's 15 GiB for guaranteed responses and its 5 GiB for best-effort messages, in one). What is left of it
/// when a round begins bounds what its messages may send, so a round may go beyond it, once.
pub const MESSAGE_MEMORY_BYTES_MAX: u64 = 20 * 1024 * 1024 * 1024;
/// A canister may hold this part of the message memory that is left.
pub const MESSAGE_MEMORY_SHARES: u64 = 4;
/// Message memory that a canister may hold whatever the others do: fifty guaranteed responses.
pub const MESSAGE_MEMORY_GUARANTEED_PER_CANISTER_BYTES: u64 =
    CALLBACKS_GUARANTEED_PER_CANISTER as u64 * REPLY_BYTES_MAX as u64;
/// Ingress messages in one batch: bounds what one round inducts before any of it is executed.
pub const BATCH_MESSAGES_MAX: usize = 100_000;
/// Payload bytes in one batch.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// An ingress message expires at most this long after it is made.
pub const INGRESS_TTL: Duration = Duration::from_secs(5 * 60);
/// Tolerated difference between a client's clock and ours.
pub const PERMITTED_DRIFT: Duration = Duration::from_secs(60);
/// How long an answer stays readable after its message's last possible induction.
pub const INGRESS_HISTORY_TTL: Duration = Duration::from_secs(6 * 60);
/// Statuses kept; while there are as many, no further message is taken up. Every message needs one until it can no longer
/// be sent again, so this bounds the rate that can last: 33,000 messages a second (the production replica's bound of
/// 600,000 stands for 1,667). A replica may turn calls away long before, for the sake of its memory.
pub const INGRESS_HISTORY_ENTRIES_MAX: usize = 12_000_000;
/// Bytes of answers kept; above it the oldest become `Done`.
pub const INGRESS_HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024 * 1024;
/// Longest time that a best-effort call may wait.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// A guaranteed-response request that no receiver took is rejected after this.
pub const REQUEST_LIFETIME: Duration = Duration::from_secs(300);
/// An HTTP outcall without an answer is given up after this.
pub const HTTP_OUTCALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A stop that finds open call contexts gives up after this.
pub const STOP_CANISTER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

const _: () = assert!(STORAGE_RESERVATION_THRESHOLD_BYTES < SUBNET_MEMORY_BYTES_MAX - SUBNET_MEMORY_RESERVED_BYTES);
const _: () = assert!(CALLBACKS_GUARANTEED_PER_CANISTER <= QUEUE_CAPACITY);
const _: () = assert!(REPLY_BYTES_MAX <= LOCAL_REQUEST_BYTES_MAX);
const _: () = assert!(INGRESS_TTL.as_secs() <= INGRESS_HISTORY_TTL.as_secs());

// -- Outcalls and threshold keys -------------------------------------------------------------------------------------

/// Bytes of the URL of an HTTP outcall.
pub const HTTP_URL_BYTES_MAX: usize = 8 * 1024;
/// Headers of an HTTP outcall, and of its response.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of one header's name, and of its value.
pub const HTTP_HEADER_BYTES_MAX: usize = 8 * 1024;
/// Bytes of the names and values of all headers.
pub const HTTP_HEADERS_BYTES_MAX: usize = 48 * 1024;
/// Bytes of an HTTP outcall: names and values of its headers and its body.
pub const HTTP_REQUEST_BYTES_MAX: usize = 2_000_000;
/// Bytes of the response to an HTTP outcall, counted alike; the bound where the caller names none.
pub const HTTP_RESPONSE_BYTES_MAX: u64 = 2_000_000;
/// Elements of a derivation path.
pub const DERIVATION_PATH_ELEMENTS_MAX: usize = 255;
/// Signatures or vetKeys of one key that canisters wait for; above it a call is rejected.
pub const THRESHOLD_REQUESTS_MAX: usize = 20;

// -- Canisters -------------------------------------------------------------------------------------------------------

/// Controllers of one canister.
pub const CONTROLLERS_MAX: usize = 10;
/// Canisters on one subnet.
pub const CANISTERS_MAX: usize = 120_000;
/// Entries of the change history that are kept.
pub const CANISTER_HISTORY_MAX: usize = 20;
/// Environment variables of one canister; names and values hold up to 128 bytes each.
pub const ENVIRONMENT_VARIABLES_MAX: usize = 20;
/// Bytes of an environment variable's name, and of its value.
pub const ENVIRONMENT_VARIABLE_BYTES_MAX: usize = 128;
/// Certified data of one canister.
pub const CERTIFIED_DATA_BYTES_MAX: usize = 32;
/// Snapshots of one canister.
pub const SNAPSHOTS_MAX: usize = 10;
/// Bytes of one chunk of the chunk store.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// Chunks in the chunk store of one canister.
pub const CHUNKS_MAX: usize = 100;
/// Log bytes that a canister keeps unless it asks for more.
pub const LOG_BYTES_DEFAULT: usize = 4 * 1024;
/// Subnet memory: the sum of what canisters use or have allocated.
pub const SUBNET_MEMORY_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024 * 1024;
/// Memory above which growth reserves cycles.
pub const STORAGE_RESERVATION_THRESHOLD_BYTES: u64 = 750 * 1024 * 1024 * 1024;
/// Subnet memory that is kept back for responses to messages already sent.
pub const SUBNET_MEMORY_RESERVED_BYTES: u64 = 10 * 1024 * 1024 * 1024;
/// One execution may take this part of the subnet memory that is free: four can run at the same time, and none may
/// depend on what the others take.
pub const SUBNET_MEMORY_SHARES: u64 = 4;
/// Bytes written (changed pages) after which a round stops starting messages.
pub const HEAP_DELTA_PER_ROUND_BYTES_MAX: u64 = 200 * 1024 * 1024;
/// What one round works off of a canister's debit of written bytes: while it is this or more the canister executes
/// nothing.
pub const HEAP_DELTA_PER_CANISTER_AND_ROUND_BYTES: u64 = 75 * 1024 * 1024;
/// Compute allocations that one subnet promises, in percent of a core.
pub const COMPUTE_ALLOCATION_TOTAL_MAX: u64 = 299;

// -- Memory ----------------------------------------------------------------------------------------------------------

/// Wasm heap of a wasm32 module.
pub const WASM32_HEAP_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Wasm heap of a wasm64 module.
pub const WASM64_HEAP_BYTES_MAX: u64 = 6 * 1024 * 1024 * 1024;
/// `wasm_memory_limit` where none is set.
pub const WASM_MEMORY_LIMIT_DEFAULT: u64 = 3 * 1024 * 1024 * 1024;
/// Stable memory.
pub const STABLE_MEMORY_BYTES_MAX: u64 = 500 * 1024 * 1024 * 1024;
/// Stable bytes that one update may access or write.
pub const STABLE_ACCESS_BYTES_PER_MESSAGE_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Stable bytes that one query may access.
pub const STABLE_ACCESS_BYTES_PER_QUERY_MAX: u64 = 1024 * 1024 * 1024;
/// Stable bytes that an upgrade may access.
pub const STABLE_ACCESS_BYTES_PER_UPGRADE_MAX: u64 = 8 * 1024 * 1024 * 1024;

// -- Wasm modules ----------------------------------------------------------------------------------------------------

/// A module after decompression.
pub const WASM_MODULE_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Its code section.
pub const WASM_CODE_SECTION_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Functions of one module.
pub const WASM_FUNCTIONS_MAX: usize = 50_000;
/// Globals of one module.
pub const WASM_GLOBALS_MAX: usize = 1_000;
/// Exported methods of one module.
pub const WASM_EXPORTED_METHODS_MAX: usize = 1_000;
/// Sum of the lengths of exported method names.
pub const WASM_EXPORTED_NAMES_BYTES_MAX: usize = 20_000;
/// Instructions of one function, and the bound of its weighted complexity.
pub const WASM_FUNCTION_COMPLEXITY_MAX: usize = 1_000_000;
/// Custom sections `icp:public` and `icp:private` of one module.
pub const WASM_CUSTOM_SECTIONS_MAX: usize = 16;
/// Their bytes.
pub const WASM_CUSTOM_SECTIONS_BYTES_MAX: usize = 1024 * 1024;
/// Elements of a module's one table.
pub const WASM_TABLE_ELEMENTS_MAX: u64 = 1_000_000;
