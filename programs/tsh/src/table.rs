//! Tables for people.

use std::io::stdout;

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
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|cell| text::line(cell.as_ref()).into_owned()).collect());
    }

    /// The text, with a newline after each row.
    pub fn render(&self) -> String {
        let width = terminal_size::terminal_size_of(stdout()).map(|(width, _)| usize::from(width.0));
        self.render_within(width.filter(|_| self.fit))
    }

    /// The rows alone.
    pub fn render_rows(&self) -> String {
        let widths = self.widths(&self.rows);
        self.rows.iter().map(|row| line(row, &widths)).collect()
    }

    fn render_within(&self, width: Option<usize>) -> String {
        let mut rows = self.rows.clone();
        if let Some(width) = width {
            self.cut(&mut rows, width);
        }
        let all: Vec<_> = std::iter::once(self.header.clone()).chain(rows.iter().cloned()).collect();
        let widths = self.widths(&all);
        let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let mut rendered = line(&self.header, &widths) + &line(&dashes, &widths);
        rendered.extend(rows.iter().map(|row| line(row, &widths)));
        rendered
    }

    fn cut(&self, rows: &mut [Vec<String>], width: usize) {
        let widths = self.widths(rows);
        let Some((_, others)) = widths.split_last() else { return };
        let header: usize = self.header.iter().rev().skip(1).map(|title| length(title)).sum();
        let taken = others.iter().sum::<usize>().max(header) + others.len() * GAP;
        let room = width.saturating_sub(taken).max(NARROWEST);
        for cell in rows.iter_mut().filter_map(|row| row.last_mut()).filter(|cell| length(cell) > room) {
            *cell = cell.chars().take(room - 3).chain("...".chars()).collect();
        }
    }

    fn widths(&self, rows: &[Vec<String>]) -> Vec<usize> {
        let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell)).max();
        (0..self.header.len()).map(|column| widest(column).unwrap_or(0)).collect()
    }
}

fn length(cell: &str) -> usize {
    cell.chars().count()
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| {
        let padding = " ".repeat(width.saturating_sub(length(cell)) + GAP);
        format!("{cell}{padding}")
    });
    padded.collect::<String>().trim_end().to_owned() + "\n"
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
