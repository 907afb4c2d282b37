//! Asks before traffic moves, and where nobody can be asked has it said on the command line.

use crate::failure::Failure;
use crate::output::{self, Form};
use std::io::{self, BufRead as _, IsTerminal as _};

/// An order that moves traffic is seen once more by whoever types it.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Consent {
    /// Do it without asking; scripts, which nobody can ask, need it
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Whether it is meant.
    pub(crate) fn given(self, form: Form, question: &str) -> Result<bool, Failure> {
        if self.yes {
            return Ok(true);
        }
        if !can_be_asked(form) {
            let why = format!("{question} Nobody can be asked here: say --yes if you mean it");
            return Err(Failure::forbidden(why));
        }
        asked(question)
    }
}

/// Whether a person is there to answer.
pub(crate) fn can_be_asked(form: Form) -> bool {
    form == Form::Table && io::stdin().is_terminal() && output::terminal()
}

/// Asks that person; says so where nothing is done.
pub(crate) fn asked(question: &str) -> Result<bool, Failure> {
    output::text(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Failure::failed)?;
    let is_meant = matches!(answer.trim(), "y" | "Y" | "yes");
    if !is_meant {
        output::text("nothing was changed\n")?;
    }
    Ok(is_meant)
}
