//! Shows a list once, or again with every change (`-w`).

use crate::Asking;
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::status::draw;
use buoy_api::ClientError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::thread::sleep;
use std::time::Duration;

/// Ages go on, news or not.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a list is asked for.
#[derive(clap::Args, Debug)]
pub(crate) struct Listing {
    #[command(flatten)]
    asking: Asking,
    /// Go on with every change, and at least every second, until Ctrl-C; JSON is one line each time then
    #[arg(short, long)]
    watch: bool,
}

impl Listing {
    /// Whether it goes on.
    pub(crate) const fn is_watch(&self) -> bool {
        self.watch
    }

    pub(crate) fn client(&self) -> Result<buoy_api::Client, Failure> {
        self.asking.client()
    }

    /// Shows what the agent answers there: `of` makes of it what programs get, `table` what people see.
    pub(crate) fn show<T: DeserializeOwned, S: Serialize>(
        &self,
        target: &str,
        of: impl Fn(T) -> S,
        table: impl Fn(&S) -> String,
    ) -> Result<(), Failure> {
        let client = self.asking.client()?;
        if !self.watch {
            return self.asking.show(&of(client.list(target)?), table);
        }
        loop {
            let mut shown = Ok(());
            let ended = client.follow_list(target, LOOK_EVERY, |answer| {
                shown = look(self.asking.output, answer.map(&of), &table);
                shown.is_ok()
            });
            shown?;
            // An agent that restarts is worth waiting for, before one's eyes.
            if let Err(error) = ended {
                look(self.asking.output, Err(error), &table)?;
            }
            sleep(LOOK_EVERY);
        }
    }
}

/// One look of many.
fn look<S: Serialize>(
    form: Form,
    answer: Result<S, ClientError>,
    table: impl Fn(&S) -> String,
) -> Result<(), Failure> {
    match (form, answer) {
        (form @ (Form::Json | Form::Yaml), Ok(list)) => output::item(form, &list),
        (Form::Json | Form::Yaml, Err(error)) => Err(error.into()),
        (Form::Table, Ok(list)) => draw(&table(&list)),
        (Form::Table, Err(error)) => draw(&format!("{error}\n")),
    }
}
