//! `buoy config fmt`: sets a file in order, and leaves alone what it means.

use super::FILE_DEFAULT;
use crate::failure::{Exit, Failure};
use crate::output;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Bytes of a text from standard input.
const TEXT_MAX: u64 = buoy_model::limits::CONFIG_BYTES_MAX as u64;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The configuration file; `-` reads standard input and writes standard output
    #[arg(value_name = "FILE", default_value = FILE_DEFAULT)]
    file: PathBuf,
    /// Change nothing: exit 1 when the file is not in order
    #[arg(long)]
    check: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let is_stream = arguments.file == Path::new("-");
    let before = if is_stream { standard_input()? } else { read(&arguments.file)? };
    let name =
        if is_stream { "standard input".into() } else { arguments.file.display().to_string() };
    let Some(after) = buoy_config::format::format(&before) else {
        return Err(refused(&before, &name)?);
    };
    match (arguments.check, is_stream) {
        (true, _) if after == before => Ok(()),
        (true, _) => Err(Failure::failed(format!(
            "{name} is not in order: `buoy config fmt {}`",
            arguments.file.display()
        ))),
        (false, true) => output::text(&after),
        (false, false) if after == before => output::text(&format!("{name}: in order already\n")),
        (false, false) => {
            replace(&arguments.file, &after)
                .map_err(|error| Failure::failed(format!("cannot write {name}: {error}")))?;
            output::text(&format!("{name}: set in order\n"))
        }
    }
}

pub(super) fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))
}

pub(super) fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(TEXT_MAX + 1).read_to_string(&mut text);
    let read =
        read.map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    if read as u64 > TEXT_MAX {
        return Err(Failure::failed(format!("standard input is longer than {TEXT_MAX} bytes")));
    }
    Ok(text)
}

/// The problems of a text that is no TOML.
fn refused(text: &str, name: &str) -> Result<Failure, Failure> {
    match buoy_config::check_offline(text, name) {
        Err(report) => {
            output::text(&report.render(output::width(), output::colour()))?;
            Ok(Failure::said(Exit::Config))
        }
        Ok(_) => Ok(Failure::failed(format!(
            "{name}: setting it in order would change what it means; nothing was changed"
        ))),
    }
}

/// Puts a text in the place of a file at once, with the rights that the file had.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    // A link stays a link.
    let file = file.canonicalize()?;
    let folder = file.parent().unwrap_or_else(|| Path::new("/"));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    let before = std::fs::metadata(&file)?;
    std::os::unix::fs::fchown(new.as_file(), Some(owner(&before).0), Some(owner(&before).1))?;
    new.as_file().set_permissions(before.permissions())?;
    new.as_file().sync_all()?;
    new.persist(&file).map(drop).map_err(|error| error.error)
}

fn owner(file: &std::fs::Metadata) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    (file.uid(), file.gid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn every_example_is_in_order() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
        for entry in std::fs::read_dir(root).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_some_and(|ext| ext == "toml") {
                let text = std::fs::read_to_string(&file).unwrap();
                assert_eq!(buoy_config::format::format(&text), Some(text), "{}", file.display());
            }
        }
    }

    #[test]
    fn a_file_is_replaced_with_its_rights_and_a_bad_one_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("buoy.toml");
        std::fs::write(&file, "a=1\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let arguments = |check| Arguments { file: file.clone(), check };
        assert_eq!(run(&arguments(true)).unwrap_err().exit, Exit::Failed);
        assert_eq!(run(&arguments(false)), Ok(()));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a = 1\n");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(run(&arguments(true)), Ok(()));
        std::fs::write(&file, "a = [\n").unwrap();
        assert_eq!(run(&arguments(false)).unwrap_err().exit, Exit::Config);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a = [\n");
    }
}
