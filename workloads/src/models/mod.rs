//! The modelled applications.
//!
//! Each says in its documentation what real traffic it stands for and where its parameters come from: sizes of messages and
//! arguments are those of the real interfaces that it names, shares of reads and writes and the skew are published ones where
//! it cites them and round guesses where it says so.

mod analytics;
mod assets;
mod chain;
mod compute;
mod exchange;
mod explorer;
mod game;
mod governance;
mod idle;
mod inference;
mod nft;
mod social;
mod store;
mod token;
mod upgrades;

use crate::workload::Workload;

/// Every model.
pub const ALL: [&dyn Workload; 15] = [
    &token::Token,
    &exchange::Exchange,
    &social::Social,
    &assets::Assets,
    &nft::Nft,
    &game::Game,
    &governance::Governance,
    &store::Store,
    &analytics::Analytics,
    &inference::Inference,
    &compute::Compute,
    &chain::Chain,
    &upgrades::Upgrades,
    &idle::Idle,
    &explorer::Explorer,
];

/// The model of that name.
pub fn named(name: &str) -> Option<&'static dyn Workload> {
    ALL.iter().copied().find(|model| model.name() == name)
}
