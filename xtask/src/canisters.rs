//! `cargo xtask canisters`: from the sources in `workloads/canisters` to the compiled modules beside them.
//!
//! Each toolchain comes from its usual registry at a pinned version. The compiled modules are committed, so only those who
//! change a source need this; `--check` compiles the cheap ones again and compares.

use crate::shell::{self, Result};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Arguments of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Names of the canisters to compile; all when absent.
    names: Vec<String>,
    /// Write nothing: compile the canisters that are named, otherwise those of the quick toolchains, and compare them with the
    /// committed modules.
    #[arg(long)]
    check: bool,
}

/// One canister: where its source lies, what compiles it, and where the module goes.
struct Recipe {
    name: &'static str,
    toolchain: Toolchain,
    /// Source, in `workloads/canisters`.
    source: &'static str,
    /// Interface, in `workloads/canisters`; embedded into the module as public metadata.
    interface: &'static str,
    /// Module, in `workloads/canisters`; compressed when it ends in `.gz`.
    module: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Toolchain {
    C,
    /// With the version of the npm package: it decides between wasm32 and wasm64.
    Motoko(&'static str),
    /// With the target.
    Rust(&'static str),
    Azle,
}

const RECIPES: [Recipe; 25] = [
    Recipe {
        name: "c",
        toolchain: Toolchain::C,
        source: "c/app.c",
        interface: "app.did",
        module: "c/c.wasm",
    },
    Recipe {
        name: "ledger",
        toolchain: Toolchain::C,
        source: "ledger/ledger.c",
        interface: "ledger/ledger.did",
        module: "ledger/ledger.wasm",
    },
    Recipe {
        name: "heartbeat",
        toolchain: Toolchain::C,
        source: "heartbeat/heartbeat.c",
        interface: "heartbeat/heartbeat.did",
        module: "heartbeat/heartbeat.wasm",
    },
    Recipe {
        name: "motoko64",
        toolchain: Toolchain::Motoko("4.10.0"),
        source: "motoko64/app.mo",
        interface: "app.did",
        module: "motoko64/motoko64.wasm.gz",
    },
    Recipe {
        name: "motoko32",
        toolchain: Toolchain::Motoko("3.9.7"),
        source: "motoko32/app.mo",
        interface: "app.did",
        module: "motoko32/motoko32.wasm.gz",
    },
    Recipe {
        name: "rust32",
        toolchain: Toolchain::Rust("wasm32-unknown-unknown"),
        source: "rust",
        interface: "app.did",
        module: "rust/rust32.wasm.gz",
    },
    Recipe {
        name: "rust64",
        toolchain: Toolchain::Rust("wasm64-unknown-unknown"),
        source: "rust",
        interface: "app.did",
        module: "rust/rust64.wasm.gz",
    },
    Recipe {
        name: "azle",
        toolchain: Toolchain::Azle,
        source: "azle",
        interface: "app.did",
        module: "azle/azle.wasm.gz",
    },
    model(
        "analytics",
        "models/analytics",
        "models/analytics/analytics.did",
        "models/analytics.wasm.gz",
    ),
    model(
        "archive",
        "models/archive",
        "models/archive/archive.did",
        "models/archive.wasm.gz",
    ),
    model(
        "assets",
        "models/assets",
        "models/assets/assets.did",
        "models/assets.wasm.gz",
    ),
    model(
        "chain",
        "models/chain",
        "models/chain/chain.did",
        "models/chain.wasm.gz",
    ),
    model(
        "compute",
        "models/compute",
        "models/compute/compute.did",
        "models/compute.wasm.gz",
    ),
    model(
        "exchange",
        "models/exchange",
        "models/exchange/exchange.did",
        "models/exchange.wasm.gz",
    ),
    model(
        "explorer",
        "models/explorer",
        "models/explorer/explorer.did",
        "models/explorer.wasm.gz",
    ),
    model(
        "fleet",
        "models/fleet",
        "models/fleet/fleet.did",
        "models/fleet.wasm.gz",
    ),
    model("game", "models/game", "models/game/game.did", "models/game.wasm.gz"),
    model(
        "governance",
        "models/governance",
        "models/governance/governance.did",
        "models/governance.wasm.gz",
    ),
    model(
        "inference",
        "models/inference",
        "models/inference/inference.did",
        "models/inference.wasm.gz",
    ),
    model(
        "issuer",
        "models/issuer",
        "models/issuer/issuer.did",
        "models/issuer.wasm.gz",
    ),
    model(
        "member",
        "models/member",
        "models/member/member.did",
        "models/member.wasm",
    ),
    model("nft", "models/nft", "models/nft/nft.did", "models/nft.wasm.gz"),
    model(
        "social",
        "models/social",
        "models/social/social.did",
        "models/social.wasm.gz",
    ),
    model(
        "store",
        "models/store",
        "models/store/store.did",
        "models/store.wasm.gz",
    ),
    model(
        "token",
        "models/token",
        "models/token/token.did",
        "models/token.wasm.gz",
    ),
];

/// A modelled application in Rust.
const fn model(name: &'static str, source: &'static str, interface: &'static str, module: &'static str) -> Recipe {
    Recipe {
        name,
        toolchain: Toolchain::Rust("wasm32-unknown-unknown"),
        source,
        interface,
        module,
    }
}

/// Compiles what was asked for.
pub fn run(options: &Options) -> Result<()> {
    let folder = shell::root().join("workloads/canisters");
    if let Some(unknown) = options
        .names
        .iter()
        .find(|name| RECIPES.iter().all(|recipe| recipe.name != **name))
    {
        return Err(format!("no canister is named {unknown}"));
    }
    let asked = |recipe: &&Recipe| options.names.is_empty() || options.names.iter().any(|name| name == recipe.name);
    let quick = |recipe: &&Recipe| matches!(recipe.toolchain, Toolchain::C | Toolchain::Motoko(_));
    for recipe in RECIPES
        .iter()
        .filter(asked)
        .filter(|recipe| !options.check || !options.names.is_empty() || quick(recipe))
    {
        let interface = shell::read(&folder.join(recipe.interface))?;
        let module = with_interface(compile(recipe, &folder)?, &interface);
        let path = folder.join(recipe.module);
        if !options.check {
            let bytes = if is_compressed(&path) {
                compress(&module)?
            } else {
                module
            };
            shell::write(&path, &bytes)?;
            println!("{:<10} {:>9} bytes  {}", recipe.name, bytes.len(), recipe.module);
        } else if read_module(&path)? == module {
            println!("{:<10} as committed", recipe.name);
        } else {
            return Err(format!(
                "{}: compiled module differs, run `cargo xtask canisters {}`",
                recipe.module, recipe.name
            ));
        }
    }
    Ok(())
}

fn compile(recipe: &Recipe, folder: &Path) -> Result<Vec<u8>> {
    let source = folder.join(recipe.source);
    match recipe.toolchain {
        Toolchain::C => compile_c(&source, recipe.name),
        Toolchain::Motoko(version) => compile_motoko(&source, version, &folder.join("motoko64/compile.mjs")),
        Toolchain::Rust(target) => compile_rust(&source, target),
        Toolchain::Azle => compile_azle(&source),
    }
}

fn compile_c(source: &Path, name: &str) -> Result<Vec<u8>> {
    shell::ensure_debian(&["clang-19", "wasm-ld-19"], &["clang-19", "lld-19"])?;
    let module = shell::scratch("canisters-c")?.join(format!("{name}.wasm"));
    shell::run(
        Command::new("clang-19")
            .args([
                "--target=wasm32-unknown-unknown",
                "-O2",
                "-nostdlib",
                "-ffreestanding",
                "-mbulk-memory",
            ])
            .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"])
            .args(["-fuse-ld=/usr/bin/wasm-ld-19", "-Wl,--no-entry", "-Wl,--strip-debug"])
            .arg("-o")
            .arg(&module)
            .arg(source),
    )?;
    shell::read(&module)
}

/// The npm package holds the compiler and its library; nothing else is needed.
fn compile_motoko(source: &Path, version: &str, script: &Path) -> Result<Vec<u8>> {
    let npm = shell::ensure_npm(&format!("motoko-{version}"), &[&format!("motoko@{version}")])?;
    let stem = shell::scratch("canisters-motoko")?.join(version);
    shell::run(
        Command::new("node")
            .arg(script)
            .arg(npm.join("node_modules/motoko"))
            .arg(source)
            .arg(&stem),
    )?;
    shell::read(&stem.with_file_name(format!("{version}.wasm")))
}

/// Where rustup cannot fetch the target, Debian's compiler builds the standard library for it from source.
fn compile_rust(source: &Path, target: &str) -> Result<Vec<u8>> {
    let programs = [
        "/usr/bin/rustc",
        "/usr/bin/cargo",
        "wasm-ld-19",
        "/usr/lib/rustlib/src/rust/library/std/Cargo.toml",
    ];
    if !programs
        .iter()
        .all(|program| shell::exists(program) || Path::new(program).exists())
    {
        shell::ensure_debian(&["/nonexistent"], &["rustc-web", "cargo-web", "rust-web-src", "lld-19"])?;
    }
    let output = shell::scratch("canisters-rust")?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
        .unwrap_or_default();
    // Paths of this machine would otherwise end up in panic messages. Canisters of one workspace have the same flags, so that
    // what they share is compiled once.
    let workspace = source.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    let flags = format!(
        "--remap-path-prefix={}=/cargo --remap-path-prefix={}=/canister",
        home.display(),
        workspace.unwrap_or(source).display()
    );
    let linker = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    shell::run(
        Command::new("/usr/bin/cargo")
            .args([
                "build",
                "--release",
                "--locked",
                "-Zbuild-std=std,panic_abort",
                "--target",
                target,
            ])
            .current_dir(source)
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", flags)
            .env("CARGO_TARGET_DIR", &output)
            .env(linker, "wasm-ld-19")
            .env_remove("CARGO")
            .env_remove("RUSTUP_TOOLCHAIN"),
    )?;
    // The package is named after its folder, except for the application that several languages share.
    let package = source.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let package = if package == "rust" { "app" } else { package };
    shell::read(&output.join(target).join("release").join(format!("{package}.wasm")))
}

fn compile_azle(source: &Path) -> Result<Vec<u8>> {
    let npm = shell::ensure_npm("azle", &["azle@0.33.0"])?;
    std::fs::create_dir_all(npm.join("src")).map_err(|error| format!("{}: {error}", npm.display()))?;
    for file in ["src/index.ts", "dfx.json"] {
        shell::write(&npm.join(file), &shell::read(&source.join(file))?)?;
    }
    shell::run(
        Command::new("npx")
            .args(["--no-install", "azle", "build", "app"])
            .env("CANISTER_CANDID_PATH", ".azle/app/app.did")
            .current_dir(&npm),
    )?;
    shell::read(&npm.join(".azle/app/app.wasm"))
}

/// Appends the interface as the custom section that clients read as metadata, unless the toolchain has put one in.
fn with_interface(mut module: Vec<u8>, interface: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"icp:public candid:service";
    if module.windows(NAME.len()).any(|window| window == NAME) {
        return module;
    }
    let name_size = u8::try_from(NAME.len()).expect("the name is short");
    assert!(name_size < 0x80, "one byte of LEB128");
    module.push(0);
    push_leb(&mut module, 1 + NAME.len() + interface.len());
    module.push(name_size);
    module.extend_from_slice(NAME);
    module.extend_from_slice(interface);
    module
}

fn push_leb(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .map_err(|error| error.to_string())
}

/// Reads a module, unpacked if its name ends in `.gz`.
pub fn read_module(path: &Path) -> Result<Vec<u8>> {
    let bytes = shell::read(path)?;
    if !is_compressed(path) {
        return Ok(bytes);
    }
    let mut module = Vec::new();
    GzDecoder::new(&bytes[..])
        .read_to_end(&mut module)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_becomes_a_custom_section_once() {
        let module = b"\0asm\x01\0\0\0".to_vec();
        let interface = [b'x'; 200];
        let once = with_interface(module.clone(), &interface);
        // section id, size of 226 in two bytes, size of the name, name, interface
        assert_eq!(once.len(), module.len() + 1 + 2 + 1 + 25 + 200);
        assert_eq!(once[8..12], [0, 0xe2, 0x01, 25]);
        assert_eq!(with_interface(once.clone(), &interface), once);
    }

    #[test]
    fn every_committed_module_is_wasm_and_names_its_interface() {
        let folder = shell::root().join("workloads/canisters");
        for recipe in &RECIPES {
            let module = read_module(&folder.join(recipe.module)).unwrap();
            assert_eq!(&module[..4], b"\0asm", "{}", recipe.name);
            let name = b"icp:public candid:service";
            assert!(
                module.windows(name.len()).any(|window| window == name),
                "{}",
                recipe.name
            );
        }
    }
}
