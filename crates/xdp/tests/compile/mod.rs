//! How an object in `prebuilt/` is made from its source, the same on every machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs, by the names of their files without the endings.
pub(crate) const PROGRAMS: &[&str] = &["gate", "forward", "backend", "bench", "via"];

/// The compiler that the committed objects are made with; another one gives other bytes.
pub(crate) const CLANG: &str = "clang-19";
const STRIP: &str = "llvm-strip-19";

/// The committed object.
pub(crate) fn prebuilt(program: &str) -> PathBuf {
    root().join("prebuilt").join(format!("{program}.bpf.o"))
}

/// Whether the compiler can be run here.
pub(crate) fn available() -> bool {
    [CLANG, STRIP]
        .iter()
        .all(|tool| Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success()))
}

/// Compiles one program into `directory` and gives the object's bytes.
pub(crate) fn compile(program: &str, directory: &Path) -> Result<Vec<u8>, String> {
    let object = directory.join(format!("{program}.bpf.o"));
    let root = root();
    let mut clang = Command::new(CLANG);
    clang
        .current_dir(&root)
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror"])
        // Debian keeps asm/types.h per architecture; the types are the same on all 64-bit ones.
        .args(include_directories())
        .arg(format!("-ffile-prefix-map={}=.", root.display()))
        .args(["-fdebug-compilation-dir=.", "-c"])
        .arg(format!("bpf/{program}.bpf.c"))
        .arg("-o")
        .arg(&object);
    run(clang)?;
    // Debug sections name the compiler's own files; what the loader needs is in .BTF.
    let mut strip = Command::new(STRIP);
    strip.arg("-g").arg(&object);
    run(strip)?;
    fs::read(&object).map_err(|e| format!("{}: {e}", object.display()))
}

fn include_directories() -> Vec<String> {
    ["x86_64", "aarch64", "riscv64"]
        .iter()
        .map(|machine| format!("/usr/include/{machine}-linux-gnu"))
        .filter(|directory| Path::new(directory).exists())
        .map(|directory| format!("-I{directory}"))
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn run(mut command: Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}
