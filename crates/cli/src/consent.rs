//! Asks before traffic moves, where somebody can be asked.

use crate::failure::Failure;
use crate::output::{self, Form};
use std::io::{self, BufRead as _, IsTerminal as _};

/// An order that moves traffic is seen once more by whoever types it.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Consent {
    /// Do it without asking; nobody is asked in a script either
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Whether it is meant. An order names what it does, so where nobody can be asked it is.
    pub(crate) fn given(self, form: Form, question: &str) -> Result<bool, Failure> {
        if self.yes || !can_be_asked(form) { Ok(true) } else { asked(question) }
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
