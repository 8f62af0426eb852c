//! Every System API function in every mode: legal or refused exactly as the table says, and the table as observed on the
//! production replica.

mod common;

use common::{Canister, error};
use replicore_engine::system_api::{FUNCTIONS, Function, Mode};
use replicore_engine::{EntryPoint, ResponseView, WasmClosure};
use replicore_types::{Cycles, Payload, RejectCode, RejectContext};

/// Refused (`X`) or not (`.`), one line a function; columns in the order of [`COLUMNS`].
const OBSERVED: &str = include_str!("contexts.txt");

/// The modes of the columns. Modes of one column behave alike.
const COLUMNS: [Mode; 13] = [
    Mode::Start,
    Mode::Init,
    Mode::PreUpgrade,
    Mode::PostUpgrade,
    Mode::Update,
    Mode::ReplicatedQuery,
    Mode::Query,
    Mode::CompositeQuery,
    Mode::ReplyCallback,
    Mode::RejectCallback,
    Mode::Cleanup,
    Mode::InspectMessage,
    Mode::SystemTask,
];

#[test]
fn the_table_agrees_with_the_production_replica() {
    let mut seen = 0;
    for line in OBSERVED.lines().filter(|line| !line.starts_with('#')) {
        let (name, legality) = line.split_once(' ').expect("a name and its columns");
        let function = FUNCTIONS
            .iter()
            .find(|function| function.name == name)
            .expect("every function is in the table");
        for (mode, mark) in COLUMNS.iter().zip(legality.split(' ')) {
            assert_eq!(function.contexts.contains(*mode), mark == ".", "{name} in {mode:?}");
        }
        seen += 1;
    }
    assert_eq!(seen, 73);
}

#[test]
fn refusals_name_the_function_and_the_mode() {
    for function in FUNCTIONS.iter().filter(|function| function.name != "mint_cycles128") {
        let mut canister = Canister::new(&module_calling(function));
        for mode in COLUMNS {
            let (entry_point, words) = entry(mode);
            canister.available_cycles = Cycles(10);
            let done = canister.run(entry_point);
            let refused = match &done.result {
                Err(failed) => failed
                    .error
                    .description
                    .contains(&format!("cannot be executed in {words} mode")),
                Ok(_) => false,
            };
            assert_eq!(
                refused,
                !function.contexts.contains(mode),
                "{} in {mode:?}: {:?}",
                function.name,
                done.result
            );
            if refused {
                let (code, text) = error(&done);
                assert_eq!(code, "IC0504");
                assert!(text.contains(function.name), "{text}");
            }
        }
    }
}

/// A module whose every entry point calls the function once, with zeros.
fn module_calling(function: &Function) -> String {
    let wasm_type = |name: &str| if name == "u64" { "i64" } else { "i32" };
    let parameters: Vec<_> = function.parameters.iter().map(|name| wasm_type(name)).collect();
    let result = match function.result {
        "()" => String::new(),
        name => format!("(result {})", wasm_type(name)),
    };
    let arguments: String = parameters.iter().map(|name| format!("({name}.const 0)")).collect();
    let call = match function.result {
        "()" => format!("(call $f {arguments})"),
        _ => format!("(drop (call $f {arguments}))"),
    };
    let import = format!(
        r#"(import "ic0" "{}" (func $f {} {result}))"#,
        function.name,
        parameters
            .iter()
            .map(|name| format!("(param {name})"))
            .collect::<String>()
    );
    let exports: String = [
        "init",
        "pre_upgrade",
        "post_upgrade",
        "update m",
        "query q",
        "composite_query c",
        "inspect_message",
        "heartbeat",
    ]
    .iter()
    .map(|name| format!(r#"(export "canister_{name}" (func $go))"#))
    .collect();
    format!(
        r#"(module {import} (memory 1) (table 1 funcref) (elem (i32.const 0) $callback)
            (func $go {call}) (func $callback (param i32) {call}) {exports} (func $start {call}) (start $start))"#
    )
}

fn entry(mode: Mode) -> (EntryPoint, &'static str) {
    let argument = Payload::default;
    let closure = WasmClosure {
        function: 0,
        environment: 0,
    };
    let reject = || {
        ResponseView::Reject(RejectContext {
            code: RejectCode::CanisterError,
            message: "no".into(),
        })
    };
    match mode {
        Mode::Start => (EntryPoint::Start, "start"),
        Mode::Init => (EntryPoint::Init(argument()), "init"),
        Mode::PreUpgrade => (EntryPoint::PreUpgrade, "pre upgrade"),
        Mode::PostUpgrade => (EntryPoint::PostUpgrade(argument()), "init"),
        Mode::Update => (
            EntryPoint::Update {
                method: "m".into(),
                argument: argument(),
            },
            "update",
        ),
        Mode::ReplicatedQuery => (
            EntryPoint::ReplicatedQuery {
                method: "q".into(),
                argument: argument(),
            },
            "replicated query",
        ),
        Mode::Query => {
            let data_certificate = Some(Payload::from(&b"certificate"[..]).into());
            (
                EntryPoint::Query {
                    method: "q".into(),
                    argument: argument(),
                    data_certificate,
                },
                "non replicated query",
            )
        }
        Mode::CompositeQuery => {
            let data_certificate = Some(Payload::from(&b"certificate"[..]).into());
            (
                EntryPoint::CompositeQuery {
                    method: "c".into(),
                    argument: argument(),
                    data_certificate,
                },
                "composite query",
            )
        }
        Mode::ReplyCallback => {
            let response = ResponseView::Reply(argument());
            (
                EntryPoint::Callback {
                    closure,
                    response,
                    refund: Cycles::ZERO,
                    composite: false,
                },
                "reply callback",
            )
        }
        Mode::RejectCallback => {
            let response = reject();
            (
                EntryPoint::Callback {
                    closure,
                    response,
                    refund: Cycles::ZERO,
                    composite: false,
                },
                "reject callback",
            )
        }
        Mode::Cleanup => (
            EntryPoint::Cleanup {
                closure,
                response: reject(),
                composite: false,
            },
            "cleanup",
        ),
        Mode::InspectMessage => (
            EntryPoint::InspectMessage {
                method: "m".into(),
                argument: argument(),
            },
            "inspect message",
        ),
        _ => (EntryPoint::Heartbeat, "heartbeat"),
    }
}
