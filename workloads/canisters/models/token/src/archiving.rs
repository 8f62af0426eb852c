//! Old blocks move to archives: canisters that the ledger makes when its log is long.

use crate::LEDGER;
use crate::ledger::{Archive, Ledger};
use candid::{CandidType, Principal};
use ic_cdk::call::Call;
use serde::Deserialize;
use serde_bytes::ByteBuf;

#[derive(CandidType)]
struct CreateArgument {
    settings: Option<()>,
}

#[derive(CandidType, Deserialize)]
struct CreateReply {
    canister_id: Principal,
}

#[derive(CandidType)]
#[allow(non_camel_case_types, reason = "as the interface spells it")]
enum Mode {
    install,
}

#[derive(CandidType)]
struct InstallArgument {
    mode: Mode,
    canister_id: Principal,
    wasm_module: ByteBuf,
    arg: ByteBuf,
}

/// Begins to move blocks if there are too many and none are being moved. What fails is tried again after the next transaction.
pub fn begin_if_due() {
    let is_due = LEDGER.with_borrow_mut(|ledger| {
        let ledger = ledger.as_mut().expect("initialised");
        let settings = &ledger.settings;
        let is_due = !ledger.is_archiving && settings.end - settings.first > settings.archive.trigger_threshold;
        ledger.is_archiving |= is_due;
        is_due
    });
    if is_due {
        ic_cdk::futures::spawn(async {
            if let Err(error) = archive().await {
                ic_cdk::println!("archiving: {error}");
            }
            crate::with_mut(|ledger| ledger.is_archiving = false);
        });
    }
}

async fn archive() -> Result<(), String> {
    let target = match crate::with(Ledger::archive_with_room) {
        Some(archive) => archive,
        None => create().await?,
    };
    let (first, blocks) = crate::with(|ledger| ledger.oldest_blocks(&target));
    let end = first + blocks.len() as u64;
    let call = Call::unbounded_wait(target.canister, "append_blocks").with_args(&(first, blocks));
    call.await.map_err(|error| error.to_string())?;
    crate::with_mut(|ledger| ledger.moved(target.canister, first..end));
    Ok(())
}

async fn create() -> Result<Archive, String> {
    let (options, first) = crate::with(|ledger| (ledger.settings.archive.clone(), ledger.settings.first));
    let management = Principal::management_canister();
    let call = Call::unbounded_wait(management, "create_canister").with_arg(CreateArgument { settings: None });
    let reply = call.with_cycles(u128::from(options.cycles_for_archive_creation)).await.map_err(|error| error.to_string())?;
    let canister = reply.candid::<CreateReply>().map_err(|error| error.to_string())?.canister_id;
    let argument = candid::encode_args((first, options.blocks_per_archive)).map_err(|error| error.to_string())?;
    let install = InstallArgument {
        mode: Mode::install,
        canister_id: canister,
        wasm_module: options.module,
        arg: ByteBuf::from(argument),
    };
    Call::unbounded_wait(management, "install_code").with_arg(install).await.map_err(|error| error.to_string())?;
    let archive = Archive { canister, first, end: first };
    crate::with_mut(|ledger| ledger.settings.archives.push(archive.clone()));
    Ok(archive)
}

impl Ledger {
    fn archive_with_room(&self) -> Option<Archive> {
        let last = self.settings.archives.last()?;
        (last.end - last.first < self.settings.archive.blocks_per_archive).then(|| last.clone())
    }

    /// The oldest blocks here that go to the archive next.
    fn oldest_blocks(&self, archive: &Archive) -> (u64, Vec<ByteBuf>) {
        let options = &self.settings.archive;
        let room = options.blocks_per_archive - (archive.end - archive.first);
        let count = options.num_blocks_to_archive.min(room).min(self.settings.end - self.settings.first);
        let first = self.settings.first;
        let blocks = self.blocks.range(first..first + count).map(|entry| ByteBuf::from(entry.value()));
        (first, blocks.collect())
    }

    fn moved(&mut self, canister: Principal, blocks: std::ops::Range<u64>) {
        for archive in self.settings.archives.iter_mut().filter(|archive| archive.canister == canister) {
            archive.end = blocks.end;
        }
        self.settings.first = blocks.end;
        for index in blocks {
            self.blocks.remove(&index);
        }
    }
}
