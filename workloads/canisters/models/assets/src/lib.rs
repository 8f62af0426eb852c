//! A web site: uploads in chunks, certified answers to HTTP requests as gateways check them. Interface: `assets.did`.

use candid::{CandidType, Deserialize};
use ic_certified_map::{AsHashTree, Hash, RbTree, labeled, labeled_hash};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;

const LABEL: &[u8] = b"http_assets";

#[derive(CandidType, Deserialize)]
struct HttpRequest {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: ByteBuf,
}

#[derive(CandidType, Deserialize)]
struct HttpResponse {
    status_code: u16,
    headers: Vec<(String, String)>,
    body: ByteBuf,
}

#[derive(Default)]
struct Site {
    uploads: BTreeMap<(String, u32), Vec<u8>>,
    assets: BTreeMap<String, Vec<u8>>,
    hashes: RbTree<String, Hash>,
}

thread_local! {
    static SITE: RefCell<Site> = RefCell::default();
}

/// Takes one chunk of an upload.
#[ic_cdk::update]
fn put_chunk(path: String, index: u32, bytes: ByteBuf) {
    SITE.with_borrow_mut(|site| site.uploads.insert((path, index), bytes.into_vec()));
}

/// Publishes the chunks uploaded for a path, in their order, and answers the asset's size.
#[ic_cdk::update]
fn publish(path: String) -> u64 {
    SITE.with_borrow_mut(|site| {
        let mut asset = Vec::new();
        let keys: Vec<_> = site.uploads.range((path.clone(), 0)..=(path.clone(), u32::MAX)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            asset.extend(site.uploads.remove(&key).unwrap_or_default());
        }
        site.hashes.insert(path.clone(), Sha256::digest(&asset).into());
        ic_cdk::api::certified_data_set(labeled_hash(LABEL, &site.hashes.root_hash()));
        let bytes = asset.len() as u64;
        site.assets.insert(path, asset);
        bytes
    })
}

#[ic_cdk::query]
fn http_request(request: HttpRequest) -> HttpResponse {
    let path = request.url.split('?').next().unwrap_or_default();
    SITE.with_borrow(|site| {
        let Some(asset) = site.assets.get(path) else {
            return HttpResponse { status_code: 404, headers: Vec::new(), body: ByteBuf::new() };
        };
        let certificate = ic_cdk::api::data_certificate().unwrap_or_default();
        let witness = labeled(LABEL, site.hashes.witness(path.as_bytes()));
        let mut tree = Vec::new();
        write_tree(&witness, &mut tree);
        let header = format!("certificate=:{}:, tree=:{}:", base64(&certificate), base64(&tree));
        let headers = vec![("IC-Certificate".to_owned(), header)];
        HttpResponse { status_code: 200, headers, body: ByteBuf::from(asset.clone()) }
    })
}

/// CBOR of a hash tree, as certificates carry it: self-described, arrays of a number and its parts.
fn write_tree(tree: &ic_certified_map::HashTree, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd9, 0xd9, 0xf7]);
    write_node(tree, out);
}

fn write_node(tree: &ic_certified_map::HashTree, out: &mut Vec<u8>) {
    use ic_certified_map::HashTree::{Empty, Fork, Labeled, Leaf, Pruned};
    match tree {
        Empty => out.extend_from_slice(&[0x81, 0]),
        Fork(both) => {
            out.extend_from_slice(&[0x83, 1]);
            write_node(&both.0, out);
            write_node(&both.1, out);
        }
        Labeled(label, tree) => {
            out.extend_from_slice(&[0x83, 2]);
            write_bytes(label, out);
            write_node(tree, out);
        }
        Leaf(bytes) => {
            out.extend_from_slice(&[0x82, 3]);
            write_bytes(bytes, out);
        }
        Pruned(hash) => {
            out.extend_from_slice(&[0x82, 4]);
            write_bytes(hash, out);
        }
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(bytes.len()).expect("labels and hashes are short");
    out.push(0x59);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
