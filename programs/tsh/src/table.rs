//! Tables for people.

use std::borrow::Cow;
use std::io::stdout;
use std::iter::repeat_n;

use client::text;

/// Space between columns.
const GAP: usize = 1;
/// The last column is never narrower than this.
const NARROWEST: usize = 16;

/// A table with a header. Cells come from others and are shown as [`text::line`] shows them.
#[derive(Debug)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    fit: bool,
}

impl Table {
    /// An empty table.
    pub fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(|&title| title.to_owned()).collect(), rows: Vec::new(), fit: false }
    }

    /// Cuts the last column where the terminal ends.
    #[must_use]
    pub fn fit_terminal(mut self, fit: bool) -> Self {
        self.fit = fit;
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let clean = |cell: String| match text::line(&cell) {
            Cow::Owned(changed) => changed,
            Cow::Borrowed(_) => cell,
        };
        self.rows.push(cells.into_iter().map(|cell| clean(cell.into())).collect());
    }

    /// The text, with a newline after each row.
    pub fn render(&self) -> String {
        let width = terminal_size::terminal_size_of(stdout()).map(|(width, _)| usize::from(width.0));
        self.render_within(width.filter(|_| self.fit))
    }

    /// The rows alone.
    pub fn render_rows(&self) -> String {
        let (widths, mut text) = (self.widths(&self.rows), String::new());
        self.rows.iter().for_each(|row| line(&mut text, row, &widths));
        text
    }

    fn render_within(&self, width: Option<usize>) -> String {
        let cut = width.map(|width| self.cut(width));
        let rows = cut.as_ref().unwrap_or(&self.rows);
        let titles = self.header.iter().map(|title| length(title));
        let widths: Vec<usize> =
            self.widths(rows).into_iter().zip(titles).map(|(cell, title)| cell.max(title)).collect();
        let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let mut text = String::new();
        [&self.header, &dashes].into_iter().chain(rows).for_each(|row| line(&mut text, row, &widths));
        text
    }

    /// The rows with the last column cut where so wide a terminal ends.
    fn cut(&self, width: usize) -> Vec<Vec<String>> {
        let (mut rows, widths) = (self.rows.clone(), self.widths(&self.rows));
        let others = widths.split_last().map_or(&[][..], |(_, others)| others);
        let header: usize = self.header.iter().rev().skip(1).map(|title| length(title)).sum();
        let taken = others.iter().sum::<usize>().max(header) + others.len() * GAP;
        let room = width.saturating_sub(taken).max(NARROWEST);
        for cell in rows.iter_mut().filter_map(|row| row.last_mut()).filter(|cell| length(cell) > room) {
            *cell = cell.chars().take(room - 3).chain("...".chars()).collect();
        }
        rows
    }

    fn widths(&self, rows: &[Vec<String>]) -> Vec<usize> {
        let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell)).max();
        (0..self.header.len()).map(|column| widest(column).unwrap_or(0)).collect()
    }
}

fn length(cell: &str) -> usize {
    cell.chars().count()
}

/// Adds a row whose cells are as wide as these.
fn line(text: &mut String, cells: &[String], widths: &[usize]) {
    let start = text.len();
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str(cell);
        text.extend(repeat_n(' ', width.saturating_sub(length(cell)) + GAP));
    }
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["Node Name", "Labels"]);
        table.row(["node1", "env=test,team=core,owner=somebody"]);
        table.row(["a-long-name", "x"]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let expected = "Node Name   Labels\n\
                        ----------- ---------------------------------\n\
                        node1       env=test,team=core,owner=somebody\n\
                        a-long-name x\n";
        assert_eq!(table().render_within(None), expected);
    }

    #[test]
    fn the_last_column_is_cut_where_the_terminal_ends() {
        let rendered = table().render_within(Some(30));
        assert!(rendered.contains("node1       env=test,team=c...\n"), "{rendered}");
        assert!(rendered.lines().all(|line| line.len() <= 30));
    }

    #[test]
    fn an_empty_table_has_a_header() {
        assert_eq!(Table::new(&["A", "B"]).render_within(None), "A B\n- -\n");
    }
}
