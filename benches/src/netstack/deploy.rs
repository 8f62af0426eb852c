//! A replica with a canister that does nothing, and that certifies what it is told to.

use crate::{BenchError, replicas};
use candid::{CandidType, Decode, Encode, Principal};
use replicore::Replica;
use replicore::config::Config;
use replicore_types::{CanisterId, PrincipalId};
use replicore_workloads::agent::{fetch_root_key, fetch_state_root};
use replicore_workloads::certificate::Verifier;
use replicore_workloads::{Agent, CallOutcome, Identity};
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;

/// `noop` replies nothing; `certify` certifies its argument; `certificate` replies with the data certificate.
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
    (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
    (import "ic0" "certified_data_set" (func $certified_data_set (param i32 i32)))
    (import "ic0" "data_certificate_size" (func $certificate_size (result i32)))
    (import "ic0" "data_certificate_copy" (func $certificate_copy (param i32 i32 i32)))
    (memory 1)
    (func (export "canister_update noop") (call $reply))
    (func (export "canister_update certify")
        (call $arg_copy (i32.const 0) (i32.const 0) (call $arg_size))
        (call $certified_data_set (i32.const 0) (call $arg_size))
        (call $reply))
    (func (export "canister_query certificate")
        (call $certificate_copy (i32.const 0) (i32.const 0) (call $certificate_size))
        (call $append (i32.const 0) (call $certificate_size))
        (call $reply)))"#;

#[derive(CandidType)]
struct Create {
    amount: Option<candid::Nat>,
}

#[derive(CandidType, candid::Deserialize)]
struct Created {
    canister_id: Principal,
}

#[derive(CandidType, candid::Deserialize)]
enum InstallMode {
    #[serde(rename = "install")]
    Install,
}

#[derive(CandidType)]
struct Install {
    mode: InstallMode,
    canister_id: Principal,
    wasm_module: Vec<u8>,
    arg: Vec<u8>,
}

/// A running replica with the canister.
pub(super) struct Deployed {
    replica: Replica,
    agent: Agent,
    verifier: Arc<Verifier>,
    principal: Principal,
    pub(super) canister: CanisterId,
    _directory: TempDir,
}

impl Deployed {
    /// A replica with another configuration than the default one.
    pub(super) fn start_with(change: impl FnOnce(&mut Config)) -> Result<Self, BenchError> {
        let directory = tempfile::tempdir().map_err(BenchError::new)?;
        let mut config = replicas::config(&directory.path().join("state"));
        change(&mut config);
        let replica = Replica::start(&config).map_err(BenchError::new)?;
        let address = replica.local_addr();
        let root_key = fetch_root_key(address).map_err(BenchError::new)?;
        let verifier = Arc::new(Verifier::new(&root_key).map_err(BenchError::new)?);
        let mut agent = Agent::new(address, Identity::numbered(0), Arc::clone(&verifier));
        let principal = install(&mut agent)?;
        Ok(Self {
            replica,
            agent,
            verifier,
            principal,
            canister: CanisterId(PrincipalId::from_slice(principal.as_slice())),
            _directory: directory,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.replica.local_addr()
    }

    /// Makes the canister certify `data`, and returns the certificate that says so.
    pub(super) fn certify(&mut self, data: &[u8; 32]) -> Result<Vec<u8>, BenchError> {
        let update = self.agent.update(self.principal, "certify", data);
        replied(update.map_err(BenchError::new)?)?;
        let query = self.agent.query(self.principal, "certificate", &[]);
        replied(query.map_err(BenchError::new)?)
    }

    /// The root of the certified state.
    pub(super) fn root(&self) -> Result<String, BenchError> {
        let root = fetch_state_root(self.address(), self.principal, &self.verifier).map_err(BenchError::new)?;
        Ok(hex::encode(root))
    }

    pub(super) fn stop(self) -> Result<(), BenchError> {
        self.replica.stop().map_err(BenchError::new)
    }
}

fn install(agent: &mut Agent) -> Result<Principal, BenchError> {
    let management = Principal::management_canister();
    let amount = Some(candid::Nat::from(1_000_000_000_000_000_u64));
    let argument = Encode!(&Create { amount }).map_err(BenchError::new)?;
    let reply = agent.update(management, "provisional_create_canister_with_cycles", &argument);
    let reply = replied(reply.map_err(BenchError::new)?)?;
    let created = Decode!(&reply, Created).map_err(BenchError::new)?;
    let install = Install {
        mode: InstallMode::Install,
        canister_id: created.canister_id,
        wasm_module: wat::parse_str(MODULE).map_err(BenchError::new)?,
        arg: Vec::new(),
    };
    let argument = Encode!(&install).map_err(BenchError::new)?;
    let reply = agent.update_effective(management, created.canister_id, "install_code", &argument);
    replied(reply.map_err(BenchError::new)?)?;
    Ok(created.canister_id)
}

fn replied(outcome: CallOutcome) -> Result<Vec<u8>, BenchError> {
    match outcome {
        CallOutcome::Replied(reply) => Ok(reply),
        other => Err(BenchError::new(format!("the canister did not reply: {other:?}"))),
    }
}
