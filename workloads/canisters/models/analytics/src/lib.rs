//! A table by columns and queries that scan all of it. Rows and queries are cut after `lineitem`, Q1 and Q6 of TPC-H, with
//! integers for its decimals. Interface: `analytics.did`.

use candid::CandidType;
use std::cell::RefCell;

/// Ship dates are days of seven years.
const DAYS: u64 = 2_557;
/// Of return flags and line statuses: three times two.
const GROUPS: usize = 6;

/// A column per attribute.
#[derive(Default)]
struct Table {
    quantity: Vec<u8>,
    /// In cents.
    price: Vec<u32>,
    /// In hundredths.
    discount: Vec<u8>,
    tax: Vec<u8>,
    ship_day: Vec<u16>,
    group: Vec<u8>,
}

/// A row of the answer to the pricing summary.
#[derive(Clone, Default, CandidType)]
struct Group {
    count: u64,
    quantity: u64,
    price: u64,
    /// Price times (1 - discount), in hundredths of cents.
    discounted: u64,
    /// That times (1 + tax), in ten-thousandths of cents.
    charged: u64,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

/// Appends `count` rows made from the numbers from `first` on, and answers how many there are: a loader on the spot.
#[ic_cdk::update]
fn generate(first: u64, count: u64) -> u64 {
    TABLE.with_borrow_mut(|table| {
        for number in first..first + count {
            // A multiplicative hash: neighbours differ in every column.
            let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number >> 7;
            let row = Row {
                quantity: (mixed % 50 + 1) as u8,
                price: (90_000 + (mixed >> 8) % 10_000_000) as u32,
                discount: ((mixed >> 32) % 11) as u8,
                tax: ((mixed >> 40) % 9) as u8,
                ship_day: ((mixed >> 44) % DAYS) as u16,
                group: ((mixed >> 56) % GROUPS as u64) as u8,
            };
            table.push(row);
        }
        table.quantity.len() as u64
    })
}

struct Row {
    quantity: u8,
    price: u32,
    discount: u8,
    tax: u8,
    ship_day: u16,
    group: u8,
}

impl Table {
    fn push(&mut self, row: Row) {
        self.quantity.push(row.quantity);
        self.price.push(row.price);
        self.discount.push(row.discount);
        self.tax.push(row.tax);
        self.ship_day.push(row.ship_day);
        self.group.push(row.group);
    }
}

/// Appends rows of (quantity, price, discount, tax, ship day, group) as clients send them.
#[ic_cdk::update]
fn append(rows: Vec<(u8, u32, u8, u8, u16, u8)>) -> u64 {
    TABLE.with_borrow_mut(|table| {
        for (quantity, price, discount, tax, ship_day, group) in rows {
            table.push(Row { quantity, price, discount, tax, ship_day, group: group % GROUPS as u8 });
        }
        table.quantity.len() as u64
    })
}

/// Q1, the pricing summary: sums by group of the rows shipped up to a day; and how many rows there are.
#[ic_cdk::query]
fn pricing_summary(last_day: u16) -> (u64, Vec<Group>) {
    TABLE.with_borrow(|table| {
        let mut groups = vec![Group::default(); GROUPS];
        for row in 0..table.quantity.len() {
            if table.ship_day[row] > last_day {
                continue;
            }
            let group = &mut groups[table.group[row] as usize];
            let discounted = u64::from(table.price[row]) * u64::from(100 - table.discount[row].min(100));
            group.count += 1;
            group.quantity += u64::from(table.quantity[row]);
            group.price += u64::from(table.price[row]);
            group.discounted += discounted;
            group.charged += discounted * u64::from(100 + table.tax[row]);
        }
        (table.quantity.len() as u64, groups)
    })
}

/// Q6, the forecast of revenue: what a discount around `discount` brought on small quantities within a year from `first_day`
/// on, in hundredths of cents; and how many rows there are.
#[ic_cdk::query]
fn revenue_forecast(first_day: u16, discount: u8, quantity: u8) -> (u64, u64) {
    TABLE.with_borrow(|table| {
        let (days, discounts) = (first_day..first_day.saturating_add(365), discount.saturating_sub(1)..=discount.saturating_add(1));
        let chosen = |row: &usize| {
            days.contains(&table.ship_day[*row]) && discounts.contains(&table.discount[*row]) && table.quantity[*row] < quantity
        };
        let revenue = |row: usize| u64::from(table.price[row]) * u64::from(table.discount[row]);
        (table.quantity.len() as u64, (0..table.quantity.len()).filter(chosen).map(revenue).sum())
    })
}
