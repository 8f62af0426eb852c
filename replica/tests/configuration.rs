//! The documentation of the configuration against the program: every key, with its default.

use replicore::config::Config;
use std::path::PathBuf;

const DOCUMENT: &str = include_str!("../../docs/CONFIGURATION.md");

/// The part of the document below a heading.
fn chapter(heading: &str) -> &'static str {
    let start = DOCUMENT.find(&format!("\n## {heading}\n"));
    let text = &DOCUMENT[start.unwrap_or_else(|| panic!("no chapter `{heading}`")) + 1..];
    text[3..].find("\n## ").map_or(text, |end| &text[..end + 3])
}

/// Checks the rows of a table and of the tables in it; returns how many there are.
fn check(heading: &str, path: &str, table: &toml::Table) -> usize {
    let check_entry = |(key, value): (&String, &toml::Value)| match value {
        toml::Value::Table(inner) => {
            let path = format!("{path}{key}");
            check(&format!("[{path}]"), &format!("{path}."), inner)
        }
        value => {
            let row = format!("| `{key}` | `{value}` |");
            assert!(
                chapter(heading).contains(&row),
                "docs/CONFIGURATION.md, {heading}: no row {row}"
            );
            1
        }
    };
    table.iter().map(check_entry).sum()
}

#[test]
fn every_key_is_documented_with_its_default() {
    let defaults: toml::Table = toml::from_str(&Config::default().to_toml()).unwrap();
    let keys = check("Top level", "", &defaults);
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `")).count();
    // What has no default has no line in the printed configuration: the port file, the recording, the encryption key, the
    // root certificates, the address for followers, the collector of traces.
    assert_eq!(rows, keys + 6, "a documented key does not exist");
    assert!(chapter("[outcalls]").contains("| `root_certificates` | none |"));
    assert!(chapter("[sync]").contains("| `listen` | none |"));
    assert!(chapter("[tracing]").contains("| `otlp_url` | none |"));
    assert!(chapter("Top level").contains("| `port_file` | none |"));
    assert!(chapter("Top level").contains("| `record` | none |"));
    assert!(chapter("Top level").contains("| `encryption_key` | none |"));
}

#[test]
fn a_file_holds_only_what_differs() {
    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("replicore.toml");
    std::fs::write(
        &file,
        "state_dir = \"elsewhere\"\n[subnet]\nsize = 34\n[http]\npipeline_max = 8\n",
    )
    .unwrap();
    let config = Config::load(&file).unwrap();
    let mut expected = Config {
        state_dir: "elsewhere".into(),
        ..Config::default()
    };
    expected.subnet.size = 34;
    expected.http.pipeline_max = 8;
    assert_eq!(config, expected);
    for (text, named) in [("[subnet]\nsise = 3", "sise"), ("nonsense", "malformed")] {
        std::fs::write(&file, text).unwrap();
        let error = Config::load(&file).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("replicore.toml"), "{error}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(Config::load(&file).unwrap_err().to_string().contains("cannot read"));
}
