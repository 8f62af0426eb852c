//! `cargo xtask layers`: the architecture rules as data, each with its reason.
//!
//! Three kinds: which crate may depend on which, who forbids unsafe code, and what the deterministic crates may not name.

use crate::shell::{self, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What one crate may depend on inside the workspace.
struct Layer {
    package: &'static str,
    folder: &'static str,
    /// Workspace packages it may depend on, build scripts included.
    may_use: &'static [&'static str],
    /// Those that only its tests and examples may use on top.
    tests_may_use: &'static [&'static str],
    why: &'static str,
}

const TYPES: &str = "replicore-types";
const PERSISTENCE: &str = "replicore-persistence";
const ENGINE: &str = "replicore-engine";
const SCHEDULER: &str = "replicore-scheduler";
const NETSTACK: &str = "replicore-netstack";
const REPLICA: &str = "replicore";
const WORKLOADS: &str = "replicore-workloads";
const BENCHES: &str = "replicore-benches";

const LAYERS: [Layer; 10] = [
    Layer {
        package: TYPES,
        folder: "types",
        may_use: &[],
        tests_may_use: &[],
        why: "the shared words depend on nothing of ours",
    },
    Layer {
        package: PERSISTENCE,
        folder: "persistence",
        may_use: &[TYPES],
        tests_may_use: &[],
        why: "pages and logs know no canister",
    },
    Layer {
        package: ENGINE,
        folder: "engine",
        may_use: &[TYPES, PERSISTENCE],
        tests_may_use: &[],
        why: "one message at a time: no queue, no round, no socket",
    },
    Layer {
        package: SCHEDULER,
        folder: "scheduler",
        may_use: &[TYPES, PERSISTENCE, ENGINE],
        tests_may_use: &[],
        why: "a round is a function of state and batch, whoever made the batch",
    },
    Layer {
        package: NETSTACK,
        folder: "netstack",
        may_use: &[TYPES],
        tests_may_use: &[],
        why: "the network knows no state: it talks to a trait that the replica implements",
    },
    Layer {
        package: REPLICA,
        folder: "replica",
        may_use: &[TYPES, PERSISTENCE, ENGINE, SCHEDULER, NETSTACK],
        tests_may_use: &[WORKLOADS],
        why: "wires the layers below it and is embedded by those above",
    },
    Layer {
        package: WORKLOADS,
        folder: "workloads",
        may_use: &[],
        tests_may_use: &[],
        why: "modelled clients know an endpoint over HTTP, whoever serves it",
    },
    Layer {
        package: BENCHES,
        folder: "benches",
        may_use: &[TYPES, PERSISTENCE, ENGINE, SCHEDULER, NETSTACK, REPLICA, WORKLOADS],
        tests_may_use: &[],
        why: "measures everything, used by nothing",
    },
    Layer {
        package: "replicore-cli",
        folder: "cli",
        may_use: &[
            TYPES,
            PERSISTENCE,
            ENGINE,
            SCHEDULER,
            NETSTACK,
            REPLICA,
            WORKLOADS,
            BENCHES,
        ],
        tests_may_use: &[],
        why: "the executable: arguments, signals, output; used by nothing",
    },
    Layer {
        package: "xtask",
        folder: "xtask",
        may_use: &[],
        tests_may_use: &[],
        why: "works on a tree that does not compile",
    },
];

/// Folders whose sources forbid unsafe code at the root of their crate.
const FORBID_UNSAFE: [(&str, &str); 7] = [
    ("types", "data only"),
    ("scheduler", "decides by values; nothing here is worth a pointer"),
    ("replica", "wires what the lower crates make safe"),
    ("workloads", "a client of public interfaces"),
    ("benches", "measures what the others do"),
    ("cli", "arguments and output"),
    ("xtask", "runs programs"),
];

/// Folders that must give the same result for the same input, on every machine and at every time.
const DETERMINISTIC: [&str; 4] = ["types", "persistence", "engine", "scheduler"];

/// What their sources may not name, and why.
const BANNED: [(&str, &str); 9] = [
    ("std::time::Instant", "time comes with the batch"),
    ("std::time::SystemTime", "time comes with the batch"),
    ("Instant::now", "time comes with the batch"),
    ("SystemTime::now", "time comes with the batch"),
    ("std::env", "configuration is an argument"),
    ("env::var", "configuration is an argument"),
    ("rand::rng(", "randomness comes with the batch"),
    ("thread_rng", "randomness comes with the batch"),
    ("getrandom", "randomness comes with the batch"),
];

/// Checks all rules; the error lists every violation.
pub fn run() -> Result<()> {
    let mut violations = dependency_violations(&metadata()?);
    for (folder, why) in FORBID_UNSAFE {
        violations.extend(unsafe_violations(&shell::root().join(folder), why)?);
    }
    for folder in DETERMINISTIC {
        for file in sources(&shell::root().join(folder).join("src"))? {
            let text = String::from_utf8_lossy(&shell::read(&file)?).into_owned();
            let shown = file.strip_prefix(shell::root()).unwrap_or(&file).display().to_string();
            violations.extend(banned_violations(&shown, &text));
        }
    }
    if violations.is_empty() {
        println!("layers: {} crates, {} names: as designed", LAYERS.len(), BANNED.len());
        return Ok(());
    }
    Err(format!(
        "{} architecture rules are broken:\n{}",
        violations.len(),
        violations.join("\n")
    ))
}

fn metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(shell::root());
    serde_json::from_str(&shell::capture(&mut command)?).map_err(|error| format!("cargo metadata: {error}"))
}

fn dependency_violations(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut violations = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(layer) = LAYERS.iter().find(|layer| layer.package == name) else {
            violations.push(format!("{name}: a crate without a rule in xtask/src/layers.rs"));
            continue;
        };
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        if !Path::new(manifest).ends_with(Path::new(layer.folder).join("Cargo.toml")) {
            violations.push(format!("{name}: belongs in the folder {}/", layer.folder));
        }
        let dependencies = package["dependencies"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        for dependency in dependencies {
            let Some(used) = dependency["name"].as_str() else {
                continue;
            };
            let is_for_tests = dependency["kind"].as_str() == Some("dev");
            let may_use = layer.may_use.contains(&used) || (is_for_tests && layer.tests_may_use.contains(&used));
            if ours.contains(&used) && !may_use {
                violations.push(format!("{name} uses {used}: {}", layer.why));
            }
        }
    }
    violations
}

/// Every root of the crate (library and binaries) must carry the attribute.
fn unsafe_violations(folder: &Path, why: &str) -> Result<Vec<String>> {
    let mut roots = Vec::new();
    for root in ["src/lib.rs", "src/main.rs"] {
        roots.push(folder.join(root));
    }
    let binaries = folder.join("src/bin");
    if binaries.is_dir() {
        roots.extend(
            sources(&binaries)?
                .into_iter()
                .filter(|file| file.parent() == Some(&binaries)),
        );
    }
    let mut violations = Vec::new();
    for root in roots.iter().filter(|root| root.is_file()) {
        if !String::from_utf8_lossy(&shell::read(root)?).contains("#![forbid(unsafe_code)]") {
            let shown = root.strip_prefix(shell::root()).unwrap_or(root).display();
            violations.push(format!("{shown}: no #![forbid(unsafe_code)], although: {why}"));
        }
    }
    Ok(violations)
}

/// Names outside comments and outside test code. Test code is a `tests` file or what follows `#[cfg(test)]` in a file.
fn banned_violations(file: &str, text: &str) -> Vec<String> {
    if file.ends_with("tests.rs") || file.contains("/tests/") {
        return Vec::new();
    }
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut violations = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default();
        for (name, why) in BANNED {
            if line.contains(name) {
                violations.push(format!("{file}:{}: {name}: {why}", number + 1));
            }
        }
    }
    violations
}

/// All Rust files below a folder, in order.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(folder) = left.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_dependency_against_the_direction_is_named() {
        let package = |name: &str, folder: &str, uses: &[&str]| {
            let dependencies: Vec<Value> = uses.iter().map(|used| json!({ "name": used })).collect();
            json!({ "name": name, "manifest_path": format!("/x/{folder}/Cargo.toml"), "dependencies": dependencies })
        };
        let right = [
            package(TYPES, "types", &["serde"]),
            package(ENGINE, "engine", &[TYPES, "wasmtime"]),
        ];
        assert!(dependency_violations(&json!({ "packages": right })).is_empty());
        let wrong = [
            package(TYPES, "types", &[ENGINE]),
            package(ENGINE, "engine", &[]),
            package("new", "new", &[]),
        ];
        let violations = dependency_violations(&json!({ "packages": wrong }));
        assert_eq!(violations.len(), 2, "{violations:?}");
        assert!(violations[0].contains("replicore-types uses replicore-engine"));
    }

    #[test]
    fn banned_names_count_in_code_only() {
        let text = "use std::time::Duration;\n// Instant::now is banned\nlet now = Instant::now();\n\
                    #[cfg(test)]\nmod tests {\n    use std::env;\n}\n";
        let violations = banned_violations("engine/src/lib.rs", text);
        assert_eq!(
            violations,
            ["engine/src/lib.rs:3: Instant::now: time comes with the batch"]
        );
        assert!(banned_violations("engine/src/instance/tests.rs", "std::env::temp_dir()").is_empty());
    }

    #[test]
    fn the_rules_have_no_cycle() {
        // Each crate comes after all that it may use.
        for (position, layer) in LAYERS.iter().enumerate() {
            for used in layer.may_use {
                let of_used = LAYERS.iter().position(|other| other.package == *used).unwrap();
                assert!(of_used < position, "{} {used}", layer.package);
            }
        }
    }
}
