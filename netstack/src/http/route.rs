//! Paths to endpoints.

use replicore_types::{CanisterId, PrincipalId, SubnetId};

use crate::service::Target;

/// Version in the path of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V2,
    V3,
    V4,
}

/// An endpoint of the public interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Status,
    Call { version: Version, target: Target },
    Query { target: Target },
    ReadState { target: Target },
}

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// There is no such endpoint.
    Unknown,
    /// There is, but the identifier in the path is not a principal.
    BadPrincipal,
}

/// The endpoint at `path`.
pub(crate) fn route(path: &str) -> Result<Route, NoRoute> {
    let rest = path.strip_prefix("/api/").ok_or(NoRoute::Unknown)?;
    let mut segments = rest.split('/');
    let version = match segments.next() {
        Some("v2") => Version::V2,
        Some("v3") => Version::V3,
        Some("v4") => Version::V4,
        _ => return Err(NoRoute::Unknown),
    };
    let parts = (segments.next(), segments.next(), segments.next(), segments.next());
    let (kind, principal, endpoint) = match parts {
        (Some("status"), None, ..) if version == Version::V2 => return Ok(Route::Status),
        (Some(kind), Some(principal), Some(endpoint), None) => (kind, principal, endpoint),
        _ => return Err(NoRoute::Unknown),
    };
    let known = match (kind, endpoint) {
        ("canister", "call") => true,
        ("subnet", "call") => version == Version::V4,
        ("canister", "query" | "read_state") | ("subnet", "read_state") => version != Version::V4,
        ("subnet", "query") => version == Version::V3,
        _ => false,
    };
    if !known {
        return Err(NoRoute::Unknown);
    }
    let principal = PrincipalId::from_text(principal).map_err(|_| NoRoute::BadPrincipal)?;
    let target = if kind == "canister" {
        Target::Canister(CanisterId(principal))
    } else {
        Target::Subnet(SubnetId(principal))
    };
    Ok(match endpoint {
        "call" => Route::Call { version, target },
        "query" => Route::Query { target },
        _ => Route::ReadState { target },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "rrkah-fqaaa-aaaaa-aaaaq-cai";

    #[test]
    fn every_endpoint_of_the_interface_is_found_and_no_other() {
        let exists = |path: String| route(&path).is_ok();
        for (kind, endpoint, versions) in [
            ("canister", "call", ["v2", "v3", "v4"].as_slice()),
            ("subnet", "call", &["v4"]),
            ("canister", "query", &["v2", "v3"]),
            ("subnet", "query", &["v3"]),
            ("canister", "read_state", &["v2", "v3"]),
            ("subnet", "read_state", &["v2", "v3"]),
        ] {
            for version in ["v1", "v2", "v3", "v4", "v5"] {
                let path = format!("/api/{version}/{kind}/{ID}/{endpoint}");
                assert_eq!(exists(path.clone()), versions.contains(&version), "{path}");
            }
        }
        assert_eq!(route("/api/v2/status"), Ok(Route::Status));
        for path in [
            "/",
            "",
            "/api/v3/status",
            "/api/v2/status/",
            "/api/v2/canister/x",
            "/api/v2/canister/x/call/y",
        ] {
            assert_eq!(route(path), Err(NoRoute::Unknown), "{path}");
        }
        assert_eq!(route("/api/v2/canister/rrkah-fqaaa/call"), Err(NoRoute::BadPrincipal));
    }

    #[test]
    fn the_identifier_is_the_effective_one() {
        let Ok(Route::Call { version, target }) = route(&format!("/api/v4/canister/{ID}/call")) else {
            panic!()
        };
        assert_eq!(
            (version, target),
            (Version::V4, Target::Canister(CanisterId::from_index(1)))
        );
        let management = Target::Canister(CanisterId::MANAGEMENT);
        assert_eq!(
            route("/api/v3/canister/aaaaa-aa/query"),
            Ok(Route::Query { target: management })
        );
    }
}
