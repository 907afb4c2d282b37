//! Writes the committed objects anew after a change of `bpf/`; needs clang-19, llvm-19, libbpf-dev.
#![allow(clippy::print_stdout)] // It is run by hand and says what it did.

#[path = "../tests/compile/mod.rs"]
mod compile;

use std::{env, fs};

fn main() -> Result<(), String> {
    if !compile::available() {
        return Err(format!(
            "{} is missing: apt install clang-19 llvm-19 libbpf-dev",
            compile::CLANG
        ));
    }
    for program in compile::PROGRAMS {
        let object = compile::compile(program, &env::temp_dir())?;
        let prebuilt = compile::prebuilt(program);
        fs::write(&prebuilt, &object).map_err(|e| format!("{}: {e}", prebuilt.display()))?;
        println!("{program}: {} bytes", object.len());
    }
    Ok(())
}
