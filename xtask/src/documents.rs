//! The documents name files; a test holds them to it.

#[cfg(test)]
mod tests {
    use crate::shell;
    use std::path::{Path, PathBuf};

    /// Every `folder/file.rs` or `folder/` in backticks in the repository's documents exists.
    #[test]
    fn every_path_in_the_documents_exists() {
        let mut checked = 0;
        for document in documents() {
            let text = std::fs::read_to_string(&document).unwrap();
            for path in text.split('`').skip(1).step_by(2).filter(|code| names_a_path(code)) {
                assert!(shell::root().join(path).exists(), "{} names {path}", document.display());
                checked += 1;
            }
        }
        assert!(
            checked > 40,
            "only {checked} paths were found: is the test looking in the right place?"
        );
    }

    fn documents() -> Vec<PathBuf> {
        let root = shell::root();
        let mut documents = vec![root.join("README.md"), root.join("docs/ARCHITECTURE.md")];
        let decisions = std::fs::read_dir(root.join("docs/decisions")).unwrap();
        documents.extend(decisions.map(|entry| entry.unwrap().path()));
        documents
    }

    /// A path from the root of the repository: no spaces, a folder of ours in front.
    fn names_a_path(code: &str) -> bool {
        let first = Path::new(code)
            .iter()
            .next()
            .and_then(|part| part.to_str())
            .unwrap_or_default();
        let ours = [
            "types",
            "persistence",
            "engine",
            "scheduler",
            "netstack",
            "replica",
            "workloads",
            "benches",
            "cli",
            "xtask",
            "docs",
        ];
        code.contains('/') && !code.contains(char::is_whitespace) && ours.contains(&first)
    }
}
