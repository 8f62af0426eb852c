//! Canister signatures: a certificate says what data the canister has certified, and a tree with that root hash has
//! the signed payload in it.

use super::Certificates;
use super::hash_tree::{HashTree, Lookup};
use super::keys::CanisterKey;
use crate::envelope::{DecodeError, Reader};
use replicore_types::PrincipalId;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

type Reason = &'static str;

/// Verifies that `key` signed `payload`.
pub(super) fn verify(
    key: &CanisterKey<'_>,
    payload: &[u8],
    signature: &[u8],
    certificates: &Certificates<'_>,
) -> Result<(), Reason> {
    let (certificate, tree) = read_signature(signature).map_err(|_| "the signature is malformed")?;
    let seed: [u8; 32] = Sha256::digest(key.seed).into();
    let message: [u8; 32] = Sha256::digest(payload).into();
    if tree.lookup(&[b"sig", &seed, &message]) != Lookup::Found(b"") {
        return Err("the signature tree does not hold the payload");
    }
    let certificate = Certificate::read(&certificate).map_err(|_| "the certificate is malformed")?;
    certificate.verify_for(key.canister, certificates)?;
    let path: [&[u8]; 3] = [b"canister", key.canister.as_slice(), b"certified_data"];
    if certificate.tree.lookup(&path) != Lookup::Found(&tree.digest()) {
        return Err("the canister has not certified the signature tree");
    }
    Ok(())
}

fn read_signature(bytes: &[u8]) -> Result<(Cow<'_, [u8]>, HashTree<'_>), DecodeError> {
    let (mut certificate, mut tree) = (None, None);
    let mut reader = Reader::new(bytes)?;
    reader.map(|reader, key| {
        match key {
            "certificate" => certificate = Some(reader.bytes()?),
            "tree" => tree = Some(HashTree::read(reader)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    reader.end()?;
    let missing = || DecodeError::new("certificate and tree are required");
    Ok((certificate.ok_or_else(missing)?, tree.ok_or_else(missing)?))
}

struct Certificate<'a> {
    tree: HashTree<'a>,
    signature: Cow<'a, [u8]>,
    /// Subnet and the certificate in which the root subnet vouches for its key.
    delegation: Option<(PrincipalId, Cow<'a, [u8]>)>,
}

impl<'a> Certificate<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (mut tree, mut signature, mut delegation) = (None, None, None);
        let mut reader = Reader::new(bytes)?;
        reader.map(|reader, key| {
            match key {
                "tree" => tree = Some(HashTree::read(reader)?),
                "signature" => signature = Some(reader.bytes()?),
                "delegation" => delegation = Some(read_delegation(reader)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        let missing = || DecodeError::new("tree and signature are required");
        Ok(Self {
            tree: tree.ok_or_else(missing)?,
            signature: signature.ok_or_else(missing)?,
            delegation,
        })
    }

    /// Verifies that the root key, or a subnet that it vouches for and that hosts `canister`, signed the certificate.
    fn verify_for(&self, canister: PrincipalId, certificates: &Certificates<'_>) -> Result<(), Reason> {
        let root_key = certificates.root_key();
        let Some((subnet, certificate)) = &self.delegation else {
            return self.verify_signature(&root_key, certificates);
        };
        let delegation = Certificate::read(certificate).map_err(|_| "the subnet's certificate is malformed")?;
        if delegation.delegation.is_some() {
            return Err("a subnet may not delegate further");
        }
        delegation.verify_signature(&root_key, certificates)?;
        let lookup = |name: &'static [u8]| delegation.tree.lookup(&[b"subnet", subnet.as_slice(), name]);
        // Owners of a cloud engine could forge what its canisters certify.
        match lookup(b"type") {
            Lookup::Found(b"cloud_engine") => return Err("canisters of a cloud engine cannot sign"),
            Lookup::Found(_) => {}
            _ => return Err("the subnet's certificate does not tell its type"),
        }
        let Lookup::Found(key) = lookup(b"public_key") else {
            return Err("the subnet's certificate does not hold its key");
        };
        if !hosts(&delegation.tree, *subnet, canister) {
            return Err("the canister is not in the ranges of the subnet");
        }
        self.verify_signature(key, certificates)
    }

    fn verify_signature(&self, key: &[u8], certificates: &Certificates<'_>) -> Result<(), Reason> {
        certificates.verify_root(key, &self.tree.digest(), &self.signature)
    }
}

/// True if one of the ranges that the certificate has for `subnet`, in either place, holds `canister`.
fn hosts(tree: &HashTree<'_>, subnet: PrincipalId, canister: PrincipalId) -> bool {
    let contains = |encoded: &[u8]| ranges_contain(encoded, canister).unwrap_or(false);
    let whole = tree.lookup(&[b"subnet", subnet.as_slice(), b"canister_ranges"]);
    let mut found = matches!(whole, Lookup::Found(encoded) if contains(encoded));
    tree.for_each_leaf_below(&[b"canister_ranges", subnet.as_slice()], &mut |encoded| {
        found |= contains(encoded)
    });
    found
}

/// Ranges are an array of pairs of first and last canister.
fn ranges_contain(encoded: &[u8], canister: PrincipalId) -> Result<bool, DecodeError> {
    let mut found = false;
    let mut reader = Reader::new(encoded)?;
    reader.array(usize::MAX, "ranges", |reader| {
        let mut bounds = Vec::with_capacity(2);
        reader.array(2, "bounds", |reader| {
            bounds.push(reader.bytes()?);
            Ok(())
        })?;
        if let [first, last] = bounds.as_slice() {
            found |= (first.as_ref()..=last.as_ref()).contains(&canister.as_slice());
        }
        Ok(())
    })?;
    Ok(found)
}

fn read_delegation<'a>(reader: &mut Reader<'a>) -> Result<(PrincipalId, Cow<'a, [u8]>), DecodeError> {
    let (mut subnet, mut certificate) = (None, None);
    reader.map(|reader, key| {
        match key {
            "subnet_id" => subnet = PrincipalId::try_from_slice(&reader.bytes()?).ok(),
            "certificate" => certificate = Some(reader.bytes()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    match (subnet, certificate) {
        (Some(subnet), Some(certificate)) => Ok((subnet, certificate)),
        _ => Err(DecodeError::new("subnet_id and certificate are required")),
    }
}
