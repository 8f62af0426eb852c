//! The transcript format: small canisters, a script of messages, and what a replica answered to each.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One transcript file.
#[derive(Debug, Deserialize)]
pub struct Transcript {
    /// Name of the case.
    pub name: String,
    /// The subnet it ran on.
    pub subnet: Subnet,
    /// Alias of a canister to its id in that run.
    pub canister_ids: BTreeMap<String, CanisterName>,
    /// Modules by name.
    pub modules: BTreeMap<String, Module>,
    /// The script.
    pub steps: Vec<Step>,
    /// Heap hashes of this case depend on randomness and are not compared.
    #[serde(default)]
    pub no_heap_hash: serde_json::Value,
}

/// Subnet settings of a case.
#[derive(Debug, Deserialize)]
pub struct Subnet {
    /// `application` or `system`, ...
    #[serde(rename = "type")]
    pub subnet_type: String,
    /// Nodes that fees are scaled to.
    pub size: u32,
    /// `normal` or `free`.
    pub cost_schedule: String,
    /// Heap-delta and install-code rate limits are off.
    #[serde(default)]
    pub no_rate_limit: bool,
    /// The subnet held threshold keys: ECDSA, Ed25519 and vetKeys.
    #[serde(default)]
    pub chain_keys: bool,
}

/// A canister id in its two spellings.
#[derive(Debug, Deserialize)]
pub struct CanisterName {
    /// Bytes, in hexadecimal.
    pub hex: String,
}

/// A Wasm module; exactly one of the fields has the bytes or says where they are.
#[derive(Debug, Deserialize)]
pub struct Module {
    wasm_hex: Option<String>,
    wasm_gz_b64: Option<String>,
    /// A file with the bytes; a relative name is seen from the folder of the transcript.
    file: Option<PathBuf>,
    /// What the bytes must hash to, where it is given.
    wasm_sha256: Option<String>,
}

/// One step of the script.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// What to do; messages inside a batch name nothing, they are updates.
    #[serde(default)]
    pub op: String,
    /// The alias that a `create` binds.
    pub creates: Option<String>,
    /// Alias of the canister addressed.
    pub canister: Option<String>,
    /// Method called.
    pub method: Option<String>,
    arg_hex: Option<String>,
    arg_gz_b64: Option<String>,
    sender: Option<String>,
    /// Install mode.
    pub mode: Option<String>,
    /// Name of the module to install.
    pub module: Option<String>,
    /// Options of an upgrade.
    pub upgrade_options: Option<UpgradeOptions>,
    /// Into the batch without the ingress filter.
    #[serde(default)]
    pub bypass_filter: bool,
    /// Messages of a `batch`.
    #[serde(default)]
    pub messages: Vec<Step>,
    /// Name under which a `submit` is awaited later.
    pub tag: Option<String>,
    /// Rounds of a `tick`.
    #[serde(default)]
    pub n: u64,
    /// Nanoseconds of an `advance_time`.
    #[serde(default)]
    pub ns: u64,
    /// Bound on the rounds of an `await`.
    pub max_rounds: Option<u64>,
    /// What was answered; messages inside a batch have none.
    pub expect: Option<Expect>,
}

/// Options of an upgrade.
#[derive(Debug, Deserialize)]
pub struct UpgradeOptions {
    /// `skip_pre_upgrade`
    pub skip_pre_upgrade: Option<bool>,
    /// `keep` or `replace`
    pub wasm_memory_persistence: Option<String>,
}

/// What a replica answered.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Expect {
    /// `reply`, `reject`, `submitted`, `pending`, `batch`, `ok`, `http_error`
    pub kind: String,
    /// Reply bytes.
    pub reply_hex: Option<String>,
    /// Length of a long reply.
    pub reply_len: Option<usize>,
    /// SHA-256 of a long reply.
    pub reply_sha256: Option<String>,
    /// Reject code.
    pub reject_code: Option<u64>,
    /// `IC0nnn`
    pub error_code: Option<String>,
    /// Reject text.
    pub reject_message: Option<String>,
    /// `ingress_filter` where the message never entered a batch.
    pub phase: Option<String>,
    /// Rounds that the step took.
    pub rounds: Option<u64>,
    /// Batch time after the step.
    pub time_ns_after: Option<u64>,
    /// Ingress induction fee of this message.
    pub ingress_fee: Option<String>,
    /// Answers of a `batch`.
    pub results: Vec<Expect>,
    /// State that changed, by alias.
    pub after: BTreeMap<String, Option<BTreeMap<String, serde_json::Value>>>,
}

/// Why a transcript cannot be read.
#[derive(Debug)]
pub struct TranscriptError(String);

impl fmt::Display for TranscriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TranscriptError {}

impl TranscriptError {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }
}

impl Transcript {
    /// Reads one file.
    ///
    /// # Errors
    /// The file cannot be read or is not of this format.
    pub fn read(path: &Path) -> Result<Self, TranscriptError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| TranscriptError(format!("cannot be read: {error}")))?;
        let mut transcript: Self =
            serde_json::from_str(&text).map_err(|error| TranscriptError(format!("is not a transcript: {error}")))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in transcript
            .modules
            .values_mut()
            .filter_map(|module| module.file.as_mut())
        {
            *file = folder.join(&*file);
        }
        Ok(transcript)
    }
}

impl Module {
    /// The bytes to install.
    ///
    /// # Errors
    /// No field leads to bytes, or to others than those with the given hash.
    pub fn bytes(&self) -> Result<Vec<u8>, TranscriptError> {
        let bytes = match (&self.wasm_hex, &self.wasm_gz_b64, &self.file) {
            (Some(text), _, _) => hex::decode(text).map_err(|error| TranscriptError(format!("module: {error}")))?,
            (None, Some(text), _) => gunzip_base64(text)?,
            (None, None, Some(file)) => std::fs::read(file)
                .map_err(|error| TranscriptError(format!("module {} cannot be read: {error}", file.display())))?,
            (None, None, None) => return Err(TranscriptError("a module without bytes".into())),
        };
        let hash = hex::encode(Sha256::digest(&bytes));
        match &self.wasm_sha256 {
            Some(expected) if *expected != hash => Err(TranscriptError(format!(
                "a module with hash {hash} instead of {expected}"
            ))),
            _ => Ok(bytes),
        }
    }
}

impl Step {
    /// The argument, with `{A}` replaced by the id bytes of alias A.
    ///
    /// # Errors
    /// The argument is not hexadecimal or names an unknown alias.
    pub fn argument(&self, ids: &BTreeMap<String, CanisterName>) -> Result<Vec<u8>, TranscriptError> {
        match (&self.arg_hex, &self.arg_gz_b64) {
            (Some(text), _) => expand(text, ids),
            (None, Some(text)) => gunzip_base64(text),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// The sender's principal bytes; anonymous where none is given.
    ///
    /// # Errors
    /// As for [`Step::argument`].
    pub fn sender(&self, ids: &BTreeMap<String, CanisterName>) -> Result<Vec<u8>, TranscriptError> {
        self.sender.as_deref().map_or(Ok(vec![4]), |text| expand(text, ids))
    }
}

fn expand(text: &str, ids: &BTreeMap<String, CanisterName>) -> Result<Vec<u8>, TranscriptError> {
    let expanded = ids.iter().fold(text.to_owned(), |text, (alias, id)| {
        text.replace(&format!("{{{alias}}}"), &id.hex)
    });
    hex::decode(&expanded).map_err(|error| TranscriptError(format!("argument `{expanded}`: {error}")))
}

fn gunzip_base64(text: &str) -> Result<Vec<u8>, TranscriptError> {
    use base64::Engine;
    let compressed = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|error| TranscriptError(format!("base64: {error}")))?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&compressed[..])
        .read_to_end(&mut bytes)
        .map_err(|error| TranscriptError(format!("gzip: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the module in a transcript with these fields of it, beside a file `real.wasm` with `bytes`.
    fn module_bytes(fields: &str, bytes: &[u8]) -> Result<Vec<u8>, TranscriptError> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("real.wasm"), bytes).expect("a module");
        let path = folder.path().join("case.json");
        let text = format!(
            r#"{{"name": "case", "subnet": {{"type": "application", "size": 13, "cost_schedule": "normal"}},
                "canister_ids": {{}}, "modules": {{"A": {{{fields}}}}}, "steps": []}}"#
        );
        std::fs::write(&path, text).expect("a transcript");
        Transcript::read(&path)?.modules["A"].bytes()
    }

    #[test]
    fn a_module_is_read_from_beside_its_transcript() {
        let hash = hex::encode(Sha256::digest(b"module"));
        let fields = format!(r#""file": "real.wasm", "wasm_sha256": "{hash}""#);
        assert_eq!(module_bytes(&fields, b"module").expect("bytes"), b"module");
        let error = module_bytes(&fields, b"another")
            .expect_err("another module")
            .to_string();
        assert!(error.contains(&format!("instead of {hash}")), "{error}");
        let error = module_bytes(r#""file": "missing.wasm""#, b"")
            .expect_err("no file")
            .to_string();
        assert!(error.contains("missing.wasm cannot be read"), "{error}");
        let error = module_bytes(r#""wat": "(module)""#, b"")
            .expect_err("no bytes")
            .to_string();
        assert!(error.contains("a module without bytes"), "{error}");
    }
}
