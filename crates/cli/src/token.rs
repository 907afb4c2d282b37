//! `buoy token new`: makes a token for a user of the API over TCP; what is kept of it is a hash.

use crate::failure::Failure;
use crate::output;
use buoy_config::{Role, TOKEN_LEN, Token};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print a new token, once, and the line that lets its user in
    New(NewArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct NewArguments {
    /// Who gets it: the name that stands in the records
    #[arg(value_name = "NAME")]
    name: String,
    /// What he may do: ask; order (move, hold, drain); change the configuration
    #[arg(long, value_enum)]
    role: Given,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Given {
    /// Ask
    Read,
    /// Order as well: move, hold, drain
    Operate,
    /// Change the configuration as well
    Admin,
}

pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::New(arguments) => new(arguments),
    }
}

fn new(NewArguments { name, role }: &NewArguments) -> Result<(), Failure> {
    let mut bytes = [0; TOKEN_LEN];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("the kernel gives no random bytes: {error}")))?;
    let role = match role {
        Given::Read => Role::Read,
        Given::Operate => Role::Operate,
        Given::Admin => Role::Admin,
    };
    output::text(&told(name, role, &bytes)?)
}

fn told(name: &str, role: Role, bytes: &[u8; TOKEN_LEN]) -> Result<String, Failure> {
    let (token, line) = Token::make(name, role, bytes).map_err(Failure::failed)?;
    Ok(format!(
        "The token of {name}, shown this once:\n\n  {token}\n\n\
         Its line for the file that `tokens` of [api] names, on every host that is to let {name} in; then `buoy reload`:\n\n  {line}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_once_and_its_line_has_only_the_hash() {
        let text = told("ann", Role::Operate, &[7; TOKEN_LEN]).unwrap();
        let token = format!("buoy_{}", "07".repeat(TOKEN_LEN));
        assert_eq!(text.matches(&token).count(), 1, "{text}");
        let line = text.lines().last().unwrap().trim();
        assert!(line.starts_with("ann operate ") && !line.contains("0707"), "{line}");
        assert!(told("an n", Role::Read, &[7; TOKEN_LEN]).is_err());
    }
}
