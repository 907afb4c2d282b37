//! `buoy key new`: writes a cluster key that nobody else can read, and never over another.

use crate::failure::Failure;
use crate::output;
use buoy_model::limits::KEY_LEN;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where the key goes, unless told otherwise; beside the configuration.
const PATH_DEFAULT: &str = "/etc/buoy/cluster.key";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Write a new random key; an existing file is never overwritten
    New(NewArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct NewArguments {
    /// Where to write it; `-` is standard output
    #[arg(value_name = "PATH", default_value = PATH_DEFAULT)]
    path: PathBuf,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::New(arguments) => new(&arguments.path),
    }
}

fn new(path: &Path) -> Result<(), Failure> {
    let mut key = [0; KEY_LEN];
    getrandom::fill(&mut key)
        .map_err(|error| Failure::failed(format!("the kernel gives no random bytes: {error}")))?;
    let text = buoy_config::key::format(&key);
    if path == Path::new("-") {
        return output::text(&text);
    }
    write_new(path, &text).map_err(|error| Failure::failed(explain(path, &error)))?;
    output::text(&next_steps(path))
}

/// Writes the file and makes sure that it is on the disk; half a key is no key.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // The file is our own, made a moment ago. If it cannot even be removed, the first error counts.
        drop(fs::remove_file(path));
    }
    written
}

fn explain(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    if error.kind() == io::ErrorKind::AlreadyExists {
        return format!(
            "{path} exists and stays as it is: write the new key to another file, and see \
             `secret = [\"file:new\", \"file:old\"]` for how a cluster changes its key"
        );
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return format!("{path} cannot be written by this user: use sudo, or name another path");
    }
    format!("cannot write {path}: {error}")
}

fn next_steps(path: &Path) -> String {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    format!(
        "{path} is written, readable by its owner only.\n\
         Next: copy it to every host of the cluster, beside buoy.toml, over a channel you trust\n\
         (scp -p {path} HOST:{path}), and name it in buoy.toml: secret = \"file:{file}\"\n",
        path = path.display()
    )
}
