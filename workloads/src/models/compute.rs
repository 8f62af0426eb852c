//! Work for the processor: hash chains, matrices in f64 as machine learning multiplies them, pictures.
//!
//! Every result is computed by the client as well, to the last bit.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, reply_of};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload};
use candid::Principal;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

const ROUNDS: u32 = 500;
const SIZE: u32 = 48;
const PICTURE: (u32, u32) = (64, 48);

/// The model.
pub struct Compute;

struct Kernels {
    canister: Principal,
    picture: u64,
}

impl Workload for Compute {
    fn name(&self) -> &'static str {
        "compute"
    }

    fn about(&self) -> &'static str {
        "hash chains, f64 matrices and pictures"
    }

    fn deploy(&self, agent: &mut Agent, _scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::COMPUTE, &[])?;
        let picture = mandelbrot(PICTURE.0, PICTURE.1);
        Ok(Box::new(Kernels { canister, picture }))
    }
}

fn hash_chain(seed: u64) -> [u8; 32] {
    let first: [u8; 32] = Sha256::digest(seed.to_le_bytes()).into();
    (0..ROUNDS).fold(first, |digest, _| Sha256::digest(digest).into())
}

fn entry(index: usize, seed: u32) -> f64 {
    let mixed = (index as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
    f64::from(mixed >> 8) / f64::from(1_u32 << 24) - 0.5
}

/// The sum along the diagonal of a matrix times itself, each element's sum in the canister's order.
fn matrix_trace(size: usize, seed: u32) -> f64 {
    let element = |place: usize| {
        (0..size).fold(0.0, |sum, middle| {
            sum + entry(place * size + middle, seed) * entry(middle * size + place, seed)
        })
    };
    (0..size).map(element).sum()
}

fn mandelbrot(width: u32, height: u32) -> u64 {
    let iterations = |column: u32, row: u32| {
        let re = f64::from(column) / f64::from(width) * 3.0 - 2.0;
        let im = f64::from(row) / f64::from(height) * 2.0 - 1.0;
        let (mut x, mut y, mut count) = (0.0, 0.0, 0_u64);
        while x * x + y * y <= 4.0 && count < 255 {
            (x, y) = (x * x - y * y + re, 2.0 * x * y + im);
            count += 1;
        }
        count
    };
    (0..height)
        .map(|row| (0..width).map(|column| iterations(column, row)).sum::<u64>())
        .sum()
}

impl Deployed for Kernels {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, _user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let seed: u32 = choices.random();
        let bytes = ByteBuf::from(u64::from(seed).to_le_bytes());
        let (kind, method, argument) = match choices.random_range(0..3) {
            0 => (Kind::Call, "hash_chain", arguments_of((bytes, ROUNDS))?),
            1 => (Kind::Call, "matrix_trace", arguments_of((SIZE, seed))?),
            _ => (Kind::Query, "mandelbrot", arguments_of(PICTURE)?),
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: u64::from(seed),
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        let is_right = match operation.method {
            "hash_chain" => reply_of::<(ByteBuf,)>(reply)?.0[..] == hash_chain(operation.expected),
            "matrix_trace" => {
                let expected = matrix_trace(SIZE as usize, operation.expected as u32);
                reply_of::<(f64,)>(reply)?.0.to_bits() == expected.to_bits()
            }
            _ => reply_of::<(u64,)>(reply)?.0 == self.picture,
        };
        if is_right {
            return Ok(());
        }
        let Operation { method, expected, .. } = operation;
        Err(WorkloadError::Unexpected(format!(
            "{method} of seed {expected}: another result than here"
        )))
    }

    /// Every result was compared as it came; nothing is left to check.
    fn check(&self, _agent: &mut Agent, _is_exact: bool) -> Result<(), WorkloadError> {
        Ok(())
    }
}
