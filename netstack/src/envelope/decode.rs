//! The fields of an envelope.

use super::Reader;
use super::request_id::{HashOfMap, hash_of_array, hash_of_bytes, hash_of_nat, names};
use minicbor::data::Type;
use replicore_types::{CanisterId, MessageId, PrincipalId};
use std::borrow::Cow;
use std::fmt;

/// Bytes of a nonce.
const NONCE_BYTES_MAX: usize = 32;
/// Paths of one `read_state` request.
const PATHS_MAX: usize = 1000;
/// Labels of one path.
const LABELS_MAX: usize = 127;
/// Delegations of one chain.
const DELEGATIONS_MAX: usize = 20;
/// Canisters that one delegation may be restricted to.
const TARGETS_MAX: usize = 1000;

/// What kind of request an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/call`
    Call,
    /// `/query`
    Query,
    /// `/read_state`
    ReadState,
}

impl Endpoint {
    /// The `request_type` of the requests it takes.
    pub const fn request_type(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Query => "query",
            Self::ReadState => "read_state",
        }
    }
}

/// Why a body is not an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(Cow<'static, str>);

impl DecodeError {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    pub(crate) const fn owned(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    pub(crate) fn expected(what: &str, found: Type) -> Self {
        Self::owned(format!("expected {what}, found {found}"))
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::owned(error.to_string())
    }
}

/// A request with what is said to authenticate it. Nothing about it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// What is asked for.
    pub content: Content<'a>,
    /// DER encoding of the key that the sender is derived from.
    pub sender_pubkey: Option<Cow<'a, [u8]>>,
    /// Signature over the request id, by the last key of the delegation chain.
    pub sender_sig: Option<Cow<'a, [u8]>>,
    /// From `sender_pubkey` to the key that signed; empty if that is the same.
    pub sender_delegation: Vec<SignedDelegation<'a>>,
}

/// The content map. Which fields are present depends on the endpoint and is checked by [`Envelope::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// What kind of request this is.
    pub endpoint: Endpoint,
    /// Who is said to ask.
    pub sender: PrincipalId,
    /// Makes otherwise equal requests different.
    pub nonce: Option<Cow<'a, [u8]>>,
    /// Nanoseconds since 1970 after which the request is void.
    pub ingress_expiry: u64,
    /// Calls and queries: the canister.
    pub canister_id: CanisterId,
    /// Calls and queries: the method.
    pub method_name: Cow<'a, str>,
    /// Calls and queries: the argument.
    pub arg: Cow<'a, [u8]>,
    /// Calls and queries: attributes of the sender that its canister vouches for.
    pub sender_info: Option<SenderInfo<'a>>,
    /// `read_state`: what to read.
    pub paths: Vec<Vec<Cow<'a, [u8]>>>,
}

/// `sender_info`: attributes signed by the canister behind the sender's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderInfo<'a> {
    /// The attributes.
    pub info: Cow<'a, [u8]>,
    /// The canister that signed them.
    pub signer: PrincipalId,
    /// Its signature.
    pub sig: Cow<'a, [u8]>,
}

/// What a delegated key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// Everything.
    All,
    /// Queries and `read_state`.
    Queries,
}

/// A delegation and the signature by the key before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDelegation<'a> {
    /// What is delegated, and to whom.
    pub delegation: Delegation<'a>,
    /// Signature over the delegation's hash.
    pub signature: Cow<'a, [u8]>,
}

/// What is delegated, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation<'a> {
    /// DER encoding of the key that may sign.
    pub pubkey: Cow<'a, [u8]>,
    /// Nanoseconds since 1970 after which it may no more.
    pub expiration: u64,
    /// The only canisters it may address, if restricted.
    pub targets: Option<Vec<CanisterId>>,
    /// What it may do, if said.
    pub permissions: Option<Permissions>,
}

impl<'a> Envelope<'a> {
    /// Reads the body of a request to `endpoint`.
    pub fn decode(body: &'a [u8], endpoint: Endpoint) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body)?;
        let mut fields = EnvelopeFields::default();
        reader.map(|reader, key| {
            match key {
                "content" => set(&mut fields.content, key, || Content::read(reader, endpoint))?,
                "sender_pubkey" => set_optional(reader, &mut fields.sender_pubkey, key, Reader::bytes)?,
                "sender_sig" => set_optional(reader, &mut fields.sender_sig, key, Reader::bytes)?,
                "sender_delegation" => set_optional(reader, &mut fields.sender_delegation, key, read_delegations)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        Ok(Self {
            content: required(fields.content, "content")?,
            sender_pubkey: fields.sender_pubkey.flatten(),
            sender_sig: fields.sender_sig.flatten(),
            sender_delegation: fields.sender_delegation.flatten().unwrap_or_default(),
        })
    }
}

#[derive(Default)]
struct EnvelopeFields<'a> {
    content: Option<Content<'a>>,
    sender_pubkey: Option<Option<Cow<'a, [u8]>>>,
    sender_sig: Option<Option<Cow<'a, [u8]>>>,
    sender_delegation: Option<Option<Vec<SignedDelegation<'a>>>>,
}

#[derive(Default)]
struct ContentFields<'a> {
    request_type: Option<Cow<'a, str>>,
    sender: Option<PrincipalId>,
    nonce: Option<Option<Cow<'a, [u8]>>>,
    ingress_expiry: Option<u64>,
    canister_id: Option<PrincipalId>,
    method_name: Option<Cow<'a, str>>,
    arg: Option<Cow<'a, [u8]>>,
    sender_info: Option<Option<SenderInfo<'a>>>,
    paths: Option<Vec<Vec<Cow<'a, [u8]>>>>,
}

impl<'a> Content<'a> {
    fn read(reader: &mut Reader<'a>, endpoint: Endpoint) -> Result<Self, DecodeError> {
        let mut fields = ContentFields::default();
        let reads_state = endpoint == Endpoint::ReadState;
        reader.map(|reader, key| {
            match key {
                "request_type" => set(&mut fields.request_type, key, || reader.text())?,
                "sender" => set(&mut fields.sender, key, || read_principal(reader))?,
                "nonce" => set_optional(reader, &mut fields.nonce, key, Reader::bytes)?,
                "ingress_expiry" => set(&mut fields.ingress_expiry, key, || reader.nat())?,
                "paths" if reads_state => set(&mut fields.paths, key, || read_paths(reader))?,
                "canister_id" if !reads_state => set(&mut fields.canister_id, key, || read_principal(reader))?,
                "method_name" if !reads_state => set(&mut fields.method_name, key, || reader.text())?,
                "arg" if !reads_state => set(&mut fields.arg, key, || reader.bytes())?,
                "sender_info" if !reads_state => {
                    set_optional(reader, &mut fields.sender_info, key, SenderInfo::read)?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        fields.finish(endpoint)
    }

    /// The request id: what signatures cover, and the name of the request from here on.
    pub fn request_id(&self) -> MessageId {
        let mut map = HashOfMap::new();
        map.put(
            &names().request_type,
            hash_of_bytes(self.endpoint.request_type().as_bytes()),
        );
        map.put(&names().sender, hash_of_bytes(self.sender.as_slice()));
        map.put(&names().ingress_expiry, hash_of_nat(self.ingress_expiry));
        if let Some(nonce) = &self.nonce {
            map.put(&names().nonce, hash_of_bytes(nonce));
        }
        if self.endpoint == Endpoint::ReadState {
            let paths = self
                .paths
                .iter()
                .map(|path| hash_of_array(path.iter().map(|label| hash_of_bytes(label))));
            map.put(&names().paths, hash_of_array(paths));
        } else {
            map.put(&names().canister_id, hash_of_bytes(self.canister_id.as_slice()));
            map.put(&names().method_name, hash_of_bytes(self.method_name.as_bytes()));
            map.put(&names().arg, hash_of_bytes(&self.arg));
            if let Some(info) = &self.sender_info {
                map.put(&names().sender_info, info.hash());
            }
        }
        MessageId(map.finish())
    }
}

impl<'a> ContentFields<'a> {
    fn finish(self, endpoint: Endpoint) -> Result<Content<'a>, DecodeError> {
        let request_type = required(self.request_type, "request_type")?;
        if request_type != endpoint.request_type() {
            return Err(DecodeError::owned(format!(
                "request_type is {request_type:.20?}, expected {:?}",
                endpoint.request_type()
            )));
        }
        let nonce = self.nonce.flatten();
        if nonce.as_ref().is_some_and(|nonce| nonce.len() > NONCE_BYTES_MAX) {
            return Err(DecodeError::new("nonce is longer than 32 bytes"));
        }
        let mut content = Content {
            endpoint,
            sender: required(self.sender, "sender")?,
            nonce,
            ingress_expiry: required(self.ingress_expiry, "ingress_expiry")?,
            canister_id: CanisterId::MANAGEMENT,
            method_name: Cow::Borrowed(""),
            arg: Cow::Borrowed(&[]),
            sender_info: self.sender_info.flatten(),
            paths: Vec::new(),
        };
        if endpoint == Endpoint::ReadState {
            content.paths = required(self.paths, "paths")?;
        } else {
            content.canister_id = CanisterId(required(self.canister_id, "canister_id")?);
            content.method_name = required(self.method_name, "method_name")?;
            content.arg = required(self.arg, "arg")?;
        }
        Ok(content)
    }
}

impl<'a> SenderInfo<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (mut info, mut signer, mut sig) = (None, None, None);
        reader.map(|reader, key| {
            match key {
                "info" => set(&mut info, key, || reader.bytes())?,
                "signer" => set(&mut signer, key, || read_principal(reader))?,
                "sig" => set(&mut sig, key, || reader.bytes())?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            info: required(info, "info")?,
            signer: required(signer, "signer")?,
            sig: required(sig, "sig")?,
        })
    }

    fn hash(&self) -> [u8; 32] {
        let mut map = HashOfMap::new();
        map.put(&names().info, hash_of_bytes(&self.info));
        map.put(&names().signer, hash_of_bytes(self.signer.as_slice()));
        map.put(&names().sig, hash_of_bytes(&self.sig));
        map.finish()
    }
}

impl<'a> Delegation<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (mut pubkey, mut expiration, mut targets, mut permissions) = (None, None, None, None);
        reader.map(|reader, key| {
            match key {
                "pubkey" => set(&mut pubkey, key, || reader.bytes())?,
                "expiration" => set(&mut expiration, key, || reader.nat())?,
                "targets" => set_optional(reader, &mut targets, key, read_targets)?,
                "permissions" => set_optional(reader, &mut permissions, key, Permissions::read)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            pubkey: required(pubkey, "pubkey")?,
            expiration: required(expiration, "expiration")?,
            targets: targets.flatten(),
            permissions: permissions.flatten(),
        })
    }

    /// What the signature of the delegation covers.
    pub fn hash(&self) -> [u8; 32] {
        let mut map = HashOfMap::new();
        map.put(&names().pubkey, hash_of_bytes(&self.pubkey));
        map.put(&names().expiration, hash_of_nat(self.expiration));
        if let Some(targets) = &self.targets {
            map.put(
                &names().targets,
                hash_of_array(targets.iter().map(|target| hash_of_bytes(target.as_slice()))),
            );
        }
        if let Some(permissions) = self.permissions {
            map.put(&names().permissions, hash_of_bytes(permissions.text().as_bytes()));
        }
        map.finish()
    }
}

impl Permissions {
    const fn text(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Queries => "queries",
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.text()?.as_ref() {
            "all" => Ok(Self::All),
            "queries" => Ok(Self::Queries),
            // A restriction that is not understood cannot be honoured.
            other => Err(DecodeError::owned(format!(
                "unknown delegation permissions {other:.20?}"
            ))),
        }
    }
}

fn read_delegations<'a>(reader: &mut Reader<'a>) -> Result<Vec<SignedDelegation<'a>>, DecodeError> {
    let mut chain = Vec::new();
    reader.array(DELEGATIONS_MAX, "delegations", |reader| {
        let (mut delegation, mut signature) = (None, None);
        reader.map(|reader, key| {
            match key {
                "delegation" => set(&mut delegation, key, || Delegation::read(reader))?,
                "signature" => set(&mut signature, key, || reader.bytes())?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        chain.push(SignedDelegation {
            delegation: required(delegation, "delegation")?,
            signature: required(signature, "signature")?,
        });
        Ok(())
    })?;
    Ok(chain)
}

fn read_targets(reader: &mut Reader<'_>) -> Result<Vec<CanisterId>, DecodeError> {
    let mut targets = Vec::new();
    reader.array(TARGETS_MAX, "delegation targets", |reader| {
        targets.push(CanisterId(read_principal(reader)?));
        Ok(())
    })?;
    Ok(targets)
}

fn read_paths<'a>(reader: &mut Reader<'a>) -> Result<Vec<Vec<Cow<'a, [u8]>>>, DecodeError> {
    let mut paths = Vec::new();
    reader.array(PATHS_MAX, "paths", |reader| {
        let mut labels = Vec::new();
        reader.array(LABELS_MAX, "labels in a path", |reader| {
            labels.push(reader.bytes()?);
            Ok(())
        })?;
        paths.push(labels);
        Ok(())
    })?;
    Ok(paths)
}

fn read_principal(reader: &mut Reader<'_>) -> Result<PrincipalId, DecodeError> {
    let bytes = reader.bytes()?;
    PrincipalId::try_from_slice(&bytes).map_err(|_| DecodeError::new("a principal has at most 29 bytes"))
}

/// Reads a field that may occur once.
fn set<T>(field: &mut Option<T>, name: &str, read: impl FnOnce() -> Result<T, DecodeError>) -> Result<(), DecodeError> {
    if field.is_some() {
        return Err(DecodeError::owned(format!("duplicate field `{name}`")));
    }
    let value = read().map_err(|DecodeError(text)| DecodeError::owned(format!("{name}: {text}")))?;
    *field = Some(value);
    Ok(())
}

/// Reads a field that may occur once and may be null.
fn set_optional<'a, T>(
    reader: &mut Reader<'a>,
    field: &mut Option<Option<T>>,
    name: &str,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<(), DecodeError> {
    set(field, name, || {
        if reader.null()? {
            Ok(None)
        } else {
            read(reader).map(Some)
        }
    })
}

fn required<T>(field: Option<T>, name: &str) -> Result<T, DecodeError> {
    field.ok_or_else(|| DecodeError::owned(format!("missing field `{name}`")))
}
