//! A web site: pages and pictures uploaded in chunks, fetched as a gateway fetches them, each checked against its certificate.
//!
//! Stands for front ends hosted on canisters: sizes between 1 KiB and some 60 KiB, popularity by Zipf's law, a new upload
//! for one request in fifty.

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
use candid::{CandidType, Deserialize, Principal};
use ic_certification::LookupResult;
use ic_certification::hash_tree::HashTree;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

const CHUNK_BYTES: usize = 16 * 1_024;
const ASSETS_MAX: u64 = 200;

/// The model.
pub struct Assets;

struct Site {
    canister: Principal,
    count: u64,
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
            for (index, chunk) in content(number).chunks(CHUNK_BYTES).enumerate() {
                let argument = (path(number), index as u32, ByteBuf::from(chunk));
                tell::<_, ()>(agent, canister, "put_chunk", argument)?;
            }
            tell::<_, (u64,)>(agent, canister, "publish", (path(number),))?;
        }
        Ok(Box::new(Site {
            canister,
            count,
            popularity: Zipf::new(count as usize, 1.0),
        }))
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

impl Deployed for Site {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let number = self.popularity.choose(choices) as u64;
        let (kind, method, argument) = if choices.random_range(0..50) == 0 {
            let chunk = ByteBuf::from(vec![user as u8; CHUNK_BYTES]);
            (
                Kind::Call,
                "put_chunk",
                arguments_of((format!("/draft/{user}"), 0_u32, chunk))?,
            )
        } else {
            let request = HttpRequest {
                method: "GET".into(),
                url: path(number),
                headers: vec![("accept-encoding".into(), "identity".into())],
                body: ByteBuf::new(),
            };
            (Kind::Query, "http_request", arguments_of((request,))?)
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
        let (response,) = reply_of::<(HttpResponse,)>(reply)?;
        let path = path(operation.expected);
        if response.status_code != 200 || response.body != content(operation.expected) {
            return Err(WorkloadError::Unexpected(format!("{path}: another asset")));
        }
        certified(&response, &path, self.canister).map_err(|what| WorkloadError::Unexpected(format!("{path}: {what}")))
    }

    /// The last asset of the site is still there, whole and certified.
    fn check(&self, agent: &mut Agent, _is_exact: bool) -> Result<(), WorkloadError> {
        let request = HttpRequest {
            method: "GET".into(),
            url: path(self.count - 1),
            headers: Vec::new(),
            body: ByteBuf::new(),
        };
        let (response,) = ask::<_, (HttpResponse,)>(agent, self.canister, "http_request", (request,))?;
        certified(&response, &path(self.count - 1), self.canister).map_err(WorkloadError::Unexpected)
    }
}

/// Checks the `IC-Certificate` header (version 1 of the HTTP gateway protocol). The signature on the certificate's root is
/// checked with the answers to updates, which carry the same roots.
fn certified(response: &HttpResponse, path: &str, canister: Principal) -> Result<(), String> {
    let header = response.headers.iter().find(|(name, _)| name == "IC-Certificate");
    let (_, header) = header.ok_or("no certificate")?;
    let part = |name: &str| {
        let rest = header.split_once(&format!("{name}=:"))?.1;
        STANDARD.decode(rest.split(':').next()?).ok()
    };
    let certificate = part("certificate").ok_or("no certificate")?;
    let tree = part("tree").ok_or("no tree")?;
    let tree = decode_tree(&tree).map_err(|error| error.to_string())?;
    let body: [u8; 32] = Sha256::digest(&response.body).into();
    if !holds(&tree, &[b"http_assets", path.as_bytes()], &body) {
        return Err("the tree does not hold the hash of the body".into());
    }
    let data = certified_data(&certificate, canister).map_err(|error| error.to_string())?;
    if data == tree.digest() {
        return Ok(());
    }
    Err("the certificate vouches for another tree".into())
}

fn holds(tree: &HashTree<&[u8]>, path: &[&[u8]], hash: &[u8]) -> bool {
    matches!(tree.lookup_path(path), LookupResult::Found(value) if value == hash)
}
