//! Says on one line of a person's terminal what a command waits for, once that takes longer than a second.
//!
//! A thread draws it, so that a question that blocks is shown as well. The line is taken away before anything else is
//! printed, and nothing is drawn where standard error is no terminal: logs and pipes have only the answer.

use crate::table::plain;
use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What is over sooner needs no line.
const AFTER: Duration = Duration::from_secs(1);
/// Between two pictures.
const TURN: Duration = Duration::from_millis(100);
const PICTURES: [char; 4] = ['|', '/', '-', '\\'];
/// Characters of the text: the line must fit one row of any terminal.
const TEXT_MAX: usize = 64;
/// Goes to the beginning of the line and empties it.
const CLEAR: &str = "\r\x1b[K";

/// A line that is there until this is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    text: Arc<Mutex<String>>,
    drawing: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Says so on standard error, if a person sees it.
    pub(crate) fn start(text: &str) -> Self {
        let text = Arc::new(Mutex::new(text.to_owned()));
        if !io::stderr().is_terminal() {
            return Self { text, drawing: None };
        }
        Self::on(io::stderr(), text, AFTER)
    }

    fn on(out: impl Write + Send + 'static, text: Arc<Mutex<String>>, after: Duration) -> Self {
        let (stop, stopped) = channel();
        let shown = Arc::clone(&text);
        let drawing = thread::spawn(move || draw(out, &shown, after, &stopped));
        Self { text, drawing: Some((stop, drawing)) }
    }

    /// Says something else from now on.
    pub(crate) fn say(&self, text: String) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, drawing)) = self.drawing.take() {
            drop(stop);
            // The line is gone before anybody prints another one.
            drop(drawing.join());
        }
    }
}

/// Draws until nobody holds the other end any more.
fn draw(mut out: impl Write, text: &Mutex<String>, after: Duration, stopped: &Receiver<()>) {
    let began = Instant::now();
    let mut wait = after;
    for picture in PICTURES.into_iter().cycle() {
        match stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
        wait = TURN;
        let text = text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Where it cannot be drawn, nobody sees it.
        let _ = write!(out, "{}", line(picture, &text, began.elapsed())).and_then(|()| out.flush());
    }
    if wait == TURN {
        let _ = write!(out, "{CLEAR}").and_then(|()| out.flush());
    }
}

fn line(picture: char, text: &str, elapsed: Duration) -> String {
    let text = plain(text);
    let shown: String = match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    };
    format!("{CLEAR}{picture} {shown} ({} s)", elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was drawn so far.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
        }

        fn wait_for(&self, what: &str) {
            let has = (0..1_000).any(|_| {
                thread::sleep(Duration::from_millis(10));
                self.text().contains(what)
            });
            assert!(has, "{what:?} is not in {:?}", self.text());
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn started(screen: &Screen, after: Duration) -> Progress {
        let text = Arc::new(Mutex::new("web moves to lb2".to_owned()));
        Progress::on(screen.clone(), text, after)
    }

    #[test]
    fn what_takes_long_is_said_turns_and_is_taken_away() {
        let screen = Screen::default();
        let progress = started(&screen, Duration::ZERO);
        screen.wait_for("| web moves to lb2 (0 s)");
        screen.wait_for("/ web moves");
        progress.say("1 of 2 VIPs is left".into());
        screen.wait_for(" 1 of 2 VIPs is left (");
        drop(progress);
        let text = screen.text();
        assert!(text.ends_with(CLEAR), "{text:?}");
    }

    #[test]
    fn what_is_over_soon_draws_nothing() {
        let screen = Screen::default();
        drop(started(&screen, Duration::from_secs(3_600)));
        assert_eq!(screen.text(), "");
    }

    #[test]
    fn a_line_fits_a_row_and_steers_no_terminal() {
        let long = line('|', &"é".repeat(200), Duration::from_millis(61_999));
        assert_eq!(long, format!("{CLEAR}| {}... (61 s)", "é".repeat(TEXT_MAX)));
        let tricky = line('|', "a\x1b[2Jb", Duration::ZERO);
        assert_eq!(tricky, format!("{CLEAR}| a?[2Jb (0 s)"));
    }
}
