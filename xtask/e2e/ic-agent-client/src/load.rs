//! `kill -9` in the middle of a signed load. Every acknowledged update must be there afterwards, at the place that its reply
//! named; nothing may be there twice, although every request is sent again, acknowledged or not.

use crate::session::{Session, deploy, ed25519, query};
use anyhow::{Context, Result, bail, ensure};
use candid::{Decode, Encode, Nat, Principal};
use ic_agent::agent::CallResponse;
use ic_agent::{Agent, Identity};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

const CLIENTS: usize = 8;
/// An upper bound that a client does not reach before the kill.
const UPDATES_PER_CLIENT: usize = 20_000;
const KILL_AFTER_MS: u32 = 1_500;

/// One request: what it noted, its signed bytes, and the position its certified reply named.
struct Sent {
    text: String,
    signed: Vec<u8>,
    position: Option<Nat>,
}

/// The whole experiment, as one step per claim.
pub async fn kill_under_load(session: &mut Session, modules: &[(String, Vec<u8>)]) {
    let started = Instant::now();
    let Some((_, module)) = modules.iter().find(|(name, _)| name == "c") else {
        return;
    };
    let deployed = deploy(&session.agent, module).await;
    let Some(id) = session.report("kill: deploy", started, deployed) else {
        return;
    };

    let started = Instant::now();
    let loaded = load_until_killed(session, id).await;
    let Some(sent) = session.report("kill: load, kill -9, recovery", started, loaded) else {
        return;
    };
    let acknowledged = sent.iter().filter(|request| request.position.is_some()).count();
    println!(
        "   {acknowledged} of {} updates were acknowledged before the kill",
        sent.len()
    );

    let started = Instant::now();
    let result = check(&session.agent, id, &sent).await;
    session.report("kill: every acknowledged update is there, none twice", started, result);
    let started = Instant::now();
    let result = send_again(session, id, &sent).await;
    session.report("kill: all requests sent again, none applied twice", started, result);
}

async fn load_until_killed(session: &mut Session, id: Principal) -> Result<Vec<Sent>> {
    let sent: Rc<RefCell<Vec<Sent>>> = Rc::default();
    let tasks = tokio::task::LocalSet::new();
    for client in 0..CLIENTS {
        let identity: Arc<dyn Identity> = Arc::new(ed25519());
        let agent = session.agent_for(identity)?;
        let sent = sent.clone();
        tasks.spawn_local(async move {
            for sequence in 0..UPDATES_PER_CLIENT {
                if !note(&agent, id, format!("{client}/{sequence}"), &sent).await {
                    return;
                }
            }
        });
    }
    tasks.run_until(session.ask(&format!("@kill {KILL_AFTER_MS}"))).await?;
    drop(tasks);
    let sent = sent.take();
    ensure!(
        sent.iter().any(|request| request.position.is_some()),
        "nothing was acknowledged before the kill"
    );
    Ok(sent)
}

/// Sends one update; whether it was acknowledged.
async fn note(agent: &Agent, id: Principal, text: String, sent: &RefCell<Vec<Sent>>) -> bool {
    let argument = Encode!(&text).expect("a text encodes");
    let Ok(signed) = agent.update(&id, "note").with_arg(argument).sign() else {
        return false;
    };
    let index = {
        let mut sent = sent.borrow_mut();
        sent.push(Sent {
            text,
            signed: signed.signed_update.clone(),
            position: None,
        });
        sent.len() - 1
    };
    let Ok(CallResponse::Response(reply)) = agent.update_signed(id, signed.signed_update).await else {
        return false;
    };
    let position = Decode!(&reply, Nat).ok();
    let acknowledged = position.is_some();
    sent.borrow_mut()[index].position = position;
    acknowledged
}

/// The notes in order, each text at most once.
async fn notes(agent: &Agent, id: Principal) -> Result<BTreeMap<String, usize>> {
    let (notes,): (Vec<String>,) = query(agent, id, "notes", ()).await?;
    let mut positions = BTreeMap::new();
    for (position, text) in notes.into_iter().enumerate() {
        if let Some(first) = positions.insert(text.clone(), position) {
            bail!("{text} was applied twice, at {first} and {position}");
        }
    }
    Ok(positions)
}

async fn check(agent: &Agent, id: Principal, sent: &[Sent]) -> Result<()> {
    let positions = notes(agent, id).await?;
    for request in sent {
        let Some(acknowledged) = &request.position else {
            continue;
        };
        let found = positions
            .get(&request.text)
            .with_context(|| format!("{} is missing", request.text))?;
        ensure!(
            *acknowledged == *found,
            "{} was acknowledged at {acknowledged}, is at {found}",
            request.text
        );
    }
    Ok(())
}

async fn send_again(session: &Session, id: Principal, sent: &[Sent]) -> Result<()> {
    for (number, request) in sent.iter().enumerate() {
        // Every unacknowledged one, and a sample of the others.
        if request.position.is_some() && number % 16 != 0 {
            continue;
        }
        match session.agent.update_signed(id, request.signed.clone()).await {
            Ok(CallResponse::Response(reply)) => {
                let position = Decode!(&reply, Nat)?;
                let moved = request
                    .position
                    .as_ref()
                    .is_some_and(|acknowledged| *acknowledged != position);
                ensure!(!moved, "{} is now acknowledged at {position}", request.text);
            }
            Ok(CallResponse::Poll(_)) => {}
            Err(error) => bail!("{}: {error}", request.text),
        }
    }
    check(&session.agent, id, sent).await?;
    let positions = notes(&session.agent, id).await?;
    let missing = sent
        .iter()
        .filter(|request| !positions.contains_key(&request.text))
        .count();
    ensure!(missing == 0, "{missing} requests are still missing");
    Ok(())
}
