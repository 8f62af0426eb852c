//! A web site: pages, pictures and a film, uploaded in chunks, fetched as a gateway fetches them, checked against certificates.
//!
//! Stands for front ends hosted on canisters. Chunks of 1.9 MB for what is large, answers that hold the first part and a
//! callback for the rest, and the certification of bodies are those of DFINITY's asset canister and the HTTP gateway protocol
//! (version 1). Sizes lie between 1 KiB and 64 KiB: the median page of October 2024 is made of 18 KB of HTML, of 24 scripts
//! with 613 KB (26 KB each) and of 18 images with 1,054 KB (59 KB each), by the HTTP Archive's Web Almanac 2024, chapter "Page
//! Weight". Which of them is fetched follows Zipf's law with exponent 1, somewhat steeper than the 0.64 to 0.83 that proxies
//! see (Breslau et al., "Web Caching and Zipf-like Distributions", 1999), since a site's home page is not shared with others.
//! That one request in fifty is an upload and one a part of the film are guesses. The film has 8 KiB for every item, 2.5 MB at
//! least.

use crate::agent::Agent;
use crate::canisters;
use crate::certificate::{certified_data, decode_tree};
use crate::error::{WorkloadError, arguments_of, ask, reply_of, tell};
use crate::management::deploy;
use crate::request::Kind;
use crate::skew::Zipf;
use crate::workload::{Deployed, Operation, Scale, Workload};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use candid::{CandidType, Deserialize, Nat, Principal, define_function};
use ic_certification::LookupResult;
use ic_certification::hash_tree::HashTree;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

const CHUNK_BYTES: usize = 16 * 1_024;
const ASSETS_MAX: u64 = 200;
/// Of the film: what fits into a message, and what an answer gives at once.
const PART_BYTES: usize = 1_900_000;
const FILM: &str = "/film";
const FILM_BYTES_PER_ITEM: u64 = 8_192;
const FILM_BYTES: std::ops::RangeInclusive<u64> = 2_500_000..=1 << 26;

/// The model.
pub struct Assets;

struct Site {
    canister: Principal,
    count: u64,
    film_bytes: usize,
    popularity: Zipf,
}

#[derive(CandidType)]
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

#[derive(CandidType, Deserialize)]
enum StreamingStrategy {
    Callback {
        callback: StreamingCallback,
        token: StreamingToken,
    },
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

impl Workload for Assets {
    fn name(&self) -> &'static str {
        "assets"
    }

    fn about(&self) -> &'static str {
        "a web site: certified HTTP answers, uploads in chunks"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::ASSETS, &[])?;
        let count = scale.items.clamp(1, ASSETS_MAX);
        for number in 0..count {
            upload(agent, canister, &path(number), &content(number), CHUNK_BYTES)?;
        }
        let film_bytes = (scale.items * FILM_BYTES_PER_ITEM).clamp(*FILM_BYTES.start(), *FILM_BYTES.end()) as usize;
        upload(agent, canister, FILM, &film(0..film_bytes), PART_BYTES)?;
        Ok(Box::new(Site {
            canister,
            count,
            film_bytes,
            popularity: Zipf::new(count as usize, 1.0),
        }))
    }
}

fn upload(
    agent: &mut Agent,
    canister: Principal,
    path: &str,
    content: &[u8],
    chunk_bytes: usize,
) -> Result<(), WorkloadError> {
    for (index, chunk) in content.chunks(chunk_bytes).enumerate() {
        let argument = (path, index as u32, ByteBuf::from(chunk));
        tell::<_, ()>(agent, canister, "put_chunk", argument)?;
    }
    let (bytes,) = tell::<_, (u64,)>(agent, canister, "publish", (path,))?;
    match bytes == content.len() as u64 {
        true => Ok(()),
        false => Err(WorkloadError::unexpected(format!("{path}: {bytes} bytes arrived"))),
    }
}

fn path(number: u64) -> String {
    format!("/asset/{number}")
}

/// Larger ones are rarer: 1 KiB, and twice as much for every factor of three in the number.
fn content(number: u64) -> Vec<u8> {
    let doublings = (0..6)
        .take_while(|power| (number + 1).is_multiple_of(3_u64.pow(power + 1)))
        .count();
    (0..1_024_usize << doublings)
        .map(|place| (place as u64 * (number + 1)) as u8)
        .collect()
}

/// A stretch of the film.
fn film(bytes: std::ops::Range<usize>) -> Vec<u8> {
    bytes.map(|place| ((place as u64 * 0x9e37_79b9) >> 13) as u8).collect()
}

impl Site {
    fn part_of_film(&self, number: usize) -> Vec<u8> {
        film(number * PART_BYTES..self.film_bytes.min((number + 1) * PART_BYTES))
    }

    fn get(path: String) -> HttpRequest {
        HttpRequest {
            method: "GET".into(),
            url: path,
            headers: vec![("accept-encoding".into(), "identity".into())],
            body: ByteBuf::new(),
        }
    }

    /// An asset as a gateway fetches it: the first part with its certificate, then the others. The signature is checked too.
    fn fetch(&self, agent: &mut Agent, path: String) -> Result<Vec<u8>, WorkloadError> {
        let request = (Self::get(path.clone()),);
        let (mut response,) = ask::<_, (HttpResponse,)>(agent, self.canister, "http_request", request)?;
        let mut body = std::mem::take(&mut response.body).into_vec();
        if let Some(StreamingStrategy::Callback { callback, token }) = response.streaming_strategy.take() {
            let mut next = Some(token);
            while let Some(token) = next {
                let method = &callback.0.method;
                let (part,) = ask::<_, (Option<StreamingResponse>,)>(agent, self.canister, method, (token,))?;
                let part = part.ok_or_else(|| WorkloadError::unexpected(format!("{path}: a part is missing")))?;
                body.extend_from_slice(&part.body);
                next = part.token;
            }
        }
        let certificate = certified(&response.headers, &body, &path, self.canister)
            .map_err(|what| WorkloadError::unexpected(format!("{path}: {what}")))?;
        agent.verify_root(&certificate)?;
        Ok(body)
    }
}

impl Deployed for Site {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let number = self.popularity.choose(choices) as u64;
        let (kind, method, argument) = match choices.random_range(0..50) {
            0 => {
                let chunk = ByteBuf::from(vec![user as u8; CHUNK_BYTES]);
                let argument = arguments_of((format!("/draft/{user}"), 0_u32, chunk))?;
                (Kind::Call, "put_chunk", argument)
            }
            1 => {
                let part = choices.random_range(0..self.film_bytes.div_ceil(PART_BYTES));
                let token = StreamingToken {
                    key: FILM.into(),
                    content_encoding: "identity".into(),
                    index: Nat::from(part),
                    sha256: None,
                };
                (Kind::Query, "http_request_streaming_callback", arguments_of((token,))?)
            }
            _ => (Kind::Query, "http_request", arguments_of((Self::get(path(number)),))?),
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: number,
        })
    }

    /// The body is the asset, its hash is in the tree that came along, and the certificate vouches for the tree's root.
    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        if operation.kind == Kind::Call {
            return reply_of::<()>(reply);
        }
        if operation.method != "http_request" {
            let (token,) = reply_of::<(StreamingToken,)>(&operation.argument)?;
            let (part,) = reply_of::<(Option<StreamingResponse>,)>(reply)?;
            let number = u64::try_from(&token.index.0).unwrap_or_default() as usize;
            return match part.is_some_and(|part| part.body[..] == self.part_of_film(number)) {
                true => Ok(()),
                false => Err(WorkloadError::unexpected(format!(
                    "part {number} of the film: another part"
                ))),
            };
        }
        let (response,) = reply_of::<(HttpResponse,)>(reply)?;
        let path = path(operation.expected);
        if response.status_code != 200 || response.body != content(operation.expected) {
            return Err(WorkloadError::Unexpected(format!("{path}: another asset")));
        }
        match certified(&response.headers, &response.body, &path, self.canister) {
            Ok(_) => Ok(()),
            Err(what) => Err(WorkloadError::unexpected(format!("{path}: {what}"))),
        }
    }

    /// The last asset of the site and the film are still there, whole and certified.
    fn check(&self, agent: &mut Agent, _is_exact: bool) -> Result<(), WorkloadError> {
        let last = self.count - 1;
        let is_whole = self.fetch(agent, path(last))? == content(last)
            && self.fetch(agent, FILM.to_owned())? == film(0..self.film_bytes);
        match is_whole {
            true => Ok(()),
            false => Err(WorkloadError::unexpected(
                "an asset is certified and not the one uploaded",
            )),
        }
    }
}

/// Checks the `IC-Certificate` header (version 1 of the HTTP gateway protocol) and gives the certificate. The signature on
/// its root is checked by [`Site::fetch`], and with the answers to updates, which carry the same roots.
fn certified(headers: &[(String, String)], body: &[u8], path: &str, canister: Principal) -> Result<Vec<u8>, String> {
    let header = headers.iter().find(|(name, _)| name == "IC-Certificate");
    let (_, header) = header.ok_or("no certificate")?;
    let part = |name: &str| {
        let rest = header.split_once(&format!("{name}=:"))?.1;
        STANDARD.decode(rest.split(':').next()?).ok()
    };
    let certificate = part("certificate").ok_or("no certificate")?;
    let tree = part("tree").ok_or("no tree")?;
    let tree = decode_tree(&tree).map_err(|error| error.to_string())?;
    let body: [u8; 32] = Sha256::digest(body).into();
    if !holds(&tree, &[b"http_assets", path.as_bytes()], &body) {
        return Err("the tree does not hold the hash of the body".into());
    }
    let data = certified_data(&certificate, canister).map_err(|error| error.to_string())?;
    if data == tree.digest() {
        return Ok(certificate);
    }
    Err("the certificate vouches for another tree".into())
}

fn holds(tree: &HashTree<&[u8]>, path: &[&[u8]], hash: &[u8]) -> bool {
    matches!(tree.lookup_path(path), LookupResult::Found(value) if value == hash)
}
