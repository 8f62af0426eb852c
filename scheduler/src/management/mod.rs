//! Calls addressed to the management canister.
