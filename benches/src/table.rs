//! Tables in Markdown.

use std::fmt::Write as _;

/// A table whose columns line up in plain text, too.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these words above its columns.
    pub fn new(head: impl IntoIterator<Item = String>) -> Self {
        Self { rows: vec![head.into_iter().collect()] }
    }

    /// One more line.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no line yet.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let before = if column == 0 { "| " } else { " | " };
                match column {
                    0 => write!(f, "{before}{cell:<width$}")?,
                    _ => write!(f, "{before}{cell:>width$}")?,
                }
            }
            writeln!(f, " |")?;
            if number == 0 {
                let mut rule = String::new();
                for (column, width) in widths.iter().enumerate() {
                    let end = if column == 0 { "-" } else { ":" };
                    write!(rule, "|{}{end}", "-".repeat(width + 1))?;
                }
                writeln!(f, "{rule}|")?;
            }
        }
        Ok(())
    }
}

/// A number with about three digits that mean something, and thousands set apart.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        small if small < 10.0 => 2,
        medium if medium < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match fraction {
        Some(fraction) => format!("{grouped}.{fraction}"),
        None => grouped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_mean_something() {
        let numbers = [1234567.8, 999.6, 61.25, 4.567, 0.0, -1234.0, -100.0];
        assert_eq!(
            numbers.map(number),
            ["1,234,568", "1,000", "61.2", "4.57", "0.00", "-1,234", "-100"].map(str::to_owned)
        );
    }

    #[test]
    fn a_table_lines_up() {
        let mut table = Table::new(["what", "µs"].map(str::to_owned));
        table.row(["a request", "21.5"].map(str::to_owned));
        assert_eq!(table.to_string(), "| what      |   µs |\n|-----------|-----:|\n| a request | 21.5 |\n");
    }
}
