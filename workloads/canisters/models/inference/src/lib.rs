//! Machine learning: a small convolutional network in f32, a dense product in f64. Interface: `inference.did`.

use serde_bytes::ByteBuf;
use std::cell::RefCell;

/// Pictures are square, of one channel.
const SIDE: usize = 28;
const KERNEL: usize = 5;
const CHANNELS: usize = 8;
/// After the convolution, and after taking the largest of two by two.
const CONVOLVED: usize = SIDE - KERNEL + 1;
const POOLED: usize = CONVOLVED / 2;
const FEATURES: usize = CHANNELS * POOLED * POOLED;
const HIDDEN: usize = 64;
const CLASSES: usize = 10;
const WEIGHTS: usize = CHANNELS * KERNEL * KERNEL + CHANNELS + HIDDEN * FEATURES + HIDDEN + CLASSES * HIDDEN + CLASSES;

thread_local! {
    static WEIGHTS_UPLOADED: RefCell<Vec<f32>> = RefCell::default();
}

/// Appends weights, little-endian, in the order in which the layers use them; answers how many there are and how many the
/// network has.
#[ic_cdk::update]
fn upload(weights: ByteBuf) -> (u32, u32) {
    WEIGHTS_UPLOADED.with_borrow_mut(|all| {
        all.extend(weights.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])));
        (all.len() as u32, WEIGHTS as u32)
    })
}

/// The scores of the classes for a picture of 28 by 28 bytes.
#[ic_cdk::query]
fn classify(picture: ByteBuf) -> Result<Vec<f32>, String> {
    WEIGHTS_UPLOADED.with_borrow(|weights| {
        if weights.len() != WEIGHTS || picture.len() != SIDE * SIDE {
            return Err(format!("{} of {WEIGHTS} weights, {} bytes of picture", weights.len(), picture.len()));
        }
        Ok(scores(weights, &picture))
    })
}

fn scores(weights: &[f32], picture: &[u8]) -> Vec<f32> {
    let pixels: Vec<f32> = picture.iter().map(|byte| f32::from(*byte) / 255.0).collect();
    let (kernels, rest) = weights.split_at(CHANNELS * KERNEL * KERNEL);
    let (biases, rest) = rest.split_at(CHANNELS);
    let mut features = Vec::with_capacity(FEATURES);
    for (kernel, bias) in kernels.chunks_exact(KERNEL * KERNEL).zip(biases) {
        let convolved = convolve(&pixels, kernel, *bias);
        for (row, column) in (0..POOLED * POOLED).map(|place| (place / POOLED * 2, place % POOLED * 2)) {
            let at = |down: usize, right: usize| convolved[(row + down) * CONVOLVED + column + right];
            features.push(at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1)).max(0.0));
        }
    }
    let (hidden, rest) = dense(rest, &features, HIDDEN);
    let hidden: Vec<f32> = hidden.into_iter().map(|value| value.max(0.0)).collect();
    dense(rest, &hidden, CLASSES).0
}

fn convolve(pixels: &[f32], kernel: &[f32], bias: f32) -> Vec<f32> {
    let mut convolved = vec![bias; CONVOLVED * CONVOLVED];
    for row in 0..CONVOLVED {
        for column in 0..CONVOLVED {
            for (place, weight) in kernel.iter().enumerate() {
                let pixel = pixels[(row + place / KERNEL) * SIDE + column + place % KERNEL];
                convolved[row * CONVOLVED + column] += weight * pixel;
            }
        }
    }
    convolved
}

/// A dense layer of so many outputs, and the weights after its own.
fn dense<'a>(weights: &'a [f32], inputs: &[f32], outputs: usize) -> (Vec<f32>, &'a [f32]) {
    let (matrix, rest) = weights.split_at(outputs * inputs.len());
    let (biases, rest) = rest.split_at(outputs);
    let row = |(row, bias): (&[f32], &f32)| row.iter().zip(inputs).fold(*bias, |sum, (weight, input)| sum + weight * input);
    (matrix.chunks_exact(inputs.len()).zip(biases).map(row).collect(), rest)
}

/// The trace of `a` times `a`, where `a` is square of this size with entries made from the seed: the inner loop of training
/// and of statistics, in f64.
#[ic_cdk::update]
fn matrix_trace(size: u32, seed: u32) -> f64 {
    let size = size.min(512) as usize;
    let matrix: Vec<f64> = (0..size * size).map(|index| entry(index, seed)).collect();
    let mut product = vec![0.0; size * size];
    for row in 0..size {
        for middle in 0..size {
            let factor = matrix[row * size + middle];
            for column in 0..size {
                product[row * size + column] += factor * matrix[middle * size + column];
            }
        }
    }
    (0..size).map(|place| product[place * size + place]).sum()
}

fn entry(index: usize, seed: u32) -> f64 {
    let mixed = (index as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
    f64::from(mixed >> 8) / f64::from(1_u32 << 24) - 0.5
}
