//! A canister that makes canisters for its users and upgrades them in waves. Interface: `fleet.did`.

use candid::{CandidType, Principal};
use futures_util::future::join_all;
use ic_cdk::call::Call;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use std::cell::RefCell;

/// Cycles that each member begins with.
const MEMBER_CYCLES: u128 = 10_000_000_000_000;

#[derive(Default)]
struct Fleet {
    module: Vec<u8>,
    members: Vec<Member>,
    /// The version that the current wave brings.
    version: u64,
    /// The first member that the wave has not reached.
    next: usize,
    is_busy: bool,
}

#[derive(Clone, CandidType)]
struct Member {
    canister: Principal,
    version: u64,
}

#[derive(CandidType)]
struct CreateArgument {
    settings: Option<()>,
}

#[derive(CandidType, Deserialize)]
struct CreateReply {
    canister_id: Principal,
}

#[derive(CandidType)]
#[allow(non_camel_case_types, reason = "as the interface spells them")]
enum Mode {
    install,
    upgrade(Option<()>),
}

#[derive(CandidType)]
struct InstallArgument {
    mode: Mode,
    canister_id: Principal,
    wasm_module: ByteBuf,
    arg: ByteBuf,
}

#[derive(CandidType)]
struct Wave {
    version: u64,
    upgraded: u32,
    errors: Vec<String>,
}

thread_local! {
    static FLEET: RefCell<Fleet> = RefCell::default();
}

/// Takes the module of members.
#[ic_cdk::init]
fn init(module: ByteBuf) {
    FLEET.with_borrow_mut(|fleet| (fleet.module, fleet.version) = (module.into_vec(), 1));
}

/// Makes so many members and answers all of them.
#[ic_cdk::update]
async fn grow(count: u32) -> Result<Vec<Principal>, String> {
    for made in join_all((0..count).map(|_| make())).await {
        let canister = made?;
        FLEET.with_borrow_mut(|fleet| fleet.members.push(Member { canister, version: 1 }));
    }
    Ok(FLEET.with_borrow(|fleet| fleet.members.iter().map(|member| member.canister).collect()))
}

async fn make() -> Result<Principal, String> {
    let argument = CreateArgument { settings: None };
    let call = Call::unbounded_wait(Principal::management_canister(), "create_canister").with_arg(argument).with_cycles(MEMBER_CYCLES);
    let reply = call.await.map_err(|error| error.to_string())?;
    let canister = reply.candid::<CreateReply>().map_err(|error| error.to_string())?.canister_id;
    install(Mode::install, canister, 1).await.map(|()| canister)
}

/// Installs what members run in a version: the module with the version as a section of its own, as a release differs from the
/// one before it. A module seen for the first time is validated and compiled.
async fn install(mode: Mode, canister: Principal, version: u64) -> Result<(), String> {
    let mut module = FLEET.with_borrow(|fleet| fleet.module.clone());
    let section = [b"\x07version", &version.to_le_bytes()[..]].concat();
    module.extend([0, section.len() as u8]);
    module.extend(section);
    let argument = InstallArgument {
        mode,
        canister_id: canister,
        wasm_module: ByteBuf::from(module),
        arg: ByteBuf::from(candid::encode_one(version).map_err(|error| error.to_string())?),
    };
    let call = Call::unbounded_wait(Principal::management_canister(), "install_code").with_arg(argument);
    call.await.map(drop).map_err(|error| error.to_string())
}

/// Upgrades the next `concurrency` members; the wave after the one that reached the last member brings a new version. Nothing
/// happens while a wave is under way.
#[ic_cdk::update]
async fn upgrade_wave(concurrency: u32) -> Wave {
    let (version, numbers) = FLEET.with_borrow_mut(|fleet| {
        if fleet.is_busy || fleet.members.is_empty() {
            return (fleet.version, 0..0);
        }
        fleet.is_busy = true;
        if fleet.next == fleet.members.len() || fleet.version == 1 {
            (fleet.next, fleet.version) = (0, fleet.version + 1);
        }
        let first = fleet.next;
        fleet.next = (first + concurrency as usize).min(fleet.members.len());
        (fleet.version, first..fleet.next)
    });
    if numbers.is_empty() {
        return Wave { version, upgraded: 0, errors: Vec::new() };
    }
    let upgrades = numbers.clone().map(|number| {
        let canister = FLEET.with_borrow(|fleet| fleet.members[number].canister);
        install(Mode::upgrade(None), canister, version)
    });
    let results = join_all(upgrades).await;
    let mut wave = Wave { version, upgraded: 0, errors: Vec::new() };
    FLEET.with_borrow_mut(|fleet| {
        fleet.is_busy = false;
        for (number, result) in numbers.zip(results) {
            match result {
                Ok(()) => (fleet.members[number].version, wave.upgraded) = (version, wave.upgraded + 1),
                Err(error) => wave.errors.push(error),
            }
        }
    });
    wave
}

/// Every member with the version that it runs.
#[ic_cdk::query]
fn members() -> Vec<Member> {
    FLEET.with_borrow(|fleet| fleet.members.clone())
}
