//! Judges a text of this host: a file, or what a program has said.

use super::{Answer, Said, lines};
use alloc::format;

/// Whether the text holds what is looked for, and what share it says.
pub fn judge(path: &str, bytes: &[u8], contains: Option<&str>, weighs: bool) -> Answer {
    if let Some(text) = contains {
        let sought = text.as_bytes();
        if !bytes.windows(sought.len().max(1)).any(|window| window == sought) {
            return Err(format!("\"{text}\" is not in {path}"));
        }
    }
    if weighs { weight(bytes, path) } else { Ok(Said::default()) }
}

/// The share that the first line of a text says: what an agent would say, or a bare number.
pub fn weight(bytes: &[u8], of: &str) -> Answer {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
    let said = if !line.is_empty() && line.iter().all(u8::is_ascii_digit) {
        lines::agent(&[line, b"%"].concat())
    } else {
        lines::agent(line)
    };
    let of_it = |text: &str| text.replacen("its agent", of, 1);
    match said {
        Ok(said) => Ok(Said { warning: of_it(&said.warning), ..said }),
        Err(reason) => Err(of_it(&reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    #[test]
    fn a_file_says_what_its_backend_may_take() {
        type Case = (&'static [u8], Option<&'static str>, bool, Result<u16, &'static str>);
        let table: [Case; 9] = [
            (b"all is ready\n", Some("ready"), false, Ok(100)),
            (b"all is rea", Some("ready"), false, Err("\"ready\" is not in /f")),
            (b"", Some("ready"), false, Err("\"ready\" is not in /f")),
            (b"50\n", None, true, Ok(50)),
            (b" 999 \r\n", None, true, Ok(255)),
            (b"drain\n100", None, true, Ok(0)),
            (b"down # backup runs\n", None, true, Err("/f says down: backup runs")),
            (b"", None, true, Err("/f says nothing")),
            (b"75%\nready", Some("ready"), true, Ok(75)),
        ];
        for (bytes, contains, weighs, expected) in table {
            let said = judge("/f", bytes, contains, weighs).map(|said| said.share);
            assert_eq!(said, expected.map_err(str::to_owned), "{bytes:?}");
        }
    }
}
