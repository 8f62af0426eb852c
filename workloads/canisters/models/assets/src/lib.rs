//! A web site: uploads in chunks, certified answers to HTTP requests as gateways check them. Interface: `assets.did`.

use candid::{CandidType, Deserialize, Nat, define_function};
use ic_certified_map::{AsHashTree, Hash, RbTree, labeled, labeled_hash};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;

const LABEL: &[u8] = b"http_assets";

/// Of an asset in one answer: with its certificate it stays below the two megabytes that an answer may have.
const BODY_BYTES_MAX: usize = 1_900_000;

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
    streaming_strategy: Option<StreamingStrategy>,
}

/// Where the rest of a large asset is to be had.
#[derive(CandidType, Deserialize)]
enum StreamingStrategy {
    Callback { callback: StreamingCallback, token: StreamingToken },
}

define_function!(StreamingCallback : (StreamingToken) -> (Option<StreamingResponse>) query);

#[derive(CandidType, Deserialize)]
struct StreamingToken {
    key: String,
    content_encoding: String,
    index: Nat,
    sha256: Option<ByteBuf>,
}

#[derive(CandidType, Deserialize)]
struct StreamingResponse {
    body: ByteBuf,
    token: Option<StreamingToken>,
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
            return HttpResponse { status_code: 404, headers: Vec::new(), body: ByteBuf::new(), streaming_strategy: None };
        };
        let certificate = ic_cdk::api::data_certificate().unwrap_or_default();
        let witness = labeled(LABEL, site.hashes.witness(path.as_bytes()));
        let mut tree = Vec::new();
        write_tree(&witness, &mut tree);
        let header = format!("certificate=:{}:, tree=:{}:", base64(&certificate), base64(&tree));
        let headers = vec![("IC-Certificate".to_owned(), header)];
        let (body, token) = part(path, asset, 0);
        let callback = StreamingCallback::new(ic_cdk::api::canister_self(), "http_request_streaming_callback".to_owned());
        let streaming_strategy = token.map(|token| StreamingStrategy::Callback { callback, token });
        HttpResponse { status_code: 200, headers, body, streaming_strategy }
    })
}

/// The part of a large asset that a token stands for, and the token of the one after it. The certificate came with the first.
#[ic_cdk::query]
fn http_request_streaming_callback(token: StreamingToken) -> Option<StreamingResponse> {
    SITE.with_borrow(|site| {
        let asset = site.assets.get(&token.key)?;
        let (body, token) = part(&token.key, asset, usize::try_from(&token.index.0).ok()?);
        Some(StreamingResponse { body, token })
    })
}

fn part(path: &str, asset: &[u8], index: usize) -> (ByteBuf, Option<StreamingToken>) {
    let mut parts = asset.chunks(BODY_BYTES_MAX).skip(index);
    let body = ByteBuf::from(parts.next().unwrap_or_default());
    let next = StreamingToken {
        key: path.to_owned(),
        content_encoding: "identity".to_owned(),
        index: Nat::from(index + 1),
        sha256: None,
    };
    (body, parts.next().map(|_| next))
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
