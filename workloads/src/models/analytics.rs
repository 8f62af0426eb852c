//! Analytics: queries that scan a whole table, and batches of rows that arrive meanwhile.
//!
//! Stands for reporting on top of an application's data: dashboards, audits, the indexes of explorers. Table and queries are
//! cut after `lineitem`, Q1 (pricing summary, with its 60 to 120 days before the last) and Q6 (forecast of revenue: a year, a
//! discount of two to nine percent give or take one, quantities below 24 or 25) of the TPC-H specification; integers stand
//! for its decimals, and `--items` counts hundreds of rows. One request in twenty appends fifty rows.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of, tell};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload, check_count};
use candid::{CandidType, Deserialize, Principal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};

const ROWS_PER_ITEM: u64 = 100;
const GENERATE_AT_ONCE: u64 = 100_000;
const DAYS: u16 = 2_557;
const GROUPS: usize = 6;
const BATCH: u64 = 50;

/// The model.
pub struct Analytics;

struct Table {
    canister: Principal,
    /// Rows that the table began with.
    initial: Vec<Row>,
    /// Rows that every append brings.
    batch: Vec<Row>,
    appended: AtomicU64,
}

/// Quantity, price in cents, discount and tax in hundredths, day of shipping, group.
type Row = (u8, u32, u8, u8, u16, u8);

#[derive(Clone, Copy, Default, PartialEq, Eq, CandidType, Deserialize)]
struct Group {
    count: u64,
    quantity: u64,
    price: u64,
    discounted: u64,
    charged: u64,
}

/// The parameters of Q6.
#[derive(Clone, Copy)]
struct Forecast {
    first_day: u16,
    discount: u8,
    quantity: u8,
}

impl Workload for Analytics {
    fn name(&self) -> &'static str {
        "analytics"
    }

    fn about(&self) -> &'static str {
        "aggregates over all rows of a table by columns, rows appended meanwhile"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::ANALYTICS, &[])?;
        let rows = scale.items.max(1) * ROWS_PER_ITEM;
        for first in (0..rows).step_by(GENERATE_AT_ONCE as usize) {
            tell::<_, (u64,)>(agent, canister, "generate", (first, GENERATE_AT_ONCE.min(rows - first)))?;
        }
        Ok(Box::new(Table {
            canister,
            initial: (0..rows).map(generated).collect(),
            batch: (0..BATCH).map(|number| generated(u64::MAX / 3 - number)).collect(),
            appended: AtomicU64::new(0),
        }))
    }
}

/// The row that the canister makes from a number.
fn generated(number: u64) -> Row {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number >> 7);
    let part = |shift: u32, values: u64| (mixed >> shift) % values;
    (
        part(0, 50) as u8 + 1,
        90_000 + part(8, 10_000_000) as u32,
        part(32, 11) as u8,
        part(40, 9) as u8,
        part(44, u64::from(DAYS)) as u16,
        part(56, GROUPS as u64) as u8,
    )
}

/// Q1 over some rows, `times` times.
fn summarise(rows: &[Row], last_day: u16, times: u64, groups: &mut [Group; GROUPS]) {
    for (quantity, price, discount, tax, _, group) in rows.iter().filter(|row| row.4 <= last_day) {
        let group = &mut groups[*group as usize];
        let discounted = u64::from(*price) * (100 - u64::from(*discount));
        group.count += times;
        group.quantity += u64::from(*quantity) * times;
        group.price += u64::from(*price) * times;
        group.discounted += discounted * times;
        group.charged += discounted * (100 + u64::from(*tax)) * times;
    }
}

impl Forecast {
    /// Q6 over some rows.
    fn revenue(&self, rows: &[Row]) -> u64 {
        let is_chosen = |(quantity, _, discount, _, day, _): &&Row| {
            (self.first_day..self.first_day + 365).contains(day)
                && discount.abs_diff(self.discount) <= 1
                && *quantity < self.quantity
        };
        let revenue = |(_, price, discount, _, _, _): &Row| u64::from(*price) * u64::from(*discount);
        rows.iter().filter(is_chosen).map(revenue).sum()
    }
}

impl Table {
    /// How many batches are in a table of so many rows.
    fn batches(&self, rows: u64) -> Result<u64, WorkloadError> {
        match rows.checked_sub(self.initial.len() as u64) {
            Some(added) if added.is_multiple_of(BATCH) => Ok(added / BATCH),
            _ => Err(WorkloadError::unexpected(format!("{rows} rows: part of an append"))),
        }
    }
}

impl Deployed for Table {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, _user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let (kind, method, argument) = match choices.random_range(0..20) {
            0 => (Kind::Call, "append", arguments_of((&self.batch,))?),
            1..10 => {
                let last_day = DAYS - choices.random_range(60..=120);
                (Kind::Query, "pricing_summary", arguments_of((last_day,))?)
            }
            _ => {
                let first_day = choices.random_range(1..6_u16) * 365;
                let (discount, quantity) = (choices.random_range(2..=9_u8), choices.random_range(24..=25_u8));
                let argument = arguments_of((first_day, discount, quantity))?;
                (Kind::Query, "revenue_forecast", argument)
            }
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: 0,
        })
    }

    /// Sums are those of the rows that were there, computed here again.
    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        let is_right = match operation.method {
            "append" => {
                self.appended.fetch_add(1, Ordering::Relaxed);
                self.batches(reply_of::<(u64,)>(reply)?.0)? > 0
            }
            "pricing_summary" => {
                let (last_day,) = reply_of::<(u16,)>(&operation.argument)?;
                let (rows, groups) = reply_of::<(u64, Vec<Group>)>(reply)?;
                let mut expected = [Group::default(); GROUPS];
                summarise(&self.initial, last_day, 1, &mut expected);
                summarise(&self.batch, last_day, self.batches(rows)?, &mut expected);
                groups == expected
            }
            _ => {
                let (first_day, discount, quantity) = reply_of::<(u16, u8, u8)>(&operation.argument)?;
                let forecast = Forecast {
                    first_day,
                    discount,
                    quantity,
                };
                let (rows, revenue) = reply_of::<(u64, u64)>(reply)?;
                let added = forecast.revenue(&self.batch) * self.batches(rows)?;
                revenue == forecast.revenue(&self.initial) + added
            }
        };
        if is_right {
            return Ok(());
        }
        let method = operation.method;
        Err(WorkloadError::unexpected(format!(
            "{method}: other sums than the rows give"
        )))
    }

    /// As many rows as were appended.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError> {
        let (rows, _) = ask::<_, (u64, u64)>(agent, self.canister, "revenue_forecast", (0_u16, 0_u8, 0_u8))?;
        let appended = self.appended.load(Ordering::Relaxed);
        check_count("batches of rows", self.batches(rows)?, appended, is_exact)
    }
}
