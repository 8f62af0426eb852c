//! Blocks as ICRC-3 writes them: generic values, their hashes, the log that chains them.

use candid::{CandidType, Int, Nat, Principal};
use serde::Deserialize;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

pub type Hash = [u8; 32];

/// A generic value.
#[derive(Clone, CandidType, Deserialize)]
pub enum Value {
    Blob(ByteBuf),
    Text(String),
    Nat(Nat),
    Int(Int),
    Array(Vec<Value>),
    Map(Vec<(String, Value)>),
}

/// An owner's account.
#[derive(Clone, Copy, PartialEq, Eq, CandidType, Deserialize)]
pub struct Account {
    pub owner: Principal,
    pub subaccount: Option<Hash>,
}

impl Account {
    /// The account as a key: owner after its length, subaccount; one that is all zeros is the absent one.
    pub fn key(&self) -> [u8; 62] {
        let mut key = [0; 62];
        let owner = self.owner.as_slice();
        key[0] = owner.len() as u8;
        key[1..=owner.len()].copy_from_slice(owner);
        key[30..].copy_from_slice(&self.subaccount.unwrap_or_default());
        key
    }

    fn value(&self) -> Value {
        let mut parts = vec![blob(self.owner.as_slice())];
        if let Some(subaccount) = self.subaccount.filter(|subaccount| *subaccount != [0; 32]) {
            parts.push(blob(&subaccount));
        }
        Value::Array(parts)
    }
}

/// What a block records.
pub struct Transaction<'a> {
    /// `1mint`, `1burn`, `1xfer`, `2approve` or `2xfer`.
    pub kind: &'static str,
    pub from: Option<Account>,
    pub to: Option<Account>,
    pub spender: Option<Account>,
    pub amount: u64,
    /// What the ledger took, and whether the caller had named it.
    pub fee: Option<(u64, bool)>,
    pub memo: Option<&'a ByteBuf>,
    pub created_at_time: Option<u64>,
    pub expected_allowance: Option<u64>,
    pub expires_at: Option<u64>,
}

impl Transaction<'_> {
    /// The part of the block that the caller determines.
    pub fn value(&self) -> Value {
        let mut fields = vec![("amt".to_owned(), nat(self.amount))];
        let mut add = |name: &str, value: Option<Value>| fields.extend(value.map(|value| (name.to_owned(), value)));
        add("from", self.from.map(|account| account.value()));
        add("to", self.to.map(|account| account.value()));
        add("spender", self.spender.map(|account| account.value()));
        add("fee", self.fee.filter(|(_, is_named)| *is_named).map(|(fee, _)| nat(fee)));
        add("memo", self.memo.map(|memo| blob(memo)));
        add("ts", self.created_at_time.map(nat));
        add("expected_allowance", self.expected_allowance.map(nat));
        add("expires_at", self.expires_at.map(nat));
        Value::Map(fields)
    }

    /// The block after the one with hash `parent`.
    pub fn block(&self, parent: Option<Hash>, now: u64) -> Value {
        let mut fields = vec![
            ("btype".to_owned(), Value::Text(self.kind.to_owned())),
            ("ts".to_owned(), nat(now)),
            ("tx".to_owned(), self.value()),
        ];
        fields.extend(parent.map(|hash| ("phash".to_owned(), blob(&hash))));
        if let Some((fee, false)) = self.fee {
            fields.push(("fee".to_owned(), nat(fee)));
        }
        Value::Map(fields)
    }
}

fn blob(bytes: &[u8]) -> Value {
    Value::Blob(ByteBuf::from(bytes))
}

fn nat(number: u64) -> Value {
    Value::Nat(Nat::from(number))
}

fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

impl Value {
    /// The representation-independent hash.
    pub fn hash(&self) -> Hash {
        match self {
            Self::Blob(bytes) => sha256(bytes),
            Self::Text(text) => sha256(text.as_bytes()),
            Self::Nat(number) => {
                let mut leb = Vec::new();
                number.encode(&mut leb).expect("writing to memory does not fail");
                sha256(&leb)
            }
            Self::Int(number) => {
                let mut leb = Vec::new();
                number.encode(&mut leb).expect("writing to memory does not fail");
                sha256(&leb)
            }
            Self::Array(values) => sha256(&values.iter().flat_map(Self::hash).collect::<Vec<u8>>()),
            Self::Map(fields) => {
                let mut pairs: Vec<Vec<u8>> =
                    fields.iter().map(|(name, value)| [sha256(name.as_bytes()), value.hash()].concat()).collect();
                pairs.sort_unstable();
                sha256(&pairs.concat())
            }
        }
    }
}
