//! `buoy completions` and `buoy man`: what shells and `man` need to know of the command line and of the file.
//!
//! Both follow from the definitions that the program itself reads, so they are never behind it.

use crate::CommandLine;
use crate::failure::Failure;
use crate::output;
use buoy_config::keys::{SCHEMAS, Schema};
use buoy_config::reference;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub(crate) struct CompletionsArguments {
    /// For which shell, as in: buoy completions bash > /etc/bash_completion.d/buoy
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ManArguments {
    /// Write all pages into this folder, as in /usr/local/share/man; without it, print buoy(1)
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &CompletionsArguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "buoy", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}

pub(crate) fn man(arguments: &ManArguments) -> Result<(), Failure> {
    let Some(folder) = &arguments.into else {
        let page = page(&CommandLine::command()).map_err(Failure::failed)?;
        return output::text(&String::from_utf8_lossy(&page));
    };
    let pages = write_all(folder).map_err(|error| {
        Failure::failed(format!("cannot write to {}: {error}", folder.display()))
    })?;
    output::text(&format!("{pages} pages below {}; `man buoy` shows the first\n", folder.display()))
}

fn page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

/// A page for each command, and one for the file; how many.
fn write_all(folder: &Path) -> std::io::Result<usize> {
    let (commands, formats) = (folder.join("man1"), folder.join("man5"));
    fs::create_dir_all(&commands)?;
    fs::create_dir_all(&formats)?;
    let mut line = CommandLine::command();
    line.build();
    let mut pages = 1;
    let mut rest = vec![("buoy".to_owned(), line)];
    while let Some((name, command)) = rest.pop() {
        let names =
            command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
        rest.extend(names.map(|c| (format!("{name}-{}", c.get_name()), c.clone())));
        fs::write(commands.join(format!("{name}.1")), page(&command)?)?;
        pages += 1;
    }
    fs::write(formats.join("buoy.toml.5"), file_page())?;
    Ok(pages)
}

/// buoy.toml(5).
fn file_page() -> String {
    let mut page = Roff::new();
    page.control("TH", ["buoy.toml", "5", "", "buoy"]);
    page.control("SH", ["NAME"]);
    page.text([roman("buoy.toml - the configuration of a cluster, the same file on every host")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "TOML, in /etc/buoy/buoy.toml. `buoy config check` tells every problem at once; `buoy config explain KEY` \
         prints what follows here; `buoy reload` applies what is different.",
    )]);
    SCHEMAS.iter().for_each(|schema| table(schema, &mut page));
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("buoy"), roman("(1), "), bold("buoy-config-check"), roman("(1)")]);
    page.to_roff()
}

fn table(schema: &'static Schema, page: &mut Roff) {
    page.control("SH", [schema.title.to_uppercase().as_str()]);
    for key in schema.keys {
        page.control("TP", []);
        page.text([bold(key.name), roman(format!(" = {}", key.form))]);
        let meaning = reference::meaning(schema, key);
        let reload = key.reload.name();
        page.text([roman(format!("{meaning} Default: {}. Reload: {reload}.", key.default))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_the_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let pages = write_all(folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("man1/buoy.1").contains("buoy\\-status(1)"));
        assert!(read("man1/buoy-config-check.1").contains("offline"));
        let file = read("man5/buoy.toml.5");
        for schema in SCHEMAS {
            for key in schema.keys {
                assert!(file.contains(&format!("\\fB{}\\fR", key.name)), "{}", key.name);
            }
        }
        let written: usize = ["man1", "man5"]
            .iter()
            .map(|part| fs::read_dir(folder.path().join(part)).unwrap().count())
            .sum();
        assert_eq!(written, pages);
        assert!(pages > 30, "{pages}");
    }

    #[test]
    fn bash_itself_completes_commands_options_and_values() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("buoy");
        let mut text = Vec::new();
        clap_complete::generate(Shell::Bash, &mut CommandLine::command(), "buoy", &mut text);
        fs::write(&script, text).unwrap();
        let complete = |words: &[&str]| {
            let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
            let quoted = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            let place = words.len() - 1;
            let said = format!(
                "source {}; COMP_WORDS=({quoted}); COMP_CWORD={place}; _buoy buoy '{last}' '{before}'; \
                 echo ${{COMPREPLY[*]}}",
                script.display()
            );
            let output = std::process::Command::new("bash").args(["-c", &said]).output().unwrap();
            assert!(output.stderr.is_empty(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(complete(&["buoy", "und"]), "undrain\n");
        assert_eq!(complete(&["buoy", "config", "ro"]), "rollback\n");
        assert_eq!(complete(&["buoy", "status", "-o", ""]), "table wide json yaml\n");
        assert_eq!(complete(&["buoy", "move", "--reas"]), "--reason\n");
    }

    #[test]
    fn shells_complete_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "buoy", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("doctor") && script.contains("undrain"), "{shell}");
        }
    }
}
