//! `buoy version`: what this binary is.

use crate::failure::Failure;
use crate::output::{self, Form};
use serde::Serialize;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    architecture: &'static str,
    build: &'static str,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        architecture: std::env::consts::ARCH,
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
    };
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &version),
        Form::Table => output::text(&format!(
            "buoy {} ({}, {} build)\n",
            version.version, version.architecture, version.build
        )),
    }
}
