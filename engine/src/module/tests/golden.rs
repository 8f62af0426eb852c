//! Modules, their instrumented form, and what calling their exports costs, in `tests/golden`: input, a line of dashes,
//! output. A call that traps is marked with `!`.
//!
//! `UPDATE_GOLDEN=1 cargo test` writes the outputs anew.

use super::prepare;
use std::path::Path;

const SEPARATOR: &str = "\n;; ---- instrumented ----\n";

#[test]
fn golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        check(&file);
    }
}

fn check(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let (input, expected) = text.split_once(SEPARATOR).unwrap_or((text.trim_end(), ""));
    let wasm = wat::parse_str(input).unwrap();
    let instrumented = prepare(&wasm);
    let count = instrumented.compile_charge.instrumented_instructions;
    let printed = wasmprinter::print_bytes(&instrumented.wasm).unwrap();
    let calls = calls(&wasm, input);
    let actual = format!(";; compile charge: {count} instructions\n{calls}{printed}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, format!("{input}{SEPARATOR}{actual}")).unwrap();
    } else {
        assert_eq!(actual, expected, "{}: see UPDATE_GOLDEN", file.display());
    }
}

/// A line for every exported method: its instructions.
fn calls(wasm: &[u8], input: &str) -> String {
    use std::fmt::Write;
    let names = input
        .split("export \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let mut lines = String::new();
    for method in names.filter(|name| name.starts_with("canister_")) {
        let (instructions, trapped) = super::running::cost_of(wasm, method);
        let trapped = if trapped { "!" } else { "" };
        writeln!(lines, ";; {method}: {instructions} instructions{trapped}").unwrap();
    }
    lines
}
