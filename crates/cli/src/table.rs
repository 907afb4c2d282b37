//! Sets rows in columns: as wide as the widest cell, two spaces apart, nothing behind the last one.

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A row is said in bold, plainly, or as something that is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tone {
    Plain,
    Wrong,
}

/// A table under construction.
#[derive(Clone, Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<(Tone, [String; N])>,
}

impl<const N: usize> Table<N> {
    /// A table with these headings.
    pub(crate) const fn new(columns: [(&'static str, Align); N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row. An empty cell is printed as a dash, so that columns can be counted by programs.
    pub(crate) fn row(&mut self, tone: Tone, cells: [String; N]) {
        self.rows.push((tone, cells.map(|cell| shown(&cell))));
    }

    /// Adds a row that continues the one above: an empty cell stays empty.
    pub(crate) fn continuation(&mut self, tone: Tone, cells: [String; N]) {
        self.rows.push((tone, cells.map(|cell| plain(&cell))));
    }

    /// The finished text.
    pub(crate) fn render(&self, colour: bool) -> String {
        let mut widths = self.columns.map(|(heading, _)| heading.chars().count());
        for (_, cells) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let headings = self.columns.map(|(heading, _)| heading.to_owned());
        let mut text = painted(&self.line(&headings, &widths), "1", colour);
        for (tone, cells) in &self.rows {
            let line = self.line(cells, &widths);
            text.push_str(&match tone {
                Tone::Plain => painted(&line, "", colour),
                Tone::Wrong => painted(&line, "31", colour),
            });
        }
        text
    }

    fn line(&self, cells: &[String; N], widths: &[usize; N]) -> String {
        let mut line = String::new();
        for ((cell, width), (_, align)) in cells.iter().zip(*widths).zip(self.columns) {
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}  ")),
                Align::Right => line.push_str(&format!("{cell:>width$}  ")),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// A line in a colour of the terminal, or as it is.
pub(crate) fn painted(line: &str, code: &str, colour: bool) -> String {
    if colour && !code.is_empty() {
        format!("\x1b[{code}m{line}\x1b[0m\n")
    } else {
        format!("{line}\n")
    }
}

/// A cell's text.
fn shown(cell: &str) -> String {
    if cell.is_empty() { "-".into() } else { plain(cell) }
}

/// Running text in lines of so many columns; all but the first are set in by so many spaces.
pub(crate) fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let mut lines = String::new();
    let mut column = indent;
    for word in text.split(' ') {
        let length = word.chars().count();
        if lines.is_empty() {
            lines.push_str(word);
        } else if column.saturating_add(1 + length) > width {
            lines.push_str(&format!("\n{:indent$}{word}", ""));
            column = indent;
        } else {
            lines.push_str(&format!(" {word}"));
            column += 1;
        }
        column = column.saturating_add(length);
    }
    lines
}

/// What came over the network must not steer the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<3> {
        let mut table =
            Table::new([("NODE", Align::Left), ("OWNS", Align::Right), ("PROBLEM", Align::Left)]);
        let row = |a: &str, b: &str, c: &str| [a, b, c].map(str::to_owned);
        table.row(Tone::Plain, row("lb1", "12", ""));
        table.row(Tone::Wrong, row("a-long-name", "0", "silent"));
        table.continuation(Tone::Plain, row("", "", "since \x1b[31mlong\n"));
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let expected = "\
NODE         OWNS  PROBLEM
lb1            12  -
a-long-name     0  silent
                   since ?[31mlong?
";
        assert_eq!(table().render(false), expected);
    }

    #[test]
    fn colour_changes_no_column() {
        let plain = table().render(false);
        let mut painted = table().render(true);
        assert!(painted.contains("\x1b[31ma-long-name"));
        for code in ["\x1b[1m", "\x1b[31m", "\x1b[0m"] {
            painted = painted.replace(code, "");
        }
        assert_eq!(painted, plain);
    }

    #[test]
    fn running_text_breaks_between_words_where_the_terminal_ends() {
        let text = "one two three four";
        assert_eq!(wrapped(text, 0, usize::MAX), text);
        assert_eq!(wrapped(text, 2, 12), "one two\n  three four");
        assert_eq!(wrapped(text, 0, 13), "one two three\nfour");
        assert_eq!(wrapped("a-very-long-word b", 2, 5), "a-very-long-word\n  b");
        assert_eq!(wrapped("", 2, 5), "");
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        let table = Table::new([("VIP", Align::Left), ("OWNER", Align::Left)]);
        assert_eq!(table.render(false), "VIP  OWNER\n");
    }
}
