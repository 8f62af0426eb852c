//! Work for the processor alone: hash chains, matrices in f64, an image. Interface: `compute.did`.

use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

/// SHA-256 of the seed, hashed again `rounds` times.
#[ic_cdk::update]
fn hash_chain(seed: ByteBuf, rounds: u32) -> ByteBuf {
    let mut digest: [u8; 32] = Sha256::digest(&seed).into();
    for _ in 0..rounds {
        digest = Sha256::digest(digest).into();
    }
    ByteBuf::from(digest)
}

/// The trace of `a` times `a`, where `a` is square of this size with entries made from the seed: a dense layer's inner loop.
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

/// Iterations that a Mandelbrot picture of this width and height takes altogether, at most 255 a point.
#[ic_cdk::query]
fn mandelbrot(width: u32, height: u32) -> u64 {
    let (width, height) = (width.min(1_024), height.min(1_024));
    let mut sum = 0;
    for row in 0..height {
        for column in 0..width {
            let (re, im) = (f64::from(column) / f64::from(width) * 3.0 - 2.0, f64::from(row) / f64::from(height) * 2.0 - 1.0);
            let (mut x, mut y, mut count) = (0.0, 0.0, 0_u64);
            while x * x + y * y <= 4.0 && count < 255 {
                (x, y) = (x * x - y * y + re, 2.0 * x * y + im);
                count += 1;
            }
            sum += count;
        }
    }
    sum
}
