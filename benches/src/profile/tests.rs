use super::*;
use replicore_types::CanisterId;

fn node(calls: u64, own_instructions: u64, callees: &[(&str, CallNode)]) -> CallNode {
    CallNode {
        calls,
        own_instructions,
        callees: callees
            .iter()
            .map(|(name, node)| ((*name).to_owned(), node.clone()))
            .collect(),
    }
}

/// `go` calls `f` and `g`; `f` calls `g`, which calls itself.
fn profile() -> Profile {
    let recursion = node(3, 30, &[("g", node(1, 5, &[]))]);
    let go = node(
        2,
        100,
        &[("f", node(2, 40, &[("g", recursion)])), ("g", node(2, 20, &[]))],
    );
    let entry = EntryProfile {
        messages: 2,
        failed: 1,
        instructions: 205,
        calls: node(2, 10, &[("go", go)]),
        heap_pages_read: BTreeMap::from([(0, 2), (1, 1), (1_000_000, 1)]),
        heap_pages_written: BTreeMap::from([(1, 2)]),
        stable_pages_written: 4,
    };
    Profile {
        entries: BTreeMap::from([((CanisterId::from_index(1), "canister_update go".to_owned()), entry)]),
    }
}

#[test]
fn what_a_function_calls_counts_for_it_once() {
    let profile = profile();
    let functions = functions(profile.entries.values().next().unwrap());
    let totals = |calls, own, inclusive| FunctionTotals { calls, own, inclusive };
    assert_eq!(functions["go"], totals(2, 100, 195));
    assert_eq!(functions["f"], totals(2, 40, 75));
    assert_eq!(functions["g"], totals(6, 55, 55));
}

#[test]
fn the_flame_graph_holds_every_function_with_its_instructions() {
    let svg = flame(&profile()).unwrap();
    assert!(svg.contains("<svg") && svg.contains("instructions"));
    for title in [
        "go (195 instructions",
        "f (75 instructions",
        "[message] (10 instructions",
    ] {
        assert!(svg.contains(title), "{title}");
    }
    assert_eq!(
        svg,
        flame(&profile()).unwrap(),
        "the same profile gives the same picture"
    );
}

#[test]
fn the_firefox_profile_has_a_thread_per_canister_and_all_instructions() {
    let json: serde_json::Value = serde_json::from_str(&firefox(&profile()).unwrap()).unwrap();
    let thread = &json["threads"][0];
    assert_eq!(thread["name"], CanisterId::from_index(1).to_string());
    let weights = thread["samples"]["weight"].as_array().unwrap();
    let sum: i64 = weights.iter().map(|weight| weight.as_i64().unwrap()).sum();
    assert_eq!(sum, 205);
    assert_eq!(thread["samples"]["stack"].as_array().unwrap().len(), weights.len());
}

#[test]
fn the_table_shows_instructions_and_pages_per_message() {
    let text = table(&profile());
    for part in [
        "canister_update go",
        "2 messages, 1 failed",
        "102.5",
        "pages read 2.0",
        "written 1.0",
        "stable 2.0",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn the_heat_map_leaves_out_what_nobody_touches() {
    let svg = heat(&profile()).unwrap();
    assert!(svg.contains("<svg") && svg.contains("canister_update go"), "{svg}");
    assert_eq!(
        heat(&Profile::default()).unwrap().matches("<rect").count(),
        1,
        "nothing but the ground"
    );
}

#[test]
fn one_canister_alone() {
    let profile = profile();
    assert_eq!(only(&profile, &CanisterId::from_index(1).to_string()), profile);
    assert!(
        only(&profile, &CanisterId::from_index(2).to_string())
            .entries
            .is_empty()
    );
}

#[test]
fn names_are_as_their_authors_wrote_them() {
    assert_eq!(
        readable("_RNvNtCs2aIaKhnvFV0_6candid5types4name"),
        "candid::types::name"
    );
    assert_eq!(readable("_ZN4core3fmt5write17h0123456789abcdefE"), "core::fmt::write");
    assert_eq!(readable("canister_update go"), "canister_update go");
}
