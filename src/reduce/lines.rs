//! Fewer lines of a text.

use super::Progress;

/// The lines of a text without which it no longer fails: runs of lines that halve are left out in turn, and
/// at last single ones, until none can be.
pub fn reduce_lines(
    text: &str,
    still_fails: &mut dyn FnMut(&str) -> bool,
    observer: &mut dyn FnMut(Progress),
) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut n_tried = 0;
    let mut length = lines.len().div_ceil(2);
    while length > 0 {
        let before = lines.len();
        let mut at = 0;
        while at < lines.len() {
            let end = lines.len().min(at + length);
            let without: String = lines[..at].iter().chain(&lines[end..]).copied().collect();
            n_tried += 1;
            if still_fails(&without) {
                lines.drain(at..end);
            } else {
                at = end;
            }
            observer(Progress { n_tried, n_left: lines.len() });
        }
        // Single lines once more, as long as that helps.
        length = if length == 1 && lines.len() < before { 1 } else { length / 2 };
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_it_takes_are_left() {
        let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let mut n_tried = 0;
        let mut fails = |text: &str| {
            n_tried += 1;
            ["line 17\n", "line 512\n", "line 999\n"].iter().all(|line| text.contains(line))
        };
        let reduced = reduce_lines(&text, &mut fails, &mut |_| {});
        assert_eq!(reduced, "line 17\nline 512\nline 999\n");
        assert!(n_tried < 120, "{n_tried}");
    }
}
