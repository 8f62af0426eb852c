//! An exchange of one pair: an order book with price-time priority, and beside it a pool with constant product.
//! Interface: `exchange.did`. Everybody holds an opening balance of both tokens.

use candid::{CandidType, Principal};
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

const OPENING: u64 = 1_000_000_000_000;
const POOL: u64 = 1_000_000_000_000;

#[derive(Clone, Copy, PartialEq, CandidType, Deserialize)]
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

#[derive(Clone, Copy)]
struct Account {
    base: u64,
    quote: u64,
}

struct Resting {
    owner: Principal,
    quantity: u64,
}

#[derive(Default)]
struct Exchange {
    accounts: BTreeMap<Principal, Account>,
    bids: BTreeMap<u64, VecDeque<Resting>>,
    asks: BTreeMap<u64, VecDeque<Resting>>,
    pool: Option<Account>,
    trades: u64,
}

thread_local! {
    static EXCHANGE: RefCell<Exchange> = RefCell::default();
}

impl Exchange {
    fn account(&mut self, owner: Principal) -> &mut Account {
        self.accounts.entry(owner).or_insert(Account { base: OPENING, quote: OPENING })
    }

    /// The best price on the other side that still suits `limit`.
    fn best(&self, side: Side, limit: u64) -> Option<u64> {
        match side {
            Side::Buy => self.asks.keys().next().copied().filter(|price| *price <= limit),
            Side::Sell => self.bids.keys().next_back().copied().filter(|price| *price >= limit),
        }
    }

    /// What the order may cost is set aside first; what a better price saves comes back.
    fn place(&mut self, owner: Principal, side: Side, limit: u64, quantity: u64) -> Result<Placed, String> {
        let cost = limit.checked_mul(quantity).filter(|cost| *cost > 0).ok_or("a price or quantity is out of range")?;
        let account = self.account(owner);
        match side {
            Side::Buy => account.quote = account.quote.checked_sub(cost).ok_or("too little quote")?,
            Side::Sell => account.base = account.base.checked_sub(quantity).ok_or("too little base")?,
        }
        let mut left = quantity;
        while left > 0 && let Some(price) = self.best(side, limit) {
            left = self.trade(owner, side, limit, price, left);
        }
        if left > 0 {
            let book = if side == Side::Buy { &mut self.bids } else { &mut self.asks };
            book.entry(limit).or_default().push_back(Resting { owner, quantity: left });
        }
        Ok(Placed { filled: quantity - left, resting: left })
    }

    /// Trades with the oldest order at `price`; what is left of the incoming one.
    fn trade(&mut self, taker: Principal, side: Side, limit: u64, price: u64, wanted: u64) -> u64 {
        let book = if side == Side::Buy { &mut self.asks } else { &mut self.bids };
        let level = book.get_mut(&price).expect("the best price has a level");
        let first = level.front_mut().expect("a level is never empty");
        let (maker, quantity) = (first.owner, first.quantity.min(wanted));
        first.quantity -= quantity;
        if first.quantity == 0 {
            level.pop_front();
        }
        if level.is_empty() {
            book.remove(&price);
        }
        self.trades += 1;
        let (buyer, seller) = if side == Side::Buy { (taker, maker) } else { (maker, taker) };
        self.account(buyer).base += quantity;
        self.account(seller).quote += price * quantity;
        if side == Side::Buy {
            self.account(taker).quote += (limit - price) * quantity;
        }
        wanted - quantity
    }

    /// Constant product with a fee of 0.3 %, which stays in the pool.
    fn swap(&mut self, owner: Principal, base: u64) -> Result<u64, String> {
        let account = self.account(owner);
        account.base = account.base.checked_sub(base).ok_or("too little base")?;
        let pool = self.pool.get_or_insert(Account { base: POOL, quote: POOL });
        let after_fee = u128::from(base) * 997;
        let quote = u128::from(pool.quote) * after_fee / (u128::from(pool.base) * 1_000 + after_fee);
        let quote = u64::try_from(quote).map_err(|error| error.to_string())?;
        pool.base += base;
        pool.quote -= quote;
        self.account(owner).quote += quote;
        Ok(quote)
    }

    fn totals(&self) -> Totals {
        let pool = self.pool.unwrap_or(Account { base: POOL, quote: POOL });
        let held = self.accounts.values().fold(pool, |sum, account| Account {
            base: sum.base + account.base,
            quote: sum.quote + account.quote,
        });
        let sells = self.asks.values().flatten().map(|order| order.quantity).sum::<u64>();
        let buys = |(price, level): (&u64, &VecDeque<Resting>)| level.iter().map(|order| price * order.quantity).sum::<u64>();
        Totals {
            base: held.base + sells,
            quote: held.quote + self.bids.iter().map(buys).sum::<u64>(),
            accounts: self.accounts.len() as u64,
            trades: self.trades,
        }
    }
}

#[ic_cdk::update]
fn place(side: Side, limit: u64, quantity: u64) -> Result<Placed, String> {
    let caller = ic_cdk::api::msg_caller();
    EXCHANGE.with_borrow_mut(|exchange| exchange.place(caller, side, limit, quantity))
}

#[ic_cdk::update]
fn swap(base: u64) -> Result<u64, String> {
    let caller = ic_cdk::api::msg_caller();
    EXCHANGE.with_borrow_mut(|exchange| exchange.swap(caller, base))
}

/// The best bid and ask, 0 where there is none.
#[ic_cdk::query]
fn spread() -> (u64, u64) {
    EXCHANGE.with_borrow(|exchange| {
        let bid = exchange.bids.keys().next_back().copied().unwrap_or_default();
        (bid, exchange.asks.keys().next().copied().unwrap_or_default())
    })
}

/// Everything that accounts, orders and pool hold together.
#[ic_cdk::query]
fn totals() -> Totals {
    EXCHANGE.with_borrow(Exchange::totals)
}
