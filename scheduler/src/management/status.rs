//! What controllers, and whom they let in, see of a canister.

use super::footprint::{self, Footprint};
use super::types::{
    self, CanisterIdArgs, CanisterMetricsResult, CanisterStatusResult, CyclesConsumed, DefiniteSettings,
    DefiniteSettingsMay2026, EnvironmentVariable, MemoryMetrics, QueryStats, StatusKind,
    Visibility as VisibilityResult,
};
use super::work::Work;
use crate::state::{CanisterSettings, CanisterState, CanisterStatus, CyclesUseCase, SystemState, Visibility};
use candid::Nat;
use replicore_types::limits::LOG_BYTES_DEFAULT;
use replicore_types::{CanisterId, InterfaceVersion, PrincipalId, SubnetConfig, UserError};
use serde_bytes::ByteBuf;

/// `canister_status` in replicated execution.
pub(crate) fn canister_status<E>(work: &Work<'_, E>, args: &CanisterIdArgs) -> Result<Vec<u8>, UserError> {
    let id = CanisterId(args.canister_id);
    let canister = match work.canister(id)? {
        canister if may_view_status(&canister.system, &work.caller.principal) => canister,
        _ => work.check_controller_or_self(id)?,
    };
    status_reply(canister, &work.subnet())
}

/// `canister_metrics` in replicated execution.
pub(crate) fn canister_metrics<E>(work: &Work<'_, E>, args: &CanisterIdArgs) -> Result<Vec<u8>, UserError> {
    let canister = work.check_controller_or_self(CanisterId(args.canister_id))?;
    types::encode(metrics_of(canister))
}

/// True for controllers and for whom `visibility` lets in.
pub(crate) fn may_view(system: &SystemState, visibility: &Visibility, who: &PrincipalId) -> bool {
    let viewer = match visibility {
        Visibility::Controllers => false,
        Visibility::Public => true,
        Visibility::AllowedViewers(viewers) => viewers.contains(who),
    };
    viewer || system.is_controller(who)
}

/// True for controllers and for whom the canister lets see its status. That it may see its own is the caller's matter:
/// only calls that it made itself are known to be its own.
pub(crate) fn may_view_status(system: &SystemState, who: &PrincipalId) -> bool {
    may_view(system, &system.settings.status_visibility, who)
}

/// The encoded status of a canister, in the version of the interface that is in force.
///
/// # Errors
/// As [`types::encode`].
pub(crate) fn status_reply(canister: &CanisterState, subnet: &SubnetConfig) -> Result<Vec<u8>, UserError> {
    let settings = definite_settings(&canister.system.settings);
    match subnet.interface {
        InterfaceVersion::May2026 => {
            types::encode(status_of(canister, subnet, DefiniteSettingsMay2026::from(settings)))
        }
        InterfaceVersion::August2026 => types::encode(status_of(canister, subnet, settings)),
    }
}

fn status_of<S>(canister: &CanisterState, subnet: &SubnetConfig, settings: S) -> CanisterStatusResult<S> {
    let system = &canister.system;
    let memory = Footprint::of(canister);
    CanisterStatusResult {
        status: match system.status {
            CanisterStatus::Running => StatusKind::Running,
            CanisterStatus::Stopping(_) => StatusKind::Stopping,
            CanisterStatus::Stopped => StatusKind::Stopped,
        },
        ready_for_migration: system.status == CanisterStatus::Stopped && system.queues.message_bytes() == 0,
        version: system.version,
        module_hash: canister
            .execution
            .as_ref()
            .map(|execution| ByteBuf::from(execution.module.hash)),
        controller: first_controller(&system.settings),
        memory_size: memory.total().0.into(),
        memory_metrics: memory_metrics(&memory),
        cycles: system.balance.0.into(),
        balance: vec![(ByteBuf::from([0]), system.balance.0.into())],
        freezing_threshold: system.settings.freezing_threshold_seconds.into(),
        idle_cycles_burned_per_day: footprint::idle_cycles_per_day(system, memory.total(), subnet).0.into(),
        reserved_cycles: system.reserved_balance.0.into(),
        query_stats: QueryStats::default(),
        settings,
    }
}

fn memory_metrics(memory: &Footprint) -> MemoryMetrics {
    MemoryMetrics {
        wasm_memory_size: memory.heap.into(),
        stable_memory_size: memory.stable.into(),
        global_memory_size: memory.globals.into(),
        wasm_binary_size: memory.module.into(),
        custom_sections_size: memory.custom_sections.into(),
        canister_history_size: memory.history.into(),
        wasm_chunk_store_size: memory.chunk_store.into(),
        snapshots_size: memory.snapshots.into(),
        // The log is not part of what storage is charged for.
        log_memory_store_size: Nat::from(0u64),
    }
}

/// The one controller that clients from before there could be several read.
fn first_controller(settings: &CanisterSettings) -> PrincipalId {
    settings
        .controllers
        .first()
        .copied()
        .unwrap_or(PrincipalId::anonymous())
}

fn definite_settings(settings: &CanisterSettings) -> DefiniteSettings {
    DefiniteSettings {
        controller: first_controller(settings),
        controllers: settings.controllers.iter().copied().collect(),
        compute_allocation: settings.compute_allocation.into(),
        memory_allocation: settings.memory_allocation.0.into(),
        freezing_threshold: settings.freezing_threshold_seconds.into(),
        reserved_cycles_limit: settings.reserved_cycles_limit.0.into(),
        log_visibility: visibility(&settings.log_visibility),
        snapshot_visibility: visibility(&settings.snapshot_visibility),
        status_visibility: visibility(&settings.status_visibility),
        minimum_incoming_canister_call_cycles: settings.minimum_incoming_call_cycles.0.into(),
        log_memory_limit: shown_log_limit(settings).into(),
        wasm_memory_limit: settings.wasm_memory_limit_in_force().0.into(),
        wasm_memory_threshold: settings.wasm_memory_threshold.0.into(),
        environment_variables: settings
            .environment_variables
            .iter()
            .map(|(name, value)| EnvironmentVariable {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
    }
}

/// The limit of the log as clients see it: zero stands for the default.
fn shown_log_limit(settings: &CanisterSettings) -> u64 {
    match settings.log_memory_limit.0 {
        limit if limit == LOG_BYTES_DEFAULT as u64 => 0,
        limit => limit,
    }
}

fn visibility(visibility: &Visibility) -> VisibilityResult {
    match visibility {
        Visibility::Controllers => VisibilityResult::Controllers,
        Visibility::Public => VisibilityResult::Public,
        Visibility::AllowedViewers(viewers) => VisibilityResult::AllowedViewers(viewers.iter().copied().collect()),
    }
}

/// What a canister consumed so far.
pub(crate) fn metrics_of(canister: &CanisterState) -> CanisterMetricsResult {
    let consumed = |use_case| Nat::from(canister.system.consumed.get(use_case).0);
    CanisterMetricsResult {
        cycles_consumed: CyclesConsumed {
            memory: consumed(CyclesUseCase::Memory),
            compute_allocation: consumed(CyclesUseCase::ComputeAllocation),
            ingress_induction: consumed(CyclesUseCase::IngressInduction),
            instructions: consumed(CyclesUseCase::Instructions),
            request_and_response_transmission: consumed(CyclesUseCase::RequestAndResponseTransmission),
            uninstall: consumed(CyclesUseCase::Uninstall),
            canister_creation: consumed(CyclesUseCase::CanisterCreation),
            http_outcalls: consumed(CyclesUseCase::HttpOutcalls),
            burned_cycles: consumed(CyclesUseCase::BurnedCycles),
        },
    }
}
