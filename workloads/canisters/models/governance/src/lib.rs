//! A nervous system: proposals, a ballot per voter, votes that followers take over, deadlines kept by timers. Interface:
//! `governance.did`.

use candid::{CandidType, Principal};
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

const LIST_MAX: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq, CandidType, Deserialize)]
enum Choice {
    Yes,
    No,
}

/// A vote as it was cast: by whom, how, and whether by the voter or by those that it follows.
#[derive(Clone, CandidType)]
struct Cast {
    voter: u32,
    choice: Choice,
    is_direct: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, CandidType)]
enum Status {
    Open,
    Adopted,
    Rejected,
}

struct Proposal {
    title: String,
    deadline: u64,
    status: Status,
    /// By voter, from the beginning: who joins later has none.
    ballots: Vec<Option<Choice>>,
    /// In the order of their casting.
    casts: Vec<Cast>,
    yes: u64,
    no: u64,
}

#[derive(CandidType)]
struct Summary {
    id: u64,
    title: String,
    deadline: u64,
    status: Status,
    yes: u64,
    no: u64,
    cast: u32,
}

#[derive(CandidType)]
enum VoteError {
    NoVoter,
    NoProposal,
    AlreadyVoted,
    Closed,
}

#[derive(Default)]
struct Governance {
    period: Duration,
    voters: BTreeMap<Principal, u32>,
    powers: Vec<u64>,
    followees: Vec<Vec<u32>>,
    /// Who follows whom, the other way round.
    followers: Vec<Vec<u32>>,
    proposals: Vec<Proposal>,
}

thread_local! {
    static GOVERNANCE: RefCell<Governance> = RefCell::default();
}

/// How long proposals are open, in milliseconds.
#[ic_cdk::init]
fn init(period_ms: u64) {
    GOVERNANCE.with_borrow_mut(|governance| governance.period = Duration::from_millis(period_ms));
}

/// Registers voters with their voting powers and whom each follows, by number.
#[ic_cdk::update]
fn register(voters: Vec<(Principal, u64, Vec<u32>)>) -> u32 {
    GOVERNANCE.with_borrow_mut(|governance| {
        for (principal, power, followees) in voters {
            let number = governance.powers.len() as u32;
            governance.voters.insert(principal, number);
            governance.powers.push(power);
            governance.followers.resize(governance.followers.len().max(number as usize + 1), Vec::new());
            for followee in &followees {
                let needed = governance.followers.len().max(*followee as usize + 1);
                governance.followers.resize(needed, Vec::new());
                governance.followers[*followee as usize].push(number);
            }
            governance.followees.push(followees);
        }
        governance.powers.len() as u32
    })
}

/// Opens a proposal: everybody who is registered gets a ballot, and a timer closes it.
#[ic_cdk::update]
fn propose(title: String) -> u64 {
    GOVERNANCE.with_borrow_mut(|governance| {
        let id = governance.proposals.len() as u64;
        governance.proposals.push(Proposal {
            title,
            deadline: ic_cdk::api::time() + governance.period.as_nanos() as u64,
            status: Status::Open,
            ballots: vec![None; governance.powers.len()],
            casts: Vec::new(),
            yes: 0,
            no: 0,
        });
        ic_cdk_timers::set_timer(governance.period, async move { close(id) });
        id
    })
}

fn close(id: u64) {
    GOVERNANCE.with_borrow_mut(|governance| {
        let proposal = &mut governance.proposals[id as usize];
        proposal.status = if proposal.yes > proposal.no { Status::Adopted } else { Status::Rejected };
    });
}

/// Casts the caller's ballot and those that follow from it; answers how many.
#[ic_cdk::update]
fn vote(id: u64, choice: Choice) -> Result<u32, VoteError> {
    let caller = ic_cdk::api::msg_caller();
    GOVERNANCE.with_borrow_mut(|governance| governance.vote(caller, id, choice))
}

impl Governance {
    fn vote(&mut self, caller: Principal, id: u64, choice: Choice) -> Result<u32, VoteError> {
        let voter = *self.voters.get(&caller).ok_or(VoteError::NoVoter)?;
        let proposal = self.proposals.get_mut(id as usize).ok_or(VoteError::NoProposal)?;
        if proposal.status != Status::Open {
            return Err(VoteError::Closed);
        }
        match proposal.ballots.get(voter as usize) {
            Some(None) => {}
            Some(Some(_)) => return Err(VoteError::AlreadyVoted),
            None => return Err(VoteError::NoVoter),
        }
        let before = proposal.casts.len();
        proposal.cast(&self.powers, Cast { voter, choice, is_direct: true });
        let mut next = before;
        while let Some(cast) = proposal.casts.get(next) {
            next += 1;
            for follower in &self.followers[cast.voter as usize] {
                let Some(None) = proposal.ballots.get(*follower as usize) else { continue };
                if let Some(choice) = proposal.followed(&self.followees[*follower as usize]) {
                    proposal.cast(&self.powers, Cast { voter: *follower, choice, is_direct: false });
                }
            }
        }
        Ok((proposal.casts.len() - before) as u32)
    }
}

impl Proposal {
    fn cast(&mut self, powers: &[u64], cast: Cast) {
        self.ballots[cast.voter as usize] = Some(cast.choice);
        match cast.choice {
            Choice::Yes => self.yes += powers[cast.voter as usize],
            Choice::No => self.no += powers[cast.voter as usize],
        }
        self.casts.push(cast);
    }

    /// Yes if more than half of the followees say so, no if half of them say that.
    fn followed(&self, followees: &[u32]) -> Option<Choice> {
        let count = |choice| followees.iter().filter(|followee| self.ballots.get(**followee as usize) == Some(&Some(choice))).count();
        match (count(Choice::Yes) * 2 > followees.len(), count(Choice::No) * 2 >= followees.len()) {
            (true, _) => Some(Choice::Yes),
            (false, true) => Some(Choice::No),
            (false, false) => None,
        }
    }

    fn summary(&self, id: usize) -> Summary {
        Summary {
            id: id as u64,
            title: self.title.clone(),
            deadline: self.deadline,
            status: self.status,
            yes: self.yes,
            no: self.no,
            cast: self.casts.len() as u32,
        }
    }
}

/// Proposals from `first` on, at most 100.
#[ic_cdk::query]
fn proposals(first: u64, count: u32) -> Vec<Summary> {
    GOVERNANCE.with_borrow(|governance| {
        let asked = governance.proposals.iter().enumerate().skip(first as usize).take((count as usize).min(LIST_MAX));
        asked.map(|(id, proposal)| proposal.summary(id)).collect()
    })
}

/// The votes on a proposal in the order of their casting, from `first` on.
#[ic_cdk::query]
fn casts(id: u64, first: u32) -> Vec<Cast> {
    GOVERNANCE.with_borrow(|governance| {
        let casts = governance.proposals.get(id as usize).map(|proposal| proposal.casts.as_slice()).unwrap_or_default();
        casts.iter().skip(first as usize).take(10_000).cloned().collect()
    })
}

/// The caller's ballot.
#[ic_cdk::query]
fn ballot(id: u64) -> Option<Choice> {
    GOVERNANCE.with_borrow(|governance| {
        let voter = *governance.voters.get(&ic_cdk::api::msg_caller())?;
        *governance.proposals.get(id as usize)?.ballots.get(voter as usize)?
    })
}

/// How many proposals are open; a call, so that the answer is not older than its asking.
#[ic_cdk::update]
fn open_proposals() -> u64 {
    GOVERNANCE.with_borrow(|governance| governance.proposals.iter().filter(|proposal| proposal.status == Status::Open).count() as u64)
}
