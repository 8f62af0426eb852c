//! A nervous system: proposals with a ballot for every voter, votes that followers take over, deadlines kept by timers.
//!
//! Stands for the governance of a network or an application by its token holders. A vote is the heavy message: it goes on
//! along everybody who follows. Following is as in the Network Nervous System (its documentation, "Neuron following"): a
//! voter says yes when more than half of those that it follows do, and no when half of them do; up to fifteen may be
//! followed, here three, most of them well-known ones. Voting power falls with the number of the voter as stakes do, by
//! Zipf's law. Proposals are open for days there and for a second here, so that a load of seconds sees them closed.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of, tell};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload, check_count};
use candid::{CandidType, Deserialize, Principal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const PERIOD_MS: u64 = 1_000;
const REGISTER_AT_ONCE: usize = 2_000;
/// Votes go to one of the newest proposals.
const RECENT: u64 = 5;
/// How often the end asks whether all are closed: far longer than the period of the last one.
const ASKED_MAX: u32 = 6_000;
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// The model.
pub struct Governance;

struct Voters {
    canister: Principal,
    /// By user number, the number of the voter: users may share a principal.
    of_user: Vec<u32>,
    powers: Vec<u64>,
    followees: Vec<Vec<u32>>,
    followers: Vec<Vec<u32>>,
    proposals: AtomicU64,
    /// Votes acknowledged, by proposal and voter.
    votes: Mutex<BTreeMap<(u64, u32), Choice>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, CandidType, Deserialize)]
enum Choice {
    Yes,
    No,
}

#[derive(CandidType, Deserialize)]
struct Cast {
    voter: u32,
    choice: Choice,
    is_direct: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, CandidType, Deserialize)]
enum Status {
    Open,
    Adopted,
    Rejected,
}

#[derive(CandidType, Deserialize)]
struct Summary {
    id: u64,
    status: Status,
    yes: u64,
    no: u64,
    cast: u32,
}

#[derive(Debug, CandidType, Deserialize)]
enum VoteError {
    NoVoter,
    NoProposal,
    AlreadyVoted,
    Closed,
}

impl Workload for Governance {
    fn name(&self) -> &'static str {
        "governance"
    }

    fn about(&self) -> &'static str {
        "proposals, ballots that followers take over, deadlines kept by timers"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::GOVERNANCE, &arguments_of((PERIOD_MS,))?)?;
        let mut numbers = BTreeMap::new();
        let mut voters = Vec::new();
        let of_user = scale.users.iter().map(|user| {
            *numbers.entry(*user).or_insert_with(|| {
                let number = voters.len() as u32;
                voters.push((*user, 100_000_000 / u64::from(number + 1), followees(number)));
                number
            })
        });
        let of_user = of_user.collect();
        for some in voters.chunks(REGISTER_AT_ONCE) {
            tell::<_, (u32,)>(agent, canister, "register", (some,))?;
        }
        let (powers, followees): (Vec<_>, Vec<Vec<u32>>) = voters
            .into_iter()
            .map(|(_, power, followees)| (power, followees))
            .unzip();
        let mut followers = vec![Vec::new(); powers.len()];
        for (follower, followees) in followees.iter().enumerate() {
            followees
                .iter()
                .for_each(|followee| followers[*followee as usize].push(follower as u32));
        }
        Ok(Box::new(Voters {
            canister,
            of_user,
            powers,
            followees,
            followers,
            proposals: AtomicU64::new(0),
            votes: Mutex::default(),
        }))
    }
}

/// Whom a voter follows: up to three with smaller numbers, the well-known ones.
fn followees(number: u32) -> Vec<u32> {
    let mut followees: Vec<u32> = [2, 3, 7].map(|part| number / part).into();
    followees.retain(|followee| *followee < number);
    followees.dedup();
    followees
}

impl Voters {
    fn votes(&self) -> MutexGuard<'_, BTreeMap<(u64, u32), Choice>> {
        self.votes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the direct votes in their order through the voters, and compares what the canister made of them.
    fn replay(&self, proposal: &Summary, casts: &[Cast]) -> Result<(), String> {
        let mut ballots = vec![None; self.powers.len()];
        // What follows from the direct votes so far and was not seen yet. Whoever follows cannot be brought to both answers,
        // so that the order in which followers vote does not matter.
        let mut due = BTreeMap::new();
        let mut tally = [0_u64; 2];
        for cast in casts {
            let ballot = ballots.get_mut(cast.voter as usize);
            let ballot = ballot.ok_or_else(|| format!("there is no voter {}", cast.voter))?;
            if !cast.is_direct {
                if due.remove(&cast.voter) != Some(cast.choice) {
                    return Err(format!("voter {} does not vote as those that it follows", cast.voter));
                }
            } else if ballot.replace(cast.choice).is_some() {
                return Err(format!("voter {} is counted twice", cast.voter));
            } else {
                if let Some((missing, _)) = due.first_key_value() {
                    return Err(format!("voter {missing} does not follow"));
                }
                due = self.follow(cast.voter, &mut ballots);
            }
            tally[cast.choice as usize] += self.powers[cast.voter as usize];
        }
        if let Some((missing, _)) = due.first_key_value() {
            return Err(format!("voter {missing} does not follow"));
        }
        let status = if tally[0] > tally[1] {
            Status::Adopted
        } else {
            Status::Rejected
        };
        if (proposal.yes, proposal.no, proposal.status) == (tally[0], tally[1], status) {
            return Ok(());
        }
        Err(format!(
            "{} to {}, {:?}; its ballots say {} to {}",
            proposal.yes, proposal.no, proposal.status, tally[0], tally[1]
        ))
    }

    /// Casts the ballots that follow from one vote, and gives them.
    fn follow(&self, voter: u32, ballots: &mut [Option<Choice>]) -> BTreeMap<u32, Choice> {
        let (mut followed, mut next) = (BTreeMap::new(), vec![voter]);
        while let Some(voter) = next.pop() {
            for follower in &self.followers[voter as usize] {
                let followees = &self.followees[*follower as usize];
                let count = |choice| {
                    let says = |followee: &&u32| ballots[**followee as usize] == Some(choice);
                    followees.iter().filter(says).count()
                };
                let choice = if 2 * count(Choice::Yes) > followees.len() {
                    Choice::Yes
                } else if 2 * count(Choice::No) >= followees.len() {
                    Choice::No
                } else {
                    continue;
                };
                let ballot = &mut ballots[*follower as usize];
                if ballot.is_none() {
                    *ballot = Some(choice);
                    followed.insert(*follower, choice);
                    next.push(*follower);
                }
            }
        }
        followed
    }

    fn wait_until_closed(&self, agent: &mut Agent) -> Result<(), WorkloadError> {
        for _ in 0..ASKED_MAX {
            // A call and not a query: in a simulation it is calls that make time go on.
            if tell::<_, (u64,)>(agent, self.canister, "open_proposals", ())?.0 == 0 {
                return Ok(());
            }
            if agent.is_embedded() {
                continue;
            }
            std::thread::sleep(ASK_AGAIN);
        }
        Err(WorkloadError::unexpected("a proposal stays open after its deadline"))
    }

    fn casts(&self, agent: &mut Agent, proposal: &Summary) -> Result<Vec<Cast>, WorkloadError> {
        let mut casts = Vec::new();
        while casts.len() < proposal.cast as usize {
            let argument = (proposal.id, casts.len() as u32);
            let (more,) = ask::<_, (Vec<Cast>,)>(agent, self.canister, "casts", argument)?;
            if more.is_empty() {
                return Err(WorkloadError::unexpected(format!(
                    "proposal {}: casts are missing",
                    proposal.id
                )));
            }
            casts.extend(more);
        }
        Ok(casts)
    }
}

impl Deployed for Voters {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let proposals = self.proposals.load(Ordering::Relaxed);
        let choice = choices.random_range(0..50);
        let id = proposals.saturating_sub(1 + choices.random_range(0..RECENT));
        let (kind, method, argument) = match choice {
            _ if proposals == 0 => (Kind::Call, "propose", arguments_of(("the first",))?),
            0 => (
                Kind::Call,
                "propose",
                arguments_of((format!("what user {user} wants"),))?,
            ),
            1..36 => {
                let vote = if choices.random_range(0..3) == 0 {
                    Choice::No
                } else {
                    Choice::Yes
                };
                (Kind::Call, "vote", arguments_of((id, vote))?)
            }
            36..44 => (Kind::Query, "proposals", arguments_of((id, 10_u32))?),
            _ => (Kind::Query, "ballot", arguments_of((id,))?),
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: user as u64,
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        match operation.method {
            "propose" => {
                let (id,) = reply_of::<(u64,)>(reply)?;
                self.proposals.fetch_max(id + 1, Ordering::Relaxed);
                Ok(())
            }
            "vote" => {
                let (id, choice) = reply_of::<(u64, Choice)>(&operation.argument)?;
                let voter = self.of_user[operation.expected as usize];
                match reply_of::<(Result<u32, VoteError>,)>(reply)?.0 {
                    Ok(_) if self.votes().insert((id, voter), choice).is_some() => Err(WorkloadError::unexpected(
                        format!("voter {voter} voted twice on proposal {id}"),
                    )),
                    Ok(_) | Err(VoteError::AlreadyVoted | VoteError::Closed) => Ok(()),
                    Err(error) => Err(WorkloadError::unexpected(format!("vote on proposal {id}: {error:?}"))),
                }
            }
            "proposals" => reply_of::<(Vec<Summary>,)>(reply).map(drop),
            _ => reply_of::<(Option<Choice>,)>(reply).map(drop),
        }
    }

    /// Every proposal is closed, every ballot counted once, every acknowledged vote among them, every follower's vote the one
    /// that follows, and the result that of the ballots.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError> {
        self.wait_until_closed(agent)?;
        let mut acknowledged = self.votes().clone();
        let (mut first, mut direct) = (0, 0);
        let votes = acknowledged.len() as u64;
        loop {
            let (page,) = ask::<_, (Vec<Summary>,)>(agent, self.canister, "proposals", (first, 100_u32))?;
            for proposal in &page {
                let casts = self.casts(agent, proposal)?;
                self.replay(proposal, &casts)
                    .map_err(|what| WorkloadError::unexpected(format!("proposal {}: {what}", proposal.id)))?;
                for cast in casts.iter().filter(|cast| cast.is_direct) {
                    direct += 1;
                    let said = acknowledged.remove(&(proposal.id, cast.voter));
                    if said.is_some_and(|choice| choice != cast.choice) {
                        return Err(WorkloadError::unexpected(format!(
                            "voter {} said otherwise",
                            cast.voter
                        )));
                    }
                }
            }
            first += page.len() as u64;
            if page.is_empty() {
                break;
            }
        }
        if let Some(((proposal, voter), _)) = acknowledged.first_key_value() {
            return Err(WorkloadError::unexpected(format!(
                "the vote of {voter} on {proposal} is missing"
            )));
        }
        check_count("proposals", first, self.proposals.load(Ordering::Relaxed), is_exact)?;
        check_count("votes", direct, votes, is_exact)
    }
}
