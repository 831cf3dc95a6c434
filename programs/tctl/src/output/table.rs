//! Tables of text.

use super::{is_terminal, text};

/// Narrowest a cut column gets.
const NARROWEST: usize = 16;

/// The column that is cut when the table is wider than the terminal; without it, the last one is.
const WIDE: &str = "Labels";

/// Rows below a header.
#[derive(Clone, Debug)]
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<const N: usize>(headers: [&'static str; N]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Cells come from other people, so what could drive the terminal is made visible.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| text::line(cell).into_owned()).collect());
    }

    /// The text, with everything in it.
    pub fn full(&self) -> String {
        self.render(None)
    }

    /// The text, not wider than the terminal if there is one.
    pub fn fitted(&self) -> String {
        let width = terminal_size::terminal_size().filter(|_| is_terminal()).map(|(width, _)| usize::from(width.0));
        self.render(width)
    }

    /// [`full`](Self::full) or [`fitted`](Self::fitted).
    pub fn shown(&self, full: bool) -> String {
        if full { self.full() } else { self.fitted() }
    }

    fn render(&self, width: Option<usize>) -> String {
        let mut widths: Vec<usize> = self.headers.iter().map(|h| length(h)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(length(cell));
            }
        }
        let wide = self.headers.iter().position(|h| *h == WIDE).unwrap_or(self.headers.len().saturating_sub(1));
        let total: usize = widths.iter().map(|w| w + 1).sum::<usize>().saturating_sub(1);
        if let (Some(limit), Some(column)) = (width, widths.get_mut(wide)) {
            let others = total - *column;
            *column = (*column).min(limit.saturating_sub(others).max(NARROWEST));
        }
        let headers: Vec<String> = self.headers.iter().map(|h| (*h).to_owned()).collect();
        let dashes: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
        [headers, dashes].iter().chain(&self.rows).map(|row| line(row, &widths)).collect()
    }
}

/// Lines of a name and a value.
pub fn pairs(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(name, _)| length(name)).max().unwrap_or(0);
    let cells = |(name, value): &(String, String)| [text::line(name).into(), text::line(value).into()];
    rows.iter().map(|row| line(&cells(row), &[width, usize::MAX])).collect()
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let last = cells.len().saturating_sub(1);
    let mut text = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let cell = match length(cell) > *width {
            true => cell.chars().take(width.saturating_sub(3)).chain("...".chars()).collect(),
            false => cell.clone(),
        };
        match at < last {
            true => text.push_str(&format!("{cell:width$} ")),
            false => text.push_str(&cell),
        }
    }
    let mut text = text.trim_end().to_owned();
    text.push('\n');
    text
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Table {
        let mut table = Table::new(["Host", "Labels"]);
        table.row(["node1".into(), "env=prod,team=db,zone=one".into()]);
        table.row(["n\x1b[2J".into(), String::new()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let expected = "\
Host       Labels
---------- -------------------------
node1      env=prod,team=db,zone=one
n\\u{1b}[2J
";
        assert_eq!(nodes().full(), expected);
    }

    #[test]
    fn labels_are_cut_to_fit_the_terminal() {
        let mut table = Table::new(["Host", "Labels", "Version"]);
        table.row(["node1".into(), "env=prod,team=db,zone=one".into(), "17.0.0".into()]);
        let text = table.render(Some(34));
        assert!(
            text.lines().all(|l| l.chars().count() <= 34) && text.ends_with("env=prod,team=db,... 17.0.0\n"),
            "{text}"
        );
        let text = nodes().render(Some(30));
        assert!(text.contains("env=prod,team=db..."), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 30), "{text}");
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(Table::new(["User", "Roles"]).full(), "User Roles\n---- -----\n");
    }

    #[test]
    fn values_stand_under_each_other() {
        let text = pairs(&[("Cluster".into(), "main".into()), ("CA pin".into(), "sha256:0".into())]);
        assert_eq!(text, "Cluster main\nCA pin  sha256:0\n");
    }
}
