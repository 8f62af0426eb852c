//! Machine learning: pictures classified by a small convolutional network in f32, dense products in f64.
//!
//! Stands for models that run in canisters, as in the image classification example of the Internet Computer's examples
//! repository. The network has the shape of LeNet's beginnings (LeCun et al., 1998): pictures of 28 by 28, a convolution
//! with kernels of 5 by 5, the largest of two by two, two dense layers, ten classes; 75,000 weights of which most belong to
//! the first dense layer. Weights are uploaded as real ones are; they are random, since the work does not depend on them. Four
//! classifications, which are queries, to one product of f64 matrices, which stands for training and statistics. Every score is
//! computed by the client as well, to the last bit.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, reply_of, tell};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload};
use candid::Principal;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;

const SIDE: usize = 28;
const KERNEL: usize = 5;
const CHANNELS: usize = 8;
const CONVOLVED: usize = SIDE - KERNEL + 1;
const POOLED: usize = CONVOLVED / 2;
const FEATURES: usize = CHANNELS * POOLED * POOLED;
const HIDDEN: usize = 64;
const CLASSES: usize = 10;
const WEIGHTS: usize = CHANNELS * KERNEL * KERNEL + CHANNELS + HIDDEN * FEATURES + HIDDEN + CLASSES * HIDDEN + CLASSES;
const MATRIX: u32 = 48;
const UPLOAD_BYTES: usize = 200_000;

/// The model.
pub struct Inference;

struct Network {
    canister: Principal,
    weights: Vec<f32>,
}

impl Workload for Inference {
    fn name(&self) -> &'static str {
        "inference"
    }

    fn about(&self) -> &'static str {
        "a convolutional network in f32, dense products in f64"
    }

    fn deploy(&self, agent: &mut Agent, _scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::INFERENCE, &[])?;
        let weights: Vec<f32> = (0..WEIGHTS as u32).map(weight).collect();
        let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        for chunk in bytes.chunks(UPLOAD_BYTES) {
            tell::<_, (u32, u32)>(agent, canister, "upload", (ByteBuf::from(chunk),))?;
        }
        Ok(Box::new(Network { canister, weights }))
    }
}

/// Small, of both signs, without a pattern.
fn weight(index: u32) -> f32 {
    let mixed = index.wrapping_mul(0x9e37_79b1) ^ (index >> 3);
    (f32::from((mixed >> 16) as u16) / 65_536.0 - 0.5) / 4.0
}

fn picture(choices: &mut ChaCha8Rng) -> Vec<u8> {
    let mut picture = vec![0; SIDE * SIDE];
    choices.fill(&mut picture[..]);
    picture
}

impl Network {
    /// The scores, layer by layer, every sum in the canister's order: floats forgive nothing else.
    fn scores(&self, picture: &[u8]) -> Vec<f32> {
        let pixel = |row: usize, column: usize| f32::from(picture[row * SIDE + column]) / 255.0;
        let kernel = |channel: usize, place: usize| self.weights[channel * KERNEL * KERNEL + place];
        let bias = |channel: usize| self.weights[CHANNELS * KERNEL * KERNEL + channel];
        let convolved = |channel: usize, row: usize, column: usize| {
            (0..KERNEL * KERNEL).fold(bias(channel), |sum, place| {
                sum + kernel(channel, place) * pixel(row + place / KERNEL, column + place % KERNEL)
            })
        };
        let feature = |number: usize| {
            let (channel, place) = (number / (POOLED * POOLED), number % (POOLED * POOLED));
            let (row, column) = (place / POOLED * 2, place % POOLED * 2);
            let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
            let values = corners.map(|(down, right)| convolved(channel, row + down, column + right));
            values.into_iter().fold(0.0, f32::max)
        };
        let features: Vec<f32> = (0..FEATURES).map(feature).collect();
        let first = CHANNELS * KERNEL * KERNEL + CHANNELS;
        let hidden = self.dense(first, &features, HIDDEN);
        let hidden: Vec<f32> = hidden.into_iter().map(|value| value.max(0.0)).collect();
        self.dense(first + HIDDEN * FEATURES + HIDDEN, &hidden, CLASSES)
    }

    /// A dense layer whose weights begin at `first`: a row for each output, then the biases.
    fn dense(&self, first: usize, inputs: &[f32], outputs: usize) -> Vec<f32> {
        let output = |number: usize| {
            let row = &self.weights[first + number * inputs.len()..][..inputs.len()];
            let bias = self.weights[first + outputs * inputs.len() + number];
            row.iter()
                .zip(inputs)
                .fold(bias, |sum, (weight, input)| sum + weight * input)
        };
        (0..outputs).map(output).collect()
    }
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

impl Deployed for Network {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, _user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let (kind, method, argument) = match choices.random_range(0..5) {
            0 => {
                let seed: u32 = choices.random();
                (Kind::Call, "matrix_trace", arguments_of((MATRIX, seed))?)
            }
            _ => (
                Kind::Query,
                "classify",
                arguments_of((ByteBuf::from(picture(choices)),))?,
            ),
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: 0,
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        let is_right = if operation.kind == Kind::Call {
            let (size, seed) = reply_of::<(u32, u32)>(&operation.argument)?;
            let expected = matrix_trace(size as usize, seed);
            reply_of::<(f64,)>(reply)?.0.to_bits() == expected.to_bits()
        } else {
            let (picture,) = reply_of::<(ByteBuf,)>(&operation.argument)?;
            let (scores,) = reply_of::<(Result<Vec<f32>, String>,)>(reply)?;
            let scores = scores.map_err(WorkloadError::Unexpected)?;
            let bits = |score: &f32| score.to_bits();
            scores.iter().map(bits).eq(self.scores(&picture).iter().map(bits))
        };
        if is_right {
            return Ok(());
        }
        let method = operation.method;
        Err(WorkloadError::unexpected(format!("{method}: another result than here")))
    }

    /// Every result was compared as it came; nothing is left to check.
    fn check(&self, _agent: &mut Agent, _is_exact: bool) -> Result<(), WorkloadError> {
        Ok(())
    }
}
