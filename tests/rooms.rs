//! The rooms of the house: which crate may know which, that no two files import each other in a circle, and
//! that lines have a length.
//!
//! Files are read as text: `use` and `pub use` declarations, and paths that begin with `crate::` or `super::`
//! anywhere in the code. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;

/// The crates, and those of ours that each may name.
const ROOMS: [(&str, &[&str]); 6] = [
    ("isa-spec", &[]),
    ("ir", &[]),
    ("frontend", &["strata_ir"]),
    ("backend", &["strata_ir", "strata_isa_spec"]),
    ("passes", &["strata_ir", "strata_isa_spec", "strata_backend"]),
    (".", &["strata_ir", "strata_isa_spec", "strata_frontend", "strata_backend", "strata_passes", "strata"]),
];

/// A file of a crate: its module's path, and its code without comments and tests.
struct Source {
    path: PathBuf,
    module: Vec<String>,
    code: String,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("sources are text");
        let inner = path.strip_prefix(root).expect("it was found there").with_extension("");
        let mut module: Vec<String> = inner.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
            module.pop();
        }
        Self { path: path.to_owned(), module, code: code_of(&text) }
    }

    /// The paths that its code names, from the crate's root: each a list of segments.
    fn named(&self) -> BTreeSet<Vec<String>> {
        let mut named = BTreeSet::new();
        for (at, _) in self.code.match_indices("::") {
            let head = self.code[..at].trim_end();
            let start = head.rfind(|c: char| !is_word(c)).map_or(0, |before| before + 1);
            let is_inner = head[..start].ends_with("::");
            let base = match &head[start..] {
                "crate" => Vec::new(),
                "self" => self.module.clone(),
                "super" if !is_inner => self.parent(1),
                _ => continue,
            };
            self.follow(&self.code[at + 2..], base, &mut named);
        }
        named
    }

    /// The module some levels up.
    fn parent(&self, levels: usize) -> Vec<String> {
        self.module[..self.module.len().saturating_sub(levels)].to_vec()
    }

    /// Adds the paths of what follows a `::`: a name, more of a path, or a list in braces.
    fn follow(&self, rest: &str, mut base: Vec<String>, named: &mut BTreeSet<Vec<String>>) {
        let rest = rest.trim_start();
        if let Some(list) = rest.strip_prefix('{') {
            for item in items(list) {
                self.follow(item, base.clone(), named);
            }
            return;
        }
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        match &rest[..end] {
            "super" => {
                base.pop();
            }
            "" | "self" => {}
            name => base.push(name.to_owned()),
        }
        match rest[end..].trim_start().strip_prefix("::") {
            Some(more) => self.follow(more, base, named),
            None => {
                named.insert(base);
            }
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The items of a list up to its closing brace.
fn items(list: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&list[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// Code without comments, and without what follows an inline module of tests.
fn code_of(text: &str) -> String {
    let before_tests = text.find("\nmod tests {").unwrap_or(text.len());
    let lines = text[..before_tests].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The sources of a crate, without tests.
fn sources(room: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(room).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let is_test = name == "tests" || name.ends_with("_tests");
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
                found.push(Source::read(&root, &path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Which file names which, by their places in a list.
fn imports(sources: &[Source]) -> DiGraphMap<usize, ()> {
    let of_module: BTreeMap<&[String], usize> =
        sources.iter().enumerate().map(|(at, source)| (source.module.as_slice(), at)).collect();
    let mut graph = DiGraphMap::new();
    for (at, source) in sources.iter().enumerate() {
        for path in source.named() {
            // The longest part of the path that is a file: the rest are items of it.
            let file = (0..=path.len()).rev().find_map(|end| of_module.get(&path[..end]).copied());
            if let Some(other) = file.filter(|&other| other != at) {
                graph.add_edge(at, other, ());
            }
        }
    }
    graph
}

/// Circles of files, but those of a module with the files of its own folder alone.
fn circles(sources: &[Source], graph: &DiGraphMap<usize, ()>) -> Vec<Vec<usize>> {
    let mut found = Vec::new();
    for mut circle in tarjan_scc(graph).into_iter().filter(|circle| circle.len() > 1) {
        circle.sort_unstable();
        let heads = |&of: &usize| {
            let module = &sources[of].module;
            circle.iter().all(|&file| sources[file].module.starts_with(module))
        };
        let Some(head) = circle.iter().copied().find(heads) else {
            found.push(circle);
            continue;
        };
        let mut inner = DiGraphMap::new();
        let is_inner = |file: usize| file != head && circle.contains(&file);
        for (a, b, ()) in graph.all_edges().filter(|&(a, b, ())| is_inner(a) && is_inner(b)) {
            inner.add_edge(a, b, ());
        }
        found.extend(circles(sources, &inner));
    }
    found
}

#[test]
fn crates_name_only_those_below_them() {
    let names = ["strata_ir", "strata_isa_spec", "strata_frontend", "strata_backend", "strata_passes"];
    for (room, may_know) in ROOMS {
        for source in sources(room) {
            for name in names.iter().filter(|name| !may_know.contains(name)) {
                let names_it = source.code.contains(&format!("{name}::"));
                assert!(!names_it, "{} names {name}", source.path.display());
            }
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut report = String::new();
    for (room, _) in ROOMS {
        let sources = sources(room);
        for circle in circles(&sources, &imports(&sources)) {
            report += &format!("\n{room}: a circle of {} files", circle.len());
            for file in circle {
                report += &format!("\n  {}", sources[file].module.join("::"));
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}

/// The columns that a line may have, comments too.
const COLUMNS: usize = 110;

#[test]
fn lines_are_no_longer_than_rustfmt_makes_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> =
        ["src", "tests", "examples", "benches"].map(|name| root.join(name)).into();
    folders.extend(["isa-spec", "ir", "frontend", "backend", "passes"].map(|room| root.join(room)));
    let mut report = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                for (at, line) in text.lines().enumerate().filter(|(_, l)| l.chars().count() > COLUMNS) {
                    report += &format!("\n{}:{}: {}", path.display(), at + 1, line.chars().count());
                }
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}
