//! Tables in Markdown, for terminals and pages alike.

/// A table under construction; the first column stands to the left, the others to the right.
#[derive(Clone, Debug)]
pub(super) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(super) fn new<H: ToString>(header: &[H]) -> Self {
        Self { header: header.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn row<C: ToString>(&mut self, cells: &[C]) {
        self.rows.push(cells.iter().map(|cell| cell.to_string().replace('|', "\\|")).collect());
    }

    /// The table in Markdown.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = (0..self.header.len()).map(|at| if at == 0 { "---|" } else { "---:|" });
        let mut text = line(&self.header);
        text += &format!("|{}\n", rule.collect::<String>());
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }
}

/// Millions of bytes, without a unit.
pub(super) fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// A signed change in percent.
pub(super) fn change(from: f64, to: f64) -> String {
    if from == 0.0 {
        return "-".to_owned();
    }
    let percent = (to / from - 1.0) * 100.0;
    // What rounds to nothing has no sign.
    if percent.abs() < 0.05 { "0.0 %".to_owned() } else { format!("{percent:+.1} %") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_markdown() {
        let mut table = Table::new(&["a", "b"]);
        table.row(&["x|y", "1"]);
        assert_eq!(table.markdown(), "| a | b |\n|---|---:|\n| x\\|y | 1 |\n");
    }

    #[test]
    fn changes_have_a_sign_unless_there_is_none() {
        assert_eq!([change(100.0, 110.0), change(100.0, 99.0)], ["+10.0 %", "-1.0 %"]);
        assert_eq!([change(100.0, 100.01), change(0.0, 1.0)], ["0.0 %", "-"]);
    }
}
