//! Which calls an operator admits: a list of rules, consulted once for every verified call, before the ingress filter, the
//! pool and any round. What is refused here has cost nothing but its signature, and no other replica hears of it.
//!
//! The first rule that matches decides; where none does, the default. A rule that allows may have a rate: calls beyond it
//! are told to come again. Queries pass by: they take nothing from anybody's round.

use crate::metrics::Counter;
use lru::LruCache;
use parking_lot::Mutex;
use replicore_netstack::ServiceBusy;
use replicore_scheduler::management;
use replicore_types::{CanisterId, ErrorCode, Ingress, PrincipalId, UserError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Instant;

/// Rules of one policy: they are tried one after the other.
const RULES_MAX: usize = 1_000;
/// Senders or canisters whose rate one rule remembers. One that is forgotten begins with a full burst again.
const RATES_MAX: usize = 100_000;
/// Largest rate and burst: beyond it there is no point in counting.
const CALLS_MAX: u32 = 1_000_000;
/// Parts of a call in which a bucket counts: what a rate of one a second gives in a nanosecond.
const PARTS_PER_CALL: u64 = 1_000_000_000;

/// Whether a call comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It does.
    #[default]
    Allow,
    /// It is rejected.
    Deny,
}

/// What shares one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateOf {
    /// All calls that the rule matches.
    #[default]
    Rule,
    /// Those of one sender.
    Sender,
    /// Those to one canister.
    Canister,
}

/// One rule. An empty list matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionRule {
    /// Names the rule in rejections and metrics: letters, digits, `-`, `_`.
    pub name: String,
    /// What becomes of a call that matches.
    pub decision: Decision,
    /// Canisters by their textual ids. A call of the management canister matches by the canister that it is about too.
    pub canisters: Vec<String>,
    /// Methods; one that ends in `*` stands for all that begin so.
    pub methods: Vec<String>,
    /// Senders by their textual principals.
    pub senders: Vec<String>,
    /// Calls a second that are allowed; zero means any number.
    pub per_second: u32,
    /// Calls that may come at once after a while of silence; zero means as many as in a second.
    pub burst: u32,
    /// What shares the rate.
    pub rate_of: RateOf,
}

/// The operator's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionConfig {
    /// What becomes of a call that no rule matches.
    pub default: Decision,
    /// The rules, in the order in which they are tried.
    pub rules: Vec<AdmissionRule>,
}

/// Why a call does not come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The policy denies it: trying again is of no use.
    Denied(UserError),
    /// A rate is used up: it may come again.
    Limited(ServiceBusy),
}

/// How often a rule, or the default, decided what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionCount {
    /// The rule's name; `default` for the default.
    pub rule: String,
    /// Calls that came in by it.
    pub allowed: u64,
    /// Calls that it denied.
    pub denied: u64,
    /// Calls beyond its rate.
    pub limited: u64,
}

/// A policy at work.
pub struct AdmissionPolicy {
    rules: Vec<Rule>,
    default: Decision,
    counters: Counters,
    start: Instant,
}

struct Rule {
    name: String,
    decision: Decision,
    canisters: BTreeSet<PrincipalId>,
    methods: BTreeSet<String>,
    method_prefixes: Vec<String>,
    senders: BTreeSet<PrincipalId>,
    rate: Option<Rate>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    allowed: Counter,
    denied: Counter,
    limited: Counter,
}

/// A rate and who has used how much of it.
struct Rate {
    per_second: u64,
    burst: u64,
    of: RateOf,
    buckets: Mutex<LruCache<PrincipalId, Bucket>>,
}

/// What is left of a rate, in parts of a call, at a time in nanoseconds since the start.
#[derive(Clone, Copy)]
struct Bucket {
    left: u64,
    at: u64,
}

/// What the rules look at.
struct Seen<'a> {
    sender: PrincipalId,
    receiver: CanisterId,
    /// The receiver, or what a call of the management canister is about.
    about: CanisterId,
    method: &'a str,
}

impl AdmissionPolicy {
    /// The policy that a configuration describes.
    ///
    /// # Errors
    /// The rule that is wrong, and how.
    pub fn new(config: &AdmissionConfig) -> Result<Self, String> {
        if config.rules.len() > RULES_MAX {
            return Err(format!("there are {} rules and may be {RULES_MAX}", config.rules.len()));
        }
        let mut names = BTreeSet::from(["default"]);
        for rule in &config.rules {
            if !names.insert(&rule.name) {
                return Err(format!("two rules are named `{}`", rule.name));
            }
        }
        Ok(Self {
            rules: config.rules.iter().map(Rule::new).collect::<Result<_, _>>()?,
            default: config.default,
            counters: Counters::default(),
            start: Instant::now(),
        })
    }

    /// Whether a verified call comes in at `now`. What comes in has used its part of a rate.
    ///
    /// # Errors
    /// The answer for its sender.
    pub fn admit(&self, message: &Ingress, now: Instant) -> Result<(), Refusal> {
        if self.rules.is_empty() && self.default == Decision::Allow {
            self.counters.allowed.add(1);
            return Ok(());
        }
        let seen = Seen::of(message);
        match self.rules.iter().find(|rule| rule.matches(&seen)) {
            Some(rule) => rule.decide(&seen, now.saturating_duration_since(self.start).as_nanos() as u64),
            None => decide(self.default, "default", &self.counters),
        }
    }

    /// What was decided so far: the rules in their order, then the default.
    pub fn counts(&self) -> Vec<AdmissionCount> {
        let count = |name: &str, counters: &Counters| AdmissionCount {
            rule: name.to_owned(),
            allowed: counters.allowed.get(),
            denied: counters.denied.get(),
            limited: counters.limited.get(),
        };
        let rules = self.rules.iter().map(|rule| count(&rule.name, &rule.counters));
        rules.chain([count("default", &self.counters)]).collect()
    }
}

impl<'a> Seen<'a> {
    fn of(message: &'a Ingress) -> Self {
        let receiver = message.receiver;
        // What an argument that does not decode is about nobody knows; the call fails on its own.
        let about = match receiver == CanisterId::MANAGEMENT {
            true => management::effective_canister_id(&message.method_name, &message.method_payload),
            false => Ok(None),
        };
        Self {
            sender: message.source,
            receiver,
            about: about.ok().flatten().unwrap_or(receiver),
            method: &message.method_name,
        }
    }
}

impl Rule {
    fn new(rule: &AdmissionRule) -> Result<Self, String> {
        let name = &rule.name;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            return Err(format!("the name `{name}` is not 1 to 64 letters, digits, `-` and `_`"));
        }
        if rule.per_second > CALLS_MAX || rule.burst > CALLS_MAX {
            return Err(format!("rule `{name}`: rates and bursts are at most {CALLS_MAX}"));
        }
        if rule.per_second == 0 && rule.burst > 0 {
            return Err(format!("rule `{name}`: a burst needs `per_second`"));
        }
        if rule.per_second > 0 && rule.decision == Decision::Deny {
            return Err(format!("rule `{name}` denies: it has no rate"));
        }
        let (prefixes, methods): (Vec<_>, Vec<_>) = rule.methods.iter().partition(|method| method.ends_with('*'));
        Ok(Self {
            name: name.clone(),
            decision: rule.decision,
            canisters: principals(name, &rule.canisters)?,
            methods: methods.into_iter().cloned().collect(),
            method_prefixes: prefixes
                .into_iter()
                .map(|prefix| prefix[..prefix.len() - 1].to_owned())
                .collect(),
            senders: principals(name, &rule.senders)?,
            rate: (rule.per_second > 0).then(|| Rate::new(rule)),
            counters: Counters::default(),
        })
    }

    fn matches(&self, seen: &Seen<'_>) -> bool {
        let any_method = self.methods.is_empty() && self.method_prefixes.is_empty();
        (self.senders.is_empty() || self.senders.contains(&seen.sender))
            && (self.canisters.is_empty()
                || self.canisters.contains(&seen.receiver.0)
                || self.canisters.contains(&seen.about.0))
            && (any_method
                || self.methods.contains(seen.method)
                || self
                    .method_prefixes
                    .iter()
                    .any(|prefix| seen.method.starts_with(prefix)))
    }

    fn decide(&self, seen: &Seen<'_>, now: u64) -> Result<(), Refusal> {
        if self.rate.as_ref().is_some_and(|rate| !rate.take(seen, now)) {
            self.counters.limited.add(1);
            return Err(Refusal::Limited(ServiceBusy(
                "a rate of the admission policy is used up",
            )));
        }
        decide(self.decision, &self.name, &self.counters)
    }
}

fn decide(decision: Decision, name: &str, counters: &Counters) -> Result<(), Refusal> {
    match decision {
        Decision::Allow => {
            counters.allowed.add(1);
            Ok(())
        }
        Decision::Deny => {
            counters.denied.add(1);
            Err(Refusal::Denied(UserError::new(
                ErrorCode::CallNotAdmitted,
                format!("The operator of this replica does not admit this call (admission rule `{name}`)."),
            )))
        }
    }
}

fn principals(rule: &str, texts: &[String]) -> Result<BTreeSet<PrincipalId>, String> {
    let parse = |text: &String| {
        PrincipalId::from_text(text).map_err(|error| format!("rule `{rule}`: `{text}` is no principal: {error}"))
    };
    texts.iter().map(parse).collect()
}

impl Rate {
    fn new(rule: &AdmissionRule) -> Self {
        let burst = match rule.burst {
            0 => rule.per_second,
            burst => burst,
        };
        Self {
            per_second: u64::from(rule.per_second),
            burst: u64::from(burst) * PARTS_PER_CALL,
            of: rule.rate_of,
            buckets: Mutex::new(LruCache::unbounded()),
        }
    }

    /// Takes one call out of the bucket, if there is one left.
    fn take(&self, seen: &Seen<'_>, now: u64) -> bool {
        let key = match self.of {
            RateOf::Rule => CanisterId::MANAGEMENT.0,
            RateOf::Sender => seen.sender,
            RateOf::Canister => seen.about.0,
        };
        let full = Bucket {
            left: self.burst,
            at: now,
        };
        let mut buckets = self.buckets.lock();
        if buckets.len() >= RATES_MAX && !buckets.contains(&key) {
            buckets.pop_lru();
        }
        let bucket = buckets.get_or_insert_mut(key, || full);
        let gained = now.saturating_sub(bucket.at).saturating_mul(self.per_second);
        bucket.left = bucket.left.saturating_add(gained).min(self.burst);
        bucket.at = bucket.at.max(now);
        match bucket.left.checked_sub(PARTS_PER_CALL) {
            Some(left) => {
                bucket.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candid::Encode;
    use replicore_types::{MessageId, Payload, Time};
    use std::time::Duration;

    fn policy(text: &str) -> AdmissionPolicy {
        AdmissionPolicy::new(&toml::from_str(text).unwrap()).unwrap()
    }

    fn call(sender: u8, receiver: CanisterId, method: &str, argument: Vec<u8>) -> Ingress {
        Ingress {
            message_id: MessageId([0; 32]),
            source: PrincipalId::self_authenticating([sender]),
            receiver,
            effective_canister_id: None,
            method_name: method.into(),
            method_payload: Payload::from(argument),
            expiry: Time(0),
            envelope_bytes: 0,
            sender_info: None,
        }
    }

    fn is_denied(policy: &AdmissionPolicy, message: &Ingress) -> bool {
        match policy.admit(message, Instant::now()) {
            Ok(()) => false,
            Err(Refusal::Denied(error)) => {
                assert!(error.description.contains("admission rule"), "{error}");
                true
            }
            Err(Refusal::Limited(_)) => panic!("no rule has a rate"),
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let (one, two) = (CanisterId::from_index(1), CanisterId::from_index(2));
        let owner = PrincipalId::self_authenticating([7]);
        let policy = policy(&format!(
            r#"
            default = "deny"
            [[rules]]
            name = "no-admin"
            decision = "deny"
            methods = ["admin_*", "reset"]
            [[rules]]
            name = "one"
            canisters = ["{one}"]
            [[rules]]
            name = "owner"
            senders = ["{owner}"]
            "#
        ));
        assert!(!is_denied(&policy, &call(1, one, "transfer", vec![])));
        assert!(is_denied(&policy, &call(1, one, "admin_stop", vec![])));
        assert!(is_denied(&policy, &call(7, one, "reset", vec![])));
        assert!(is_denied(&policy, &call(1, two, "transfer", vec![])), "the default");
        assert!(!is_denied(&policy, &call(7, two, "resets", vec![])));
        let counts: Vec<_> = policy
            .counts()
            .into_iter()
            .map(|count| (count.allowed, count.denied))
            .collect();
        assert_eq!(counts, [(0, 2), (1, 0), (1, 0), (0, 1)]);
    }

    #[test]
    fn management_calls_match_by_the_canister_they_are_about() {
        #[derive(candid::CandidType)]
        struct About {
            canister_id: PrincipalId,
        }
        let (one, two) = (CanisterId::from_index(1), CanisterId::from_index(2));
        let about = |id: CanisterId| {
            let argument = Encode!(&About { canister_id: id.0 }).unwrap();
            call(1, CanisterId::MANAGEMENT, "stop_canister", argument)
        };
        let deny_one = policy(&format!(
            "[[rules]]\nname = 'one'\ndecision = 'deny'\ncanisters = ['{one}']"
        ));
        assert!(is_denied(&deny_one, &about(one)) && !is_denied(&deny_one, &about(two)));
        let deny_all = policy("[[rules]]\nname = 'all'\ndecision = 'deny'\ncanisters = ['aaaaa-aa']");
        assert!(is_denied(&deny_all, &about(two)) && !is_denied(&deny_all, &call(1, two, "stop_canister", vec![])));
    }

    #[test]
    fn a_rate_is_shared_by_what_the_rule_says() {
        let canister = CanisterId::from_index(1);
        for (of, second_is_free) in [("rule", false), ("sender", true), ("canister", false)] {
            let policy = policy(&format!(
                "[[rules]]\nname = 'slow'\nper_second = 10\nburst = 2\nrate_of = '{of}'"
            ));
            let start = policy.start;
            let admits = |sender: u8, millis: u64| {
                let message = call(sender, canister, "m", vec![]);
                policy.admit(&message, start + Duration::from_millis(millis)).is_ok()
            };
            assert_eq!(
                [admits(1, 0), admits(1, 0), admits(1, 0)],
                [true, true, false],
                "a burst"
            );
            assert_eq!(admits(2, 0), second_is_free, "by {of}");
            assert!(!admits(1, 99), "nine tenths of a call are none");
            assert!(admits(1, 100) && !admits(1, 100));
            assert_eq!(
                [admits(1, 9_000), admits(1, 9_000), admits(1, 9_000)],
                [true, true, false]
            );
            assert!(policy.counts()[0].limited >= 4);
        }
    }

    #[test]
    fn a_wrong_rule_is_named() {
        for (text, named) in [
            ("[[rules]]\nname = 'a b'", "a b"),
            ("[[rules]]\nname = 'a'\n[[rules]]\nname = 'a'", "two rules"),
            ("[[rules]]\nname = 'a'\nsenders = ['nobody']", "nobody"),
            ("[[rules]]\nname = 'a'\nburst = 3", "per_second"),
            ("[[rules]]\nname = 'a'\nper_second = 3\ndecision = 'deny'", "denies"),
            ("[[rules]]\nname = 'a'\nper_second = 3000000", "at most"),
        ] {
            let error = AdmissionPolicy::new(&toml::from_str(text).unwrap()).err().unwrap();
            assert!(error.contains(named), "{error}");
        }
    }
}
