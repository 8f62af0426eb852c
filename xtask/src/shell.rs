//! Running other programs, and installing the ones that are missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What went wrong, for a person to read.
pub type Result<T> = std::result::Result<T, String>;

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository")
        .to_path_buf()
}

/// The directory for everything that is downloaded or built on the way; created if it is missing.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let path = root().join(".e2e").join(name);
    std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Builds the replica as the tests do and gives the path of the executable. By way of a test that runs it, and with the
/// whole workspace: then its dependencies have the features that they have in `cargo test`, and nothing compiles twice.
pub fn replica() -> Result<PathBuf> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args([
        "test",
        "--workspace",
        "--no-run",
        "--test",
        "torture",
        "--message-format=json",
    ]);
    let messages = capture(build.current_dir(root()))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "replicore" && message["target"]["kind"][0] == "bin")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| "cargo named no executable of the replica".to_owned())
}

/// Runs a command that must succeed. Its output is shown only when it does not.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Err(format!("{shown}: {}\n{}", output.status, last_lines(&text, 60)))
}

/// Runs a command that must succeed, its output going straight to ours.
pub fn run_shown(command: &mut Command) -> Result<()> {
    let shown = describe(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("{shown}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{shown}: {status}"))
    }
}

/// Runs a command that must succeed and gives its standard output.
pub fn capture(command: &mut Command) -> Result<String> {
    let shown = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{shown}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{shown}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{shown}: output is not UTF-8"))
}

/// Whether a program of that name is on the search path.
pub fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Installs Debian packages unless every one of `programs` is there already.
pub fn ensure_debian(programs: &[&str], packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| !exists(program) && !Path::new(program).is_file())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("  missing {}: installing {}", missing.join(", "), packages.join(", "));
    let apt = || {
        let mut command = if exists("sudo") {
            Command::new("sudo")
        } else {
            Command::new("env")
        };
        command.arg("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().args(["update", "-qq"]))?;
    run(apt()
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages))
}

/// Installs npm packages (`name@version`) in a directory of their own, once per set; gives that directory.
pub fn ensure_npm(name: &str, packages: &[&str]) -> Result<PathBuf> {
    ensure_debian(&["node", "npm"], &["nodejs", "npm"])?;
    let folder = scratch(&format!("npm-{name}"))?;
    install_once(&folder, &packages.join("\n"), || {
        write(
            &folder.join("package.json"),
            b"{ \"private\": true, \"type\": \"module\" }\n",
        )?;
        run(Command::new("npm")
            .args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"])
            .args(packages)
            .current_dir(&folder))
    })?;
    Ok(folder)
}

/// Installs PyPI packages (`name==version`) in a virtual environment; gives its Python.
pub fn ensure_python(name: &str, packages: &[&str]) -> Result<PathBuf> {
    ensure_debian(&["python3"], &["python3", "python3-venv"])?;
    let folder = scratch(&format!("python-{name}"))?;
    let python = folder.join("bin").join("python");
    install_once(&folder, &packages.join("\n"), || {
        let venv = || run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        if venv().is_err() {
            // Debian splits the module off its Python.
            ensure_debian(&["python3-venv"], &["python3-venv"])?;
            venv()?;
        }
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(packages))
    })?;
    Ok(python)
}

/// Runs `install` unless the folder holds a stamp with the same text, which it leaves on success.
fn install_once(folder: &Path, wanted: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder.join(".installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    println!("  installing {}", wanted.replace('\n', " "));
    install()?;
    write(&stamp, wanted.as_bytes())
}

/// Reads a file; the error names it.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes a file; the error names it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
