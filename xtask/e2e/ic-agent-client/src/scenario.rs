//! The scenario that every client goes through: the same calls on the application of each toolchain.

use crate::session::{Session, counter, default_effective_id, deploy, ed25519, expect_reject, query, update};
use anyhow::{Context, Result, ensure};
use candid::{Nat, Principal};
use ic_agent::identity::{AnonymousIdentity, DelegatedIdentity, Delegation, Prime256v1Identity, SignedDelegation};
use ic_agent::{Agent, Certificate, Identity, hash_tree::LookupResult};
use ic_management_canister_types::{
    CanisterInstallMode, CanisterStatusType, FetchCanisterLogsArgs, UpgradeFlags, WasmMemoryPersistence,
};
use ic_utils::interfaces::ManagementCanister;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Modules = [(String, Vec<u8>)];

fn module<'a>(modules: &'a Modules, name: &str) -> Result<&'a [u8]> {
    let found = modules.iter().find(|(have, _)| have == name);
    found
        .map(|(_, bytes)| bytes.as_slice())
        .with_context(|| format!("no module {name}"))
}

/// Each kind of key, and delegation chains with and without targets.
pub async fn identities(session: &mut Session, modules: &Modules) {
    let started = Instant::now();
    let deployed = async { deploy(&session.agent, module(modules, "c")?).await }.await;
    let Some(id) = session.report("deploy the C application", started, deployed) else {
        return;
    };
    let p256 = || Prime256v1Identity::from_private_key(p256::SecretKey::random(&mut rand::rngs::OsRng));
    let plain: [(&str, Arc<dyn Identity>); 3] = [
        ("anonymous", Arc::new(AnonymousIdentity)),
        ("Ed25519", Arc::new(ed25519())),
        ("P-256", Arc::new(p256())),
    ];
    for (name, identity) in plain {
        let started = Instant::now();
        let result = known_as_itself(session, id, identity).await;
        session.report(&format!("identity: {name}"), started, result);
    }
    let started = Instant::now();
    let result = known_as_itself(session, id, Arc::new(delegated(vec![None]))).await;
    session.report("identity: delegation", started, result);
    let started = Instant::now();
    let result = known_as_itself(
        session,
        id,
        Arc::new(delegated(vec![Some(vec![id]), None, Some(vec![id])])),
    )
    .await;
    session.report("identity: chain of three delegations with targets", started, result);
    let started = Instant::now();
    let elsewhere = Principal::management_canister();
    let result = match known_as_itself(session, id, Arc::new(delegated(vec![Some(vec![elsewhere])]))).await {
        Ok(()) => Err(anyhow::anyhow!("a delegation for another canister was accepted")),
        Err(_) => Ok(()),
    };
    session.report("identity: delegation for another canister is refused", started, result);
}

async fn known_as_itself(session: &Session, id: Principal, identity: Arc<dyn Identity>) -> Result<()> {
    let principal = identity.sender().map_err(anyhow::Error::msg)?;
    let agent = session.agent_for(identity)?;
    let (by_update,): (Principal,) = update(&agent, id, "who", ()).await?;
    let (by_query,): (Principal,) = query(&agent, id, "who_query", ()).await?;
    ensure!(
        by_update == principal && by_query == principal,
        "known as {by_update} and {by_query}, not {principal}"
    );
    Ok(())
}

/// An identity behind a chain of delegations, one per element, each with those targets.
fn delegated(targets: Vec<Option<Vec<Principal>>>) -> DelegatedIdentity {
    let first = ed25519();
    let from_key = first.public_key().expect("a key pair has a public key");
    let year = Duration::from_secs(365 * 24 * 3600);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("the clock is past 1970");
    let expiration = u64::try_from((now + year).as_nanos()).expect("the year is below 2554");
    let mut signer = first;
    let mut chain = Vec::new();
    for targets in targets {
        let next = ed25519();
        let pubkey = next.public_key().expect("a key pair has a public key");
        let delegation = Delegation {
            pubkey,
            expiration,
            targets,
            permissions: None,
        };
        let signature = signer.sign_delegation(&delegation).expect("the key signs");
        chain.push(SignedDelegation {
            delegation,
            signature: signature.signature.expect("the key signs"),
        });
        signer = next;
    }
    DelegatedIdentity::new(from_key, Box::new(signer), chain).expect("the chain is whole")
}

/// Deploys each module and goes through everything the application does.
pub async fn every_toolchain(session: &mut Session, modules: &Modules) {
    let mut other = None;
    for (name, module) in modules {
        let started = Instant::now();
        let deployed = deploy(&session.agent, module).await;
        let Some(id) = session.report(&format!("{name}: create and install"), started, deployed) else {
            continue;
        };
        let agent = session.agent.clone();
        let me = session.principal();
        macro_rules! step {
            ($what:literal, $future:expr) => {{
                let started = Instant::now();
                let result = $future.await;
                session.report(&format!("{name}: {}", $what), started, result)
            }};
        }
        step!("read_state", read_state(&agent, id, module, me));
        step!("updates and queries", updates_and_queries(&agent, id));
        step!("trap and reject", failures(&agent, id));
        step!("random bytes", random(&agent, id));
        step!("global timer", timer(&agent, id));
        step!("certified data", certified_data(&agent, id));
        step!("upgrade keeps the state", upgrade(&agent, id, name, module));
        step!("calls to another canister", calls(&agent, id, *other.get_or_insert(id)));
    }
}

async fn read_state(agent: &Agent, id: Principal, module: &[u8], me: Principal) -> Result<()> {
    let hash = agent.read_state_canister_module_hash(id).await.context("module_hash")?;
    ensure!(hash == Sha256::digest(module).to_vec(), "module_hash is another one");
    let controllers = agent.read_state_canister_controllers(id).await.context("controllers")?;
    ensure!(controllers == [me], "controllers are {controllers:?}");
    let interface = agent
        .read_state_canister_metadata(id, "candid:service")
        .await
        .context("metadata")?;
    ensure!(
        String::from_utf8_lossy(&interface).contains("call_failing"),
        "metadata is not the interface"
    );
    Ok(())
}

async fn updates_and_queries(agent: &Agent, id: Principal) -> Result<()> {
    for expected in 1u8..=3 {
        let (count,): (Nat,) = update(agent, id, "inc", ()).await?;
        ensure!(count == expected, "inc answered {count}");
        let count = counter(agent, id).await?;
        ensure!(count == expected, "get answered {count} after {expected}");
    }
    let (): () = update(agent, id, "put", ("key", "välue")).await?;
    let (found,): (Option<String>,) = query(agent, id, "lookup", ("key",)).await?;
    ensure!(found.as_deref() == Some("välue"), "lookup found {found:?}");
    let (found,): (Option<String>,) = query(agent, id, "lookup", ("no such key",)).await?;
    ensure!(found.is_none(), "lookup found {found:?}");
    let (position,): (Nat,) = update(agent, id, "note", ("first",)).await?;
    ensure!(position == 0u8, "note answered {position}");
    // A query method is an update method too, then with a certificate.
    let (count,): (Nat,) = update(agent, id, "get", ()).await?;
    ensure!(count == 3u8, "get as an update answered {count}");
    Ok(())
}

async fn failures(agent: &Agent, id: Principal) -> Result<()> {
    expect_reject(
        update::<_, ()>(agent, id, "fail_trap", ()).await,
        5,
        "trapped on request",
    )
    .context("trap")?;
    ensure!(counter(agent, id).await? == 3u8, "a trap was not undone");
    expect_reject(
        update::<_, ()>(agent, id, "fail_reject", ()).await,
        4,
        "rejected on request",
    )
    .context("reject")?;
    ensure!(counter(agent, id).await? == 4u8, "a reject was undone");
    expect_reject(
        query::<_, ()>(agent, id, "no_such_method", ()).await,
        5,
        "no_such_method",
    )
    .context("no query")?;
    ensure!(
        update::<_, ()>(agent, id, "forbidden", ()).await.is_err(),
        "inspect_message let a message pass"
    );
    Ok(())
}

async fn random(agent: &Agent, id: Principal) -> Result<()> {
    let (first,): (Vec<u8>,) = update(agent, id, "random", ()).await?;
    let (second,): (Vec<u8>,) = update(agent, id, "random", ()).await?;
    ensure!(
        first.len() == 32 && second.len() == 32 && first != second,
        "{first:?} and {second:?}"
    );
    Ok(())
}

async fn timer(agent: &Agent, id: Principal) -> Result<()> {
    let (): () = update(agent, id, "arm_timer", ()).await?;
    for _ in 0..100 {
        let (runs,): (Nat,) = query(agent, id, "timer_count", ()).await?;
        if runs == 1u8 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the timer did not run within five seconds")
}

async fn certified_data(agent: &Agent, id: Principal) -> Result<()> {
    let data = Sha256::digest(id.as_slice()).to_vec();
    let (): () = update(agent, id, "certify", (data.clone(),)).await?;
    let (certificate,): (Option<Vec<u8>>,) = query(agent, id, "certified", ()).await?;
    let certificate: Certificate = serde_cbor::from_slice(&certificate.context("no certificate in a query")?)?;
    agent.verify(&certificate, id)?;
    match certificate
        .tree
        .lookup_path([&b"canister"[..], id.as_slice(), b"certified_data"])
    {
        LookupResult::Found(found) => ensure!(found == data, "other data was certified"),
        other => anyhow::bail!("certified_data: {other:?}"),
    }
    Ok(())
}

async fn upgrade(agent: &Agent, id: Principal, name: &str, module: &[u8]) -> Result<()> {
    // Enhanced orthogonal persistence is kept on request only: the default would drop the heap.
    let persistence = (name == "motoko64").then_some(WasmMemoryPersistence::Keep);
    let flags = UpgradeFlags {
        skip_pre_upgrade: None,
        wasm_memory_persistence: persistence,
    };
    let mode = CanisterInstallMode::Upgrade(Some(flags));
    ManagementCanister::create(agent)
        .install(&id, module)
        .with_mode(mode)
        .await?;
    let count = counter(agent, id).await?;
    ensure!(count == 4u8, "the counter is {count}");
    let (found,): (Option<String>,) = query(agent, id, "lookup", ("key",)).await?;
    ensure!(found.as_deref() == Some("välue"), "lookup found {found:?}");
    let (position,): (Nat,) = update(agent, id, "note", ("second",)).await?;
    ensure!(position == 1u8, "note answered {position}");
    let (notes,): (Vec<String>,) = query(agent, id, "notes", ()).await?;
    ensure!(notes == ["first", "second"], "notes are {notes:?}");
    Ok(())
}

async fn calls(agent: &Agent, id: Principal, other: Principal) -> Result<()> {
    let before = counter(agent, other).await?;
    let (answer,): (Nat,) = update(agent, id, "call_other", (other,)).await?;
    ensure!(
        answer == before.clone() + 1u8,
        "call_other answered {answer} after {before}"
    );
    let (message,): (String,) = update(agent, id, "call_failing", (other,)).await?;
    ensure!(
        message.contains("trapped on request"),
        "call_failing answered {message}"
    );
    let count = counter(agent, other).await?;
    ensure!(count == answer, "the callee's trap was not undone: {count}");
    Ok(())
}

/// Settings, status, logs, stop, start, uninstall, delete; and creation through the subnet endpoint.
pub async fn lifecycle(session: &mut Session, modules: &Modules) {
    let agent = session.agent.clone();
    macro_rules! step {
        ($what:literal, $future:expr) => {{
            let started = Instant::now();
            let result = $future.await;
            session.report($what, started, result)
        }};
    }
    let deployed = step!("lifecycle: deploy", async {
        deploy(&agent, module(modules, "c")?).await
    });
    let Some(id) = deployed else { return };
    step!("lifecycle: settings and status", settings(&agent, id));
    step!(
        "lifecycle: only controllers manage",
        strangers(&agent, session.agent_for(Arc::new(ed25519())), id)
    );
    step!("lifecycle: logs", logs(&agent, id));
    step!("lifecycle: stop and start", stop_and_start(&agent, id));
    step!("lifecycle: uninstall and delete", delete(&agent, id));
    step!(
        "lifecycle: create through the subnet endpoint",
        create_on_subnet(&agent)
    );
    step!("lifecycle: subnet keys and metrics", subnet(&agent, id));
}

async fn settings(agent: &Agent, id: Principal) -> Result<()> {
    let management = ManagementCanister::create(agent);
    management
        .update_settings(&id)
        .with_freezing_threshold(12_345u64)
        .call_and_wait()
        .await
        .context("update")?;
    for as_update in [false, true] {
        let call = management.canister_status(&id);
        let call = if as_update { call.as_update() } else { call };
        let (status,) = call
            .call()
            .await
            .with_context(|| format!("canister_status, as update: {as_update}"))?;
        ensure!(
            status.settings.freezing_threshold == 12_345u64,
            "threshold {}",
            status.settings.freezing_threshold
        );
        ensure!(
            status.status == CanisterStatusType::Running,
            "status {:?}",
            status.status
        );
        ensure!(status.cycles > 0u8, "no cycles");
    }
    Ok(())
}

async fn strangers(agent: &Agent, stranger: Result<Agent>, id: Principal) -> Result<()> {
    let stranger = stranger?;
    let management = ManagementCanister::create(&stranger);
    let refused = management.stop_canister(&id).await.map_err(anyhow::Error::from);
    expect_reject(refused, 5, "controller").context("stop by a stranger")?;
    ensure!(counter(agent, id).await? == 0u8, "the canister is not running");
    Ok(())
}

async fn logs(agent: &Agent, id: Principal) -> Result<()> {
    let _refused = update::<_, ()>(agent, id, "fail_trap", ()).await;
    let arguments = FetchCanisterLogsArgs {
        canister_id: id,
        filter: None,
    };
    let (logs,) = ManagementCanister::create(agent)
        .fetch_canister_logs(&arguments)
        .await?;
    let last = logs.canister_log_records.last().context("no log records")?;
    let text = String::from_utf8_lossy(&last.content);
    ensure!(text.contains("trapped on request"), "the last record is {text}");
    Ok(())
}

async fn stop_and_start(agent: &Agent, id: Principal) -> Result<()> {
    let management = ManagementCanister::create(agent);
    management.stop_canister(&id).await.context("stop")?;
    expect_reject(update::<_, (Nat,)>(agent, id, "inc", ()).await, 5, "stopped").context("update")?;
    expect_reject(query::<_, (Nat,)>(agent, id, "get", ()).await, 5, "stopped").context("query")?;
    management.start_canister(&id).await.context("start")?;
    let (count,): (Nat,) = update(agent, id, "inc", ()).await?;
    ensure!(count == 1u8, "inc answered {count}");
    Ok(())
}

async fn delete(agent: &Agent, id: Principal) -> Result<()> {
    let management = ManagementCanister::create(agent);
    management.uninstall_code(&id).await.context("uninstall")?;
    ensure!(
        agent.read_state_canister_module_hash(id).await.is_err(),
        "there is a module hash without a module"
    );
    expect_reject(query::<_, (Nat,)>(agent, id, "get", ()).await, 5, "no Wasm module").context("query")?;
    management.stop_canister(&id).await.context("stop")?;
    management.delete_canister(&id).await.context("delete")?;
    expect_reject(query::<_, (Nat,)>(agent, id, "get", ()).await, 3, "not found").context("query after delete")?;
    Ok(())
}

async fn create_on_subnet(agent: &Agent) -> Result<()> {
    let subnet = Principal::self_authenticating(agent.read_root_key());
    let management = ManagementCanister::create(agent);
    let (id,) = management
        .create_canister()
        .with_effective_subnet_id(subnet)
        .call_and_wait()
        .await?;
    let (status,) = management.canister_status(&id).call().await.context("status")?;
    ensure!(status.module_hash.is_none(), "a new canister has a module");
    Ok(())
}

async fn subnet(agent: &Agent, id: Principal) -> Result<()> {
    let root_key = agent.read_root_key();
    let found = agent.fetch_subnet_by_canister(&default_effective_id()).await;
    let found = match found {
        Ok(subnet) => subnet,
        Err(_) => agent.fetch_subnet_by_canister(&id).await?,
    };
    ensure!(
        found.id() == Principal::self_authenticating(root_key),
        "the subnet is {}",
        found.id()
    );
    ensure!(found.iter_nodes().count() == 1, "{} nodes", found.iter_nodes().count());
    Ok(())
}

/// A clean stop and start: modules, memories and certified data are there, the root key is the same.
pub async fn restart(session: &mut Session, modules: &Modules) {
    let started = Instant::now();
    let mut canisters = Vec::new();
    for (name, module) in modules {
        match deploy(&session.agent, module).await {
            Ok(id) => canisters.push((name, id)),
            Err(error) => {
                session.report::<()>(&format!("restart: deploy {name}"), started, Err(error));
            }
        }
    }
    let before = async {
        for (_, id) in &canisters {
            let (): () = update(&session.agent, *id, "put", ("before", "restart")).await?;
            let (_,): (Nat,) = update(&session.agent, *id, "inc", ()).await?;
        }
        Ok(())
    };
    let prepared = before.await;
    session.report("restart: prepare", started, prepared);
    let asked = session.ask("@restart").await;
    if session
        .report("restart: clean stop and start", Instant::now(), asked)
        .is_none()
    {
        return;
    }
    for (name, id) in canisters {
        let started = Instant::now();
        let result = still_there(&session.agent, id).await;
        session.report(&format!("restart: {name} is as it was"), started, result);
    }
}

async fn still_there(agent: &Agent, id: Principal) -> Result<()> {
    let (found,): (Option<String>,) = query(agent, id, "lookup", ("before",)).await?;
    ensure!(found.as_deref() == Some("restart"), "lookup found {found:?}");
    let (count,): (Nat,) = update(agent, id, "inc", ()).await?;
    ensure!(count == 2u8, "inc answered {count}");
    Ok(())
}
