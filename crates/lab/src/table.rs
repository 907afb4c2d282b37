//! Text tables for people: columns as wide as they must be, numbers to the right.

/// Renders rows under their headings; a column whose heading starts with `>` is for numbers.
pub fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widest.max(heading.trim_start_matches('>').chars().count())
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for ((cell, heading), width) in cells.iter().zip(headings).zip(&widths) {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            let number = heading.starts_with('>');
            text += if number { &pad } else { "" };
            text += cell;
            text += if number { "  " } else { &pad };
            text += if number { "" } else { "  " };
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(headings.iter().map(|h| h.trim_start_matches('>')).collect());
    text += &line(
        widths
            .iter()
            .map(|w| "-".repeat(*w))
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str)
            .collect(),
    );
    for row in rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let rows =
            [vec!["drain".to_owned(), "0".to_owned()], vec!["cut".to_owned(), "12".to_owned()]];
        let text = render(&["fault", ">ms"], &rows);
        assert_eq!(text, "fault  ms\n-----  --\ndrain   0\ncut    12\n");
    }
}
