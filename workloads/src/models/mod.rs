//! The modelled applications.
//!
//! Where their parameters come from: sizes of messages and arguments are those of the real interfaces that each names;
//! shares of reads and writes and the skew are round numbers near published ones of such sites, and every model says which.

mod assets;
mod chain;
mod compute;
mod exchange;
mod explorer;
mod game;
mod idle;
mod social;
mod store;
mod tokens;

use crate::workload::Workload;

/// Every model.
pub const ALL: [&dyn Workload; 10] = [
    &tokens::Tokens,
    &exchange::Exchange,
    &social::Social,
    &assets::Assets,
    &store::Store,
    &game::Game,
    &chain::Chain,
    &compute::Compute,
    &explorer::Explorer,
    &idle::Idle,
];

/// The model of that name.
pub fn named(name: &str) -> Option<&'static dyn Workload> {
    ALL.iter().copied().find(|model| model.name() == name)
}
