//! Executes a transcript's script, one round at a time.

use super::CaseResult;
use super::compare::{Answer, Facts, compare_answer, compare_facts, facts};
use super::transcript::{Expect, Step, Transcript, TranscriptError, UpgradeOptions};
use crate::StateMachine;
use crate::certification::RootKey;
use crate::machine::CANISTER_INDICES;
use crate::queries::evaluate;
use crate::snapshot::CertifiedSnapshot;
use candid::{CandidType, Encode, Principal};
use replicore_engine::{DataCertificate, Engine, EngineConfig};
use replicore_netstack::QueryResponse;
use replicore_scheduler::query::QueryCall;
use replicore_scheduler::state::Genesis;
use replicore_scheduler::{ReplicatedState, SchedulerCores, management};
use replicore_types::{
    Batch, CanisterId, CostSchedule, ErrorCode, Ingress, IngressState, InterfaceVersion, KeyName, KeyNames, MessageId,
    NodeId, Payload, PrincipalId, Randomness, SubnetConfig, SubnetId, SubnetType, ThresholdKeys, Time, UserError,
};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Batch time before the first round of every transcript.
const START: Time = Time(1_620_328_630_000_000_000);
/// Rounds after which an unanswered message is given up.
const ROUNDS_MAX: u64 = 100;
/// Lifetime given to every message: far beyond any time that a script advances.
const LIFETIME: Duration = Duration::from_secs(4 * 60);

/// The key of the subnet that the transcripts were recorded on, whose id follows from it. Canisters and error texts show
/// both.
const ROOT_KEY_DER: &str = "308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100\
    a55fa281a2e901445e1bdb95842760f7f59c8b90775b552ca9783b7d876a51905e52a7225f7c9f41ecdded00cd7390ec\
    0ac2d750fac93930ef93ffebfc401f17cd728c313bcb5c65217c14ca12013c19d13845d0845baad65ffb0acd25e35380";
/// Method whose answer is random.
const RANDOM_METHOD: &[u8] = b"raw_rand";

/// Runs every step and collects every difference.
///
/// # Errors
/// The transcript names something that it does not define.
pub fn run(transcript: &Transcript) -> Result<CaseResult, TranscriptError> {
    let mut harness = Harness::new(transcript)?;
    let mut result = CaseResult::default();
    for (number, step) in transcript.steps.iter().enumerate() {
        let label = step.method.as_deref().or(step.module.as_deref()).unwrap_or_default();
        let differences = harness.step(step)?;
        result.steps += 1;
        let named = differences
            .into_iter()
            .map(|difference| format!("step {number} ({} {label}): {difference}", step.op));
        result.differences.extend(named);
    }
    Ok(result)
}

struct Harness<'a> {
    transcript: &'a Transcript,
    machine: StateMachine,
    time: Time,
    /// The time was set since the last round.
    advanced: bool,
    nonce: u64,
    root_key: RootKey,
    submitted: BTreeMap<String, MessageId>,
    /// Canisters that have asked for random bytes: what their heaps hold is not comparable.
    random: BTreeSet<CanisterId>,
}

/// What a step did, before it is compared.
enum Done {
    Answer(Answer),
    Answers(Vec<Answer>),
    Nothing,
}

impl<'a> Harness<'a> {
    fn new(transcript: &'a Transcript) -> Result<Self, TranscriptError> {
        let subnet = &transcript.subnet;
        let config = SubnetConfig {
            subnet_type: if subnet.subnet_type == "system" {
                SubnetType::System
            } else {
                SubnetType::Application
            },
            size: subnet.size,
            cost_schedule: if subnet.cost_schedule == "free" {
                CostSchedule::Free
            } else {
                CostSchedule::Normal
            },
            rate_limits: !subnet.no_rate_limit,
            interface: InterfaceVersion::May2026,
            heartbeat_interval_ms: 0,
            threshold_keys: match subnet.chain_keys {
                true => {
                    let name = KeyNames::only(KeyName::Key1);
                    ThresholdKeys {
                        ecdsa_secp256k1: name,
                        schnorr_ed25519: name,
                        vetkd_bls12_381_g2: name,
                        ..ThresholdKeys::NONE
                    }
                }
                false => ThresholdKeys::NONE,
            },
        };
        let engine = Engine::new(EngineConfig::default()).map_err(|error| TranscriptError::new(error.to_string()))?;
        let engine = Arc::new(engine);
        Ok(Self {
            transcript,
            machine: reference_subnet(config, engine)?,
            time: START,
            advanced: false,
            nonce: 0,
            root_key: RootKey::from_seed(&[1; 32]).map_err(|error| TranscriptError::new(error.to_string()))?,
            submitted: BTreeMap::new(),
            random: BTreeSet::new(),
        })
    }

    fn step(&mut self, step: &Step) -> Result<Vec<String>, TranscriptError> {
        let Some(expect) = &step.expect else {
            return Ok(vec!["the step has no expectation".into()]);
        };
        let before = self.facts();
        let height = self.machine.state().metadata.height;
        let done = self.execute(step)?;
        let rounds = self.machine.state().metadata.height.0 - height.0;
        let asks_for_random = self.asks_for_random(step)?;
        if asks_for_random {
            self.random.insert(self.receiver(step)?);
        }
        let mut differences = self.compare(expect, &done, asks_for_random);
        if expect.rounds.is_some_and(|expected| expected != rounds) {
            differences.push(format!("rounds: expected {}, got {rounds}", expect.rounds.unwrap_or(0)));
        }
        // Later steps show batch times: keep in step with the transcript even where this one took other rounds.
        if let Some(time) = expect.time_ns_after {
            self.time = Time(time);
        }
        for alias in self.transcript.canister_ids.keys() {
            let canister = self.canister_id(alias)?;
            differences.extend(compare_facts(
                alias,
                expect.after.get(alias),
                before.get(alias.as_str()),
                self.machine.state().canister(&canister),
                self.transcript.no_heap_hash != serde_json::Value::Bool(true) && !self.random.contains(&canister),
            ));
        }
        Ok(differences)
    }

    fn compare(&self, expect: &Expect, done: &Done, random: bool) -> Vec<String> {
        match done {
            Done::Answer(answer) => compare_answer(expect, answer, random),
            Done::Answers(answers) => {
                let pairs = expect.results.iter().zip(answers).enumerate();
                pairs
                    .flat_map(|(number, (expect, answer))| {
                        compare_answer(expect, answer, random)
                            .into_iter()
                            .map(move |text| format!("message {number}: {text}"))
                    })
                    .collect()
            }
            Done::Nothing => Vec::new(),
        }
    }

    fn execute(&mut self, step: &Step) -> Result<Done, TranscriptError> {
        Ok(match step.op.as_str() {
            "create" | "install" | "update" | "management" if step.tag.is_none() => Done::Answer(self.call(step)?),
            "submit" | "management" => {
                let message = self.message(step)?;
                if let Some(tag) = &step.tag {
                    self.submitted.insert(tag.clone(), message.message_id);
                }
                self.round(vec![message]);
                Done::Nothing
            }
            "await" => {
                let id = step.tag.as_ref().and_then(|tag| self.submitted.get(tag)).copied();
                let id = id.unwrap_or(MessageId([0; 32]));
                Done::Answer(self.finish(&id, step.max_rounds.unwrap_or(ROUNDS_MAX)))
            }
            "batch" => {
                let messages = step
                    .messages
                    .iter()
                    .map(|step| self.message(step))
                    .collect::<Result<Vec<_>, _>>()?;
                let ids: Vec<_> = messages.iter().map(|message| message.message_id).collect();
                self.round(messages);
                Done::Answers(ids.iter().map(|id| self.finish(id, ROUNDS_MAX)).collect())
            }
            "query" => Done::Answer(self.query(step)?),
            "tick" => {
                (0..step.n).for_each(|_| self.round(Vec::new()));
                Done::Nothing
            }
            "checkpoint" => {
                self.round(Vec::new());
                Done::Nothing
            }
            "advance_time" => {
                self.time = self.time.plus(Duration::from_nanos(step.ns));
                self.advanced = true;
                Done::Nothing
            }
            other => Done::Answer(Answer::HttpError(format!("unknown step `{other}`"))),
        })
    }

    /// An ingress message, through the ingress filter, executed until it is answered.
    fn call(&mut self, step: &Step) -> Result<Answer, TranscriptError> {
        let mut message = self.message(step)?;
        if message.receiver == CanisterId::MANAGEMENT {
            match management::effective_canister_id(&message.method_name, &message.method_payload) {
                Ok(effective) => message.effective_canister_id = effective,
                Err(error) => return Ok(Answer::HttpError(error.description)),
            }
        }
        if !step.bypass_filter
            && let Err(error) = self.machine.inspect(&message)
        {
            return Ok(Answer::Reject(error));
        }
        let id = message.message_id;
        self.round(vec![message]);
        Ok(self.finish(&id, ROUNDS_MAX))
    }

    fn query(&mut self, step: &Step) -> Result<Answer, TranscriptError> {
        let receiver = self.receiver(step)?;
        let argument = step.argument(&self.transcript.canister_ids)?;
        let source = PrincipalId::from_slice(&step.sender(&self.transcript.canister_ids)?);
        let method = step.method.clone().unwrap_or_default();
        // The signature is nobody's: transcripts show where a certificate stands, not its bytes.
        let snapshot = CertifiedSnapshot::certify(self.machine.state().clone(), &self.root_key);
        let certificate = DataCertificate(Arc::new(snapshot));
        let call = QueryCall {
            source,
            receiver,
            method,
            argument: Payload::from(argument),
            caller_info: None,
        };
        let response = evaluate(self.machine.state(), self.machine.engine(), call, Some(certificate));
        Ok(match response {
            QueryResponse::Replied(reply) => Answer::Reply(reply.to_vec()),
            QueryResponse::Rejected(error) => Answer::Reject(error),
        })
    }

    fn round(&mut self, messages: Vec<Ingress>) {
        // The first round after an advance has just the time that was set.
        if !std::mem::take(&mut self.advanced) {
            self.time = Time(self.time.0 + 1);
        }
        let height = self.machine.state().metadata.height.next();
        let mut randomness = [0; 32];
        randomness[..8].copy_from_slice(&height.0.to_be_bytes());
        self.machine.execute_batch(Batch {
            height,
            time: self.time,
            randomness: Randomness(randomness),
            messages,
            ..Batch::default()
        });
    }

    fn finish(&mut self, id: &MessageId, rounds_max: u64) -> Answer {
        let mut rounds = 0;
        loop {
            match self
                .machine
                .state()
                .ingress_history
                .get(id)
                .map(|status| status.state.clone())
            {
                Some(IngressState::Completed(reply)) => return Answer::Reply(reply.to_vec()),
                Some(IngressState::Failed(error)) => return Answer::Reject(error),
                Some(IngressState::Done) => {
                    return Answer::Reject(UserError::new(ErrorCode::IngressHistoryFull, "the answer was dropped"));
                }
                _ if rounds == rounds_max => return Answer::Pending,
                _ => self.round(Vec::new()),
            }
            rounds += 1;
        }
    }

    fn message(&mut self, step: &Step) -> Result<Ingress, TranscriptError> {
        let receiver = self.receiver(step)?;
        let (method_name, argument) = match step.op.as_str() {
            "create" => (
                "provisional_create_canister_with_cycles".into(),
                step.argument(&self.transcript.canister_ids)?,
            ),
            "install" => ("install_code".into(), self.install_argument(step)?),
            _ => (
                step.method.clone().unwrap_or_default(),
                step.argument(&self.transcript.canister_ids)?,
            ),
        };
        let source = PrincipalId::from_slice(&step.sender(&self.transcript.canister_ids)?);
        let effective_canister_id = if receiver == CanisterId::MANAGEMENT {
            management::effective_canister_id(&method_name, &argument)
                .ok()
                .flatten()
        } else {
            Some(receiver)
        };
        self.nonce += 1;
        Ok(Ingress {
            message_id: MessageId(Sha256::digest(self.nonce.to_be_bytes()).into()),
            source,
            receiver,
            effective_canister_id,
            envelope_bytes: envelope_bytes(&source, &receiver, &method_name, &argument),
            method_name,
            method_payload: Payload::from(argument),
            expiry: self.time.plus(LIFETIME),
            sender_info: None,
        })
    }

    fn receiver(&self, step: &Step) -> Result<CanisterId, TranscriptError> {
        match (step.op.as_str(), &step.canister) {
            ("create" | "install" | "management", _) | (_, None) => Ok(CanisterId::MANAGEMENT),
            (_, Some(alias)) if alias == "aaaaa-aa" => Ok(CanisterId::MANAGEMENT),
            (_, Some(alias)) => self.canister_id(alias),
        }
    }

    fn canister_id(&self, alias: &str) -> Result<CanisterId, TranscriptError> {
        let name = self.transcript.canister_ids.get(alias);
        let bytes = name.and_then(|name| hex::decode(&name.hex).ok()).unwrap_or_default();
        Ok(CanisterId(PrincipalId::from_slice(&bytes)))
    }

    fn facts(&self) -> BTreeMap<&'a str, Facts> {
        let mut all = BTreeMap::new();
        for alias in self.transcript.canister_ids.keys() {
            let canister = self
                .canister_id(alias)
                .ok()
                .and_then(|id| self.machine.state().canister(&id));
            if let Some(canister) = canister {
                all.insert(alias.as_str(), facts(canister));
            }
        }
        all
    }

    /// True where the step calls, or makes a canister call, the method that answers with random bytes.
    fn asks_for_random(&self, step: &Step) -> Result<bool, TranscriptError> {
        let method = step.method.as_deref().unwrap_or_default();
        let argument = step.argument(&self.transcript.canister_ids)?;
        Ok(method.as_bytes() == RANDOM_METHOD || contains(&argument, RANDOM_METHOD))
    }

    fn install_argument(&self, step: &Step) -> Result<Vec<u8>, TranscriptError> {
        let module = step.module.as_ref().and_then(|name| self.transcript.modules.get(name));
        let wasm_module = module.map_or(Ok(Vec::new()), |module| module.bytes())?;
        let canister = self.canister_id(step.canister.as_deref().unwrap_or_default())?;
        let argument = InstallCodeArgument {
            mode: InstallMode::of(step.mode.as_deref(), step.upgrade_options.as_ref()),
            canister_id: canister.0,
            wasm_module: ByteBuf::from(wasm_module),
            arg: ByteBuf::from(step.argument(&self.transcript.canister_ids)?),
        };
        Encode!(&argument).map_err(|error| TranscriptError::new(format!("install argument: {error}")))
    }
}

/// An empty subnet with the identity of the one that the transcripts were recorded on.
fn reference_subnet(subnet: SubnetConfig, engine: Arc<Engine>) -> Result<StateMachine, TranscriptError> {
    let root_key = hex::decode(ROOT_KEY_DER).map_err(|error| TranscriptError::new(format!("root key: {error}")))?;
    let node_key: Arc<[u8]> = Arc::from(&[8; 44][..]);
    let state = ReplicatedState::genesis(Genesis {
        subnet_id: SubnetId(PrincipalId::self_authenticating(&root_key)),
        subnet,
        nodes: BTreeMap::from([(NodeId(PrincipalId::self_authenticating(&node_key)), node_key)]),
        root_key: Arc::from(root_key),
        canister_indices: CANISTER_INDICES,
        threshold_public_keys: Default::default(),
    });
    Ok(StateMachine::new(state, engine, SchedulerCores(1)))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Size of the envelope that the transcripts' harness submits: the content alone as CBOR, with an 8-byte nonce.
fn envelope_bytes(source: &PrincipalId, receiver: &CanisterId, method: &str, argument: &[u8]) -> u32 {
    let item = |length: usize| {
        length
            + match length {
                0..24 => 1,
                24..256 => 2,
                256..65_536 => 3,
                _ => 5,
            }
    };
    let keys: usize = [
        "request_type",
        "canister_id",
        "method_name",
        "arg",
        "sender",
        "ingress_expiry",
        "nonce",
    ]
    .iter()
    .map(|key| item(key.len()))
    .sum();
    let values = item("call".len())
        + item(receiver.as_slice().len())
        + item(method.len())
        + item(argument.len())
        + item(source.as_slice().len())
        + 9
        + item(8);
    // Self-described tag, the outer map with its one key, and the two map headers.
    (3 + 1 + item("content".len()) + 2 + keys + values) as u32
}

#[derive(CandidType)]
struct InstallCodeArgument {
    mode: InstallMode,
    canister_id: Principal,
    wasm_module: ByteBuf,
    arg: ByteBuf,
}

#[derive(CandidType, candid::Deserialize)]
enum InstallMode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade(Option<UpgradeFlags>),
}

#[derive(CandidType, candid::Deserialize)]
struct UpgradeFlags {
    skip_pre_upgrade: Option<bool>,
    wasm_memory_persistence: Option<WasmMemoryPersistence>,
}

#[derive(CandidType, candid::Deserialize)]
enum WasmMemoryPersistence {
    #[serde(rename = "keep")]
    Keep,
    #[serde(rename = "replace")]
    Replace,
}

impl InstallMode {
    fn of(mode: Option<&str>, options: Option<&UpgradeOptions>) -> Self {
        match mode {
            Some("reinstall") => Self::Reinstall,
            Some("upgrade") => Self::Upgrade(options.map(|options| UpgradeFlags {
                skip_pre_upgrade: options.skip_pre_upgrade,
                wasm_memory_persistence: options.wasm_memory_persistence.as_deref().map(|persistence| {
                    if persistence == "keep" {
                        WasmMemoryPersistence::Keep
                    } else {
                        WasmMemoryPersistence::Replace
                    }
                }),
            })),
            _ => Self::Install,
        }
    }
}
