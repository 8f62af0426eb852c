//! Work for the processor alone: hash chains, QR codes, pictures made smaller, a fractal. Interface: `compute.did`.

use qrcodegen::{QrCode, QrCodeEcc};
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

/// The QR code of a text at medium error correction: its side, and a byte per module, row by row.
#[ic_cdk::query]
fn qr_code(text: String) -> Result<(u32, ByteBuf), String> {
    let code = QrCode::encode_text(&text, QrCodeEcc::Medium).map_err(|error| error.to_string())?;
    let side = code.size();
    let modules: Vec<u8> = (0..side * side).map(|place| u8::from(code.get_module(place % side, place / side))).collect();
    Ok((side as u32, ByteBuf::from(modules)))
}

/// A picture of three bytes a pixel, `width` wide, made smaller by averaging squares of `factor` by `factor` pixels: the
/// thumbnail of an upload.
#[ic_cdk::update]
fn thumbnail(picture: ByteBuf, width: u32, factor: u32) -> ByteBuf {
    let (width, factor) = (width.max(1) as usize, factor.max(1) as usize);
    let height = picture.len() / 3 / width;
    let (across, down) = (width / factor, height / factor);
    let mut thumbnail = Vec::with_capacity(across * down * 3);
    for (row, column, channel) in (0..across * down * 3).map(|place| (place / 3 / across, place / 3 % across, place % 3)) {
        let pixels = (0..factor * factor).map(|place| (row * factor + place / factor, column * factor + place % factor));
        let sum: u32 = pixels.map(|(y, x)| u32::from(picture[(y * width + x) * 3 + channel])).sum();
        thumbnail.push((sum / (factor * factor) as u32) as u8);
    }
    ByteBuf::from(thumbnail)
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
