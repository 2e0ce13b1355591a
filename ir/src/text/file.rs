//! What a file holds beside the text of its modules: lines between them, and comments that say what to do.
//!
//! Several modules stand in a file with a line [`SEPARATOR`] between every two. Comments `// KEY: value` that
//! a file begins with are its [`Header`]: `RUN` names the passes to run, `TARGET` the machine they run for.
//! File tests, reproducers and `strata opt` read the same ones. Assembly has `;` in place of `//`.

/// What stands between two modules of a file.
pub const SEPARATOR: &str = "// -----";

/// The key of a header's pipeline of passes.
pub const RUN: &str = "RUN";

/// The key of a header's machine.
pub const TARGET: &str = "TARGET";

/// The text of each module of a file. Lines of the others are left empty, so that errors name the lines of
/// the file.
pub fn split_modules(source: &str) -> Vec<String> {
    let mut texts = vec![String::new()];
    let mut n_lines = 0;
    for line in source.split_inclusive('\n') {
        n_lines += 1;
        if line.trim_end() == SEPARATOR {
            texts.push("\n".repeat(n_lines));
        } else if let Some(text) = texts.last_mut() {
            text.push_str(line);
        }
    }
    texts
}

/// The text of a file of these modules.
pub fn join_modules(texts: &[String]) -> String {
    texts.join(&format!("{SEPARATOR}\n"))
}

/// The comments that a file begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    entries: Vec<Entry>,
}

/// A comment `KEY: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// In capitals, with hyphens.
    pub key: String,
    /// Without blanks around it.
    pub value: String,
    /// Its line, from 1.
    pub line: usize,
}

impl Header {
    /// That of a text, in which `marker` begins a comment.
    pub fn read(text: &str, marker: &str) -> Self {
        let comments = text.lines().map_while(|line| match line.trim() {
            "" => Some(""),
            line => line.strip_prefix(marker),
        });
        let entry = |(index, comment): (usize, &str)| {
            let (key, value) = comment.split_once(':')?;
            let key = key.trim();
            let is_key = key.len() > 1 && key.chars().all(|c| c.is_ascii_uppercase() || c == '-');
            is_key.then(|| Entry { key: key.to_owned(), value: value.trim().to_owned(), line: index + 1 })
        };
        Self { entries: comments.enumerate().filter_map(entry).collect() }
    }

    /// Its entries, in their order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_ends_where_the_module_begins() {
        let text = "// RUN: a,b{c=d:e}\n\n// As is: no key.\n// X: one letter\n//TARGET:x1 a=1\nmodule {\n\
                    // RUN: c\n}";
        let header = Header::read(text, "//");
        assert_eq!(header.get(RUN), Some("a,b{c=d:e}"));
        assert_eq!(header.get(TARGET), Some("x1 a=1"));
        assert_eq!(header.entries().iter().map(|entry| entry.line).collect::<Vec<_>>(), [1, 5]);
        assert_eq!(Header::read("; RUN: assemble\nhalt", ";").get(RUN), Some("assemble"));
    }

    #[test]
    fn modules_keep_their_lines() {
        let source = "a\nb\n// -----\nc\n";
        let texts = split_modules(source);
        assert_eq!(texts, ["a\nb\n", "\n\n\nc\n"]);
        assert_eq!(join_modules(&["a\nb\n".to_owned(), "c\n".to_owned()]), source);
    }
}
