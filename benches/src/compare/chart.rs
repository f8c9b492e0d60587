//! Charts in Markdown: Mermaid's, which forges draw, and whose source can be read too.

use std::fmt::Write as _;

/// Bars side by side, or with `line` a line through them.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) line: bool,
    points: Vec<(String, f64)>,
}

impl Chart {
    pub(super) fn bars(title: impl Into<String>) -> Self {
        Self { title: title.into(), line: false, points: Vec::new() }
    }

    pub(super) fn line(title: impl Into<String>) -> Self {
        Self { line: true, ..Self::bars(title) }
    }

    /// What has no figure is left out.
    pub(super) fn point(&mut self, name: &str, value: Option<f64>) {
        self.points.extend(value.map(|value| (name.to_owned(), value)));
    }

    /// With one point there is nothing to compare.
    pub(super) fn is_empty(&self) -> bool {
        self.points.len() < 2
    }
}

impl std::fmt::Display for Chart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut names = String::new();
        let mut values = String::new();
        let highest = self.points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        for (number, (name, value)) in self.points.iter().enumerate() {
            let before = if number == 0 { "" } else { ", " };
            write!(names, "{before}\"{name}\"")?;
            write!(values, "{before}{value:.1}")?;
        }
        let kind = if self.line { "line" } else { "bar" };
        writeln!(f, "```mermaid\nxychart-beta\n    title \"{}\"", self.title)?;
        writeln!(f, "    x-axis [{names}]\n    y-axis 0 --> {:.1}\n    {kind} [{values}]\n```", highest * 1.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_what_was_measured() {
        let mut chart = Chart::bars("Processor time, µs");
        chart.point("yardstick", Some(16.04));
        assert!(chart.is_empty(), "nothing to compare it with");
        chart.point("nobody", None);
        chart.point("Squid", Some(60.0));

        assert_eq!(
            chart.to_string(),
            "```mermaid\nxychart-beta\n    title \"Processor time, µs\"\n    x-axis [\"yardstick\", \"Squid\"]\n    \
             y-axis 0 --> 66.0\n    bar [16.0, 60.0]\n```\n"
        );
    }
}
