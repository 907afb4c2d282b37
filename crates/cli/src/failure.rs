//! How a command fails: a sentence for the operator and an exit code for scripts.

use buoy_api::ClientError;
use std::fmt::Display;
use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Printed after "buoy: "; empty: everything is said already.
    pub(crate) message: String,
}

/// The exit codes; 0 is success, and 2 also clap's, of wrong usage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// It did not work; of `doctor`: not all is as well as it could be.
    Failed = 1,
    /// There was nothing to do it with; of `doctor`: the host cannot do its duty.
    Nothing = 2,
    /// No agent answers.
    Unreachable = 3,
    /// Whoever asks may not, or has to say `--yes`.
    Forbidden = 4,
    /// The configuration is bad (`EX_CONFIG` of sysexits).
    Config = 78,
}

impl Failure {
    /// It did not work, and this is why.
    pub(crate) fn failed(message: impl Display) -> Self {
        Self { exit: Exit::Failed, message: message.to_string() }
    }

    /// It is not to be done without a word more.
    pub(crate) fn forbidden(message: impl Display) -> Self {
        Self { exit: Exit::Forbidden, message: message.to_string() }
    }

    /// The end of a command whose output says already what is wrong.
    pub(crate) const fn said(exit: Exit) -> Self {
        Self { exit, message: String::new() }
    }

    /// Prints it, and ends in its exit code.
    #[expect(clippy::print_stderr, reason = "the one place where a failure is printed")]
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("buoy: {}", self.message.trim_end());
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NotListening { .. }
            | ClientError::Silent { .. }
            | ClientError::Broken { .. } => Exit::Unreachable,
            // The agent is well: it is the user who may not.
            ClientError::NotAllowed { .. } => Exit::Forbidden,
            ClientError::Refused(problem) if problem.code == "config" => Exit::Config,
            ClientError::Refused(problem) if [401, 403].contains(&problem.status) => {
                Exit::Forbidden
            }
            ClientError::Refused(_) | ClientError::NotUnderstood { .. } => Exit::Failed,
        };
        let message = match &error {
            // A report of several lines begins on a line of its own.
            ClientError::Refused(problem) if exit == Exit::Config => {
                format!("{}\n{}", problem.title, problem.detail)
            }
            ClientError::NotListening { .. }
            | ClientError::NotAllowed { .. }
            | ClientError::Silent { .. }
            | ClientError::Broken { .. }
            | ClientError::Refused(_)
            | ClientError::NotUnderstood { .. } => error.to_string(),
        };
        Self { exit, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::Problem;
    use std::path::PathBuf;

    #[test]
    fn scripts_can_tell_failures_apart() {
        let refused =
            |code: &str| ClientError::Refused(Box::new(Problem::new(409, code, "t", "d")));
        let absent = ClientError::NotListening { path: PathBuf::from("/x") };
        assert_eq!(Failure::from(absent).exit, Exit::Unreachable);
        let closed = ClientError::NotAllowed { path: PathBuf::from("/x") };
        assert_eq!(Failure::from(closed).exit, Exit::Forbidden);
        let role = Problem::new(403, "role", "t", "d");
        assert_eq!(Failure::from(ClientError::Refused(Box::new(role))).exit, Exit::Forbidden);
        assert_eq!(Failure::from(refused("config")).exit, Exit::Config);
        assert_eq!(Failure::from(refused("config")).message, "t\nd");
        assert_eq!(Failure::from(refused("unknown_vip")).exit, Exit::Failed);
        assert_eq!(Failure::from(refused("unknown_vip")).message, "t: d");
    }
}
