//! Work for the processor: hash chains, QR codes, thumbnails, pictures drawn by formula.
//!
//! Stands for what canisters compute between reading and writing: proofs of work and Merkle trees (500 hashes are a branch of
//! a large tree, or a small proof), QR codes as wallets and tickets show them (the text is a payment request of some sixty
//! characters, error correction M, which ISO/IEC 18004 gives for 15 % of damage), thumbnails of uploads (halved), and drawings
//! (the set of Mandelbrot, as programs for benchmarks have it). How often each is asked for is a guess: evenly. Every result
//! is computed by the client as well, to the last bit. Machine learning is a model of its own.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, reply_of};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload};
use candid::Principal;
use qrcodegen::{QrCode, QrCodeEcc};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

const ROUNDS: u32 = 500;
/// Of the Mandelbrot drawing.
const DRAWING: (u32, u32) = (64, 48);
/// Of uploads: three bytes a pixel.
const PICTURE: (usize, usize) = (160, 120);
const FACTOR: usize = 2;

/// The model.
pub struct Compute;

struct Kernels {
    canister: Principal,
    drawing: u64,
}

impl Workload for Compute {
    fn name(&self) -> &'static str {
        "compute"
    }

    fn about(&self) -> &'static str {
        "hash chains, QR codes, thumbnails, drawings"
    }

    fn deploy(&self, agent: &mut Agent, _scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::COMPUTE, &[])?;
        let drawing = mandelbrot(DRAWING.0, DRAWING.1);
        Ok(Box::new(Kernels { canister, drawing }))
    }
}

fn hash_chain(seed: u64) -> [u8; 32] {
    let first: [u8; 32] = Sha256::digest(seed.to_le_bytes()).into();
    (0..ROUNDS).fold(first, |digest, _| Sha256::digest(digest).into())
}

/// What a wallet shows.
fn payment_request(seed: u64) -> String {
    format!("icp:{seed:016x}{:016x}?amount={}", seed.rotate_left(23), seed % 100_000)
}

/// Side and modules of a QR code, row by row.
fn qr_code(text: &str) -> Option<(u32, Vec<u8>)> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let side = code.size();
    let modules = (0..side).flat_map(|row| (0..side).map(move |column| (column, row)));
    let modules = modules
        .map(|(column, row)| u8::from(code.get_module(column, row)))
        .collect();
    Some((side as u32, modules))
}

fn picture(seed: u64) -> Vec<u8> {
    (0..PICTURE.0 * PICTURE.1 * 3)
        .map(|place| ((place as u64 * (seed | 1)) >> 7) as u8)
        .collect()
}

/// Every pixel is the average of a square of pixels, rounded down.
fn thumbnail(picture: &[u8]) -> Vec<u8> {
    let (width, height) = PICTURE;
    let mut sums = vec![0_u32; width / FACTOR * (height / FACTOR) * 3];
    for (place, byte) in picture.iter().enumerate() {
        let (pixel, channel) = (place / 3, place % 3);
        let (row, column) = (pixel / width / FACTOR, pixel % width / FACTOR);
        sums[(row * (width / FACTOR) + column) * 3 + channel] += u32::from(*byte);
    }
    sums.iter().map(|sum| (sum / (FACTOR * FACTOR) as u32) as u8).collect()
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
        let (kind, method, argument) = match choices.random_range(0..4) {
            0 => (Kind::Call, "hash_chain", arguments_of((bytes, ROUNDS))?),
            1 => {
                let picture = ByteBuf::from(picture(seed.into()));
                let argument = arguments_of((picture, PICTURE.0 as u32, FACTOR as u32))?;
                (Kind::Call, "thumbnail", argument)
            }
            2 => (Kind::Query, "qr_code", arguments_of((payment_request(seed.into()),))?),
            _ => (Kind::Query, "mandelbrot", arguments_of(DRAWING)?),
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
            "thumbnail" => reply_of::<(ByteBuf,)>(reply)?.0[..] == thumbnail(&picture(operation.expected)),
            "qr_code" => {
                let (code,) = reply_of::<(Result<(u32, ByteBuf), String>,)>(reply)?;
                let code = code.ok().map(|(side, modules)| (side, modules.into_vec()));
                code.is_some() && code == qr_code(&payment_request(operation.expected))
            }
            _ => reply_of::<(u64,)>(reply)?.0 == self.drawing,
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
