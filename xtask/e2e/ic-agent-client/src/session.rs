//! The connection to the replica: agents for several identities, restarts on request, and the count of failures.

use anyhow::{Context, Result, bail, ensure};
use candid::utils::{ArgumentDecoder, ArgumentEncoder};
use candid::{Decode, Encode, Principal, decode_args, encode_args};
use ic_agent::agent::RejectResponse;
use ic_agent::identity::{BasicIdentity, Secp256k1Identity};
use ic_agent::{Agent, AgentError, Identity};
use ic_utils::interfaces::ManagementCanister;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, BufReader, Stdin};

/// What the steps share.
pub struct Session {
    /// Speaks for the identity that controls the canisters.
    pub agent: Agent,
    /// Steps that failed so far.
    pub failures: usize,
    /// The replica's address; changes with a restart.
    pub url: String,
    identity: Arc<dyn Identity>,
    root_key: Vec<u8>,
    input: tokio::io::Lines<BufReader<Stdin>>,
}

impl Session {
    /// Fetches the root key, once: a restart must not change it.
    pub async fn connect(url: String) -> Result<Self> {
        let identity: Arc<dyn Identity> = Arc::new(Secp256k1Identity::from_private_key(k256::SecretKey::random(
            &mut rand::rngs::OsRng,
        )));
        let agent = Agent::builder()
            .with_url(&url)
            .with_arc_identity(identity.clone())
            .build()?;
        agent.fetch_root_key().await.context("no root key")?;
        let root_key = agent.read_root_key();
        let input = BufReader::new(tokio::io::stdin()).lines();
        Ok(Self {
            agent,
            failures: 0,
            url,
            identity,
            root_key,
            input,
        })
    }

    /// An agent for another identity, with the root key of the first contact.
    pub fn agent_for(&self, identity: Arc<dyn Identity>) -> Result<Agent> {
        let agent = Agent::builder()
            .with_url(&self.url)
            .with_arc_identity(identity)
            .build()?;
        agent.set_root_key(self.root_key.clone());
        Ok(agent)
    }

    /// Has the replica stopped (`@restart`) or killed (`@kill MILLISECONDS`) and connects to the new one.
    pub async fn ask(&mut self, request: &str) -> Result<()> {
        println!("{request}");
        self.url = self
            .input
            .next_line()
            .await?
            .context("nobody answered the request for a restart")?;
        self.agent = self.agent_for(self.identity.clone())?;
        Ok(())
    }

    /// Reports one step. A failed one is counted and gives `None`.
    pub fn report<T>(&mut self, name: &str, started: Instant, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                println!("ok {name} ({} ms)", started.elapsed().as_millis());
                Some(value)
            }
            Err(error) => {
                println!("FAIL {name}: {error:#}");
                self.failures += 1;
                None
            }
        }
    }

    /// The principal of the identity that controls the canisters.
    pub fn principal(&self) -> Principal {
        self.identity.sender().expect("the identity has a principal")
    }
}

/// A fresh Ed25519 identity.
pub fn ed25519() -> BasicIdentity {
    BasicIdentity::from_raw_key(&rand::random())
}

/// Creates a canister and installs a module, in chunks when it is large.
pub async fn deploy(agent: &Agent, module: &[u8]) -> Result<Principal> {
    let management = ManagementCanister::create(agent);
    let (id,) = management
        .create_canister()
        .as_provisional_create_with_amount(None)
        .with_effective_canister_id(default_effective_id())
        .call_and_wait()
        .await
        .context("create")?;
    management.install(&id, module).await.context("install")?;
    Ok(id)
}

/// Where creation is sent before there is a canister: the management canister's own id.
pub fn default_effective_id() -> Principal {
    Principal::management_canister()
}

/// An update call with Candid arguments; waits for the certified answer.
pub async fn update<A: ArgumentEncoder, R: for<'de> ArgumentDecoder<'de>>(
    agent: &Agent,
    id: Principal,
    method: &str,
    arguments: A,
) -> Result<R> {
    let reply = agent
        .update(&id, method)
        .with_arg(encode_args(arguments)?)
        .call_and_wait()
        .await?;
    decode_args(&reply).with_context(|| format!("reply of {method}"))
}

/// A query call with Candid arguments; the agent checks the node's signature.
pub async fn query<A: ArgumentEncoder, R: for<'de> ArgumentDecoder<'de>>(
    agent: &Agent,
    id: Principal,
    method: &str,
    arguments: A,
) -> Result<R> {
    let reply = agent
        .query(&id, method)
        .with_arg(encode_args(arguments)?)
        .call()
        .await?;
    decode_args(&reply).with_context(|| format!("reply of {method}"))
}

/// The counter of an application canister.
pub async fn counter(agent: &Agent, id: Principal) -> Result<candid::Nat> {
    let reply = agent.query(&id, "get").with_arg(Encode!()?).call().await?;
    Ok(Decode!(&reply, candid::Nat)?)
}

/// The reject of a call that must fail, certified or not.
pub fn rejected<T>(result: Result<T>) -> Result<RejectResponse> {
    let error = match result {
        Ok(_) => bail!("the call went through"),
        Err(error) => error,
    };
    match error.downcast::<AgentError>()? {
        AgentError::CertifiedReject { reject, .. } | AgentError::UncertifiedReject { reject, .. } => Ok(reject),
        other => Err(other.into()),
    }
}

/// Checks code and text of a reject.
pub fn expect_reject<T>(result: Result<T>, code: u8, text: &str) -> Result<()> {
    let reject = rejected(result)?;
    ensure!(
        reject.reject_code as u8 == code,
        "reject code {:?}: {}",
        reject.reject_code,
        reject.reject_message
    );
    ensure!(
        reject.reject_message.contains(text),
        "reject message: {}",
        reject.reject_message
    );
    Ok(())
}
