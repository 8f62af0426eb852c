//! An exchange: seven limit orders around a drifting price to two swaps with the pool and one look at the spread.
//!
//! Stands for an order-book exchange with a pool beside it. Where orders are placed: around the best price, fewer the farther
//! away (Bouchaud, Mézard and Potters, "Statistical properties of stock order books", 2002; Cont, Stoikov and Talreja, "A
//! stochastic model for order book dynamics", 2010); hence the narrow band of prices, evenly chosen in it, so that about half
//! of the orders meet another. The pool keeps the product of its two amounts (Adams, Zinsmeister and Robinson, "Uniswap v2
//! Core", 2020), fee of 0.3 % included. Real books see most orders cancelled: the model has no cancellations, because they would take
//! from the book what the check counts. The shares of orders, swaps and looks are guesses.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload};
use candid::{CandidType, Deserialize, Principal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

const OPENING: u64 = 1_000_000_000_000;
const POOL: u64 = 1_000_000_000_000;
const PRICES: std::ops::Range<u64> = 95..106;

/// The model.
pub struct Exchange;

struct Market {
    canister: Principal,
}

#[derive(CandidType)]
enum Side {
    Buy,
    Sell,
}

#[derive(CandidType, Deserialize)]
struct Placed {
    filled: u64,
    resting: u64,
}

#[derive(CandidType, Deserialize)]
struct Totals {
    base: u64,
    quote: u64,
    accounts: u64,
    trades: u64,
}

impl Workload for Exchange {
    fn name(&self) -> &'static str {
        "exchange"
    }

    fn about(&self) -> &'static str {
        "limit orders on one book, swaps with a constant-product pool"
    }

    fn deploy(&self, agent: &mut Agent, _scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::EXCHANGE, &[])?;
        Ok(Box::new(Market { canister }))
    }
}

impl Deployed for Market {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, _user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let quantity = choices.random_range(1..100_u64);
        let (kind, method, argument) = match choices.random_range(0..10) {
            0..7 => {
                let side = if choices.random() { Side::Buy } else { Side::Sell };
                let price = choices.random_range(PRICES);
                (Kind::Call, "place", arguments_of((side, price, quantity))?)
            }
            7..9 => (Kind::Call, "swap", arguments_of((quantity,))?),
            _ => (Kind::Query, "spread", arguments_of(())?),
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: quantity,
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        match operation.method {
            "place" => {
                let (placed,) = reply_of::<(Result<Placed, String>,)>(reply)?;
                let placed = placed.map_err(WorkloadError::Unexpected)?;
                if placed.filled + placed.resting != operation.expected {
                    return Err(WorkloadError::unexpected(
                        "an order was neither filled nor left resting in whole",
                    ));
                }
            }
            "swap" => {
                let (quote,) = reply_of::<(Result<u64, String>,)>(reply)?;
                quote.map_err(WorkloadError::Unexpected)?;
            }
            _ => {
                let (bid, ask) = reply_of::<(u64, u64)>(reply)?;
                if bid >= ask && ask > 0 {
                    return Err(WorkloadError::Unexpected(format!(
                        "the book is crossed: {bid} bid, {ask} asked"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Accounts, orders and pool together hold what there was in the beginning.
    fn check(&self, agent: &mut Agent, _is_exact: bool) -> Result<(), WorkloadError> {
        let (totals,) = ask::<_, (Totals,)>(agent, self.canister, "totals", ())?;
        let expected = totals.accounts * OPENING + POOL;
        if (totals.base, totals.quote) == (expected, expected) {
            return Ok(());
        }
        Err(WorkloadError::Unexpected(format!(
            "after {} trades there are {} base and {} quote, not {expected} of each",
            totals.trades, totals.base, totals.quote
        )))
    }
}
