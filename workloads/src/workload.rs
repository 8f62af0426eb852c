//! What a modelled application is: canisters, the operations its users do on them, and how to tell that all went right.

use crate::agent::Agent;
use crate::error::WorkloadError;
use crate::request::Kind;
use candid::Principal;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// How large an application is made.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Who uses it, by user number.
    pub users: Arc<[Principal]>,
    /// Canisters, where the model has a number of them.
    pub canisters: u64,
    /// Items in each: accounts, records, blocks.
    pub items: u64,
}

/// One thing a user does.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Update or query.
    pub kind: Kind,
    /// To which canister.
    pub canister: Principal,
    /// Which method.
    pub method: &'static str,
    /// Candid.
    pub argument: Vec<u8>,
    /// What [`Deployed::completed`] needs to judge the reply; its meaning is the model's own.
    pub expected: u64,
}

/// A modelled application, not yet deployed.
pub trait Workload: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What real traffic it stands for, in a line.
    fn about(&self) -> &'static str;

    /// Creates its canisters and fills them.
    ///
    /// # Errors
    /// The endpoint refuses.
    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError>;
}

/// A deployed application. Many clients drive it at once.
pub trait Deployed: Send + Sync {
    /// A canister of it, through which the endpoint's state can be read.
    fn canister(&self) -> Principal;

    /// What user number `user` does next; the skew over users and canisters is in `choices` of the caller and the model.
    ///
    /// # Errors
    /// An argument has no Candid form.
    fn next(&self, user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError>;

    /// Judges a reply and remembers what follows from it.
    ///
    /// # Errors
    /// The reply is not what the application must answer.
    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError>;

    /// Checks the whole at the end. `is_exact` says that every operation was answered: then nothing may have happened beyond
    /// what was acknowledged; otherwise nothing acknowledged may be missing.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError>;
}

/// Compares a count that canisters hold with what was acknowledged.
///
/// # Errors
/// They do not agree.
pub fn check_count(what: &str, held: u64, acknowledged: u64, is_exact: bool) -> Result<(), WorkloadError> {
    if held == acknowledged || held > acknowledged && !is_exact {
        return Ok(());
    }
    Err(WorkloadError::Unexpected(format!(
        "{what}: the canisters count {held}, {acknowledged} were acknowledged"
    )))
}
