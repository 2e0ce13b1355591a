//! The book: its tutorial runs, its excerpts are what the compiler writes, and nothing that it names is
//! missing.
//!
//! `BLESS=1 cargo test --release --workspace --test cli book` writes the excerpts anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use strata::io::Array;

use crate::Scratch;

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/book/src")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a text is what a page shows, where a line `...` stands for any lines, and `...` in a line for
/// anything.
fn matches(shown: &[&str], found: &[&str]) -> bool {
    match shown {
        [] => found.is_empty(),
        ["...", rest @ ..] => (0..=found.len()).any(|skipped| matches(rest, &found[skipped..])),
        [line, rest @ ..] => match found {
            [first, more @ ..] => line_matches(line, first) && matches(rest, more),
            [] => false,
        },
    }
}

fn line_matches(shown: &str, found: &str) -> bool {
    let mut parts = shown.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The lines of fenced blocks of a kind.
fn blocks<'a>(page: &'a str, kind: &str) -> Vec<Vec<&'a str>> {
    let fence = format!("```{kind}");
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while lines.by_ref().any(|line| line == fence) {
        blocks.push(lines.by_ref().take_while(|line| *line != "```").collect());
    }
    blocks
}

#[test]
fn wildcards_stand_for_what_is_left_out() {
    assert!(matches(&["a", "...", "d"], &["a", "b", "c", "d"]) && matches(&["a", "..."], &["a"]));
    assert!(!matches(&["a", "...", "d"], &["a", "b"]) && !matches(&["a"], &["a", "b"]));
    assert!(line_matches("took ... s", "took 3 s") && !line_matches("took ... s", "took 3 ms!"));
}

#[test]
fn the_tutorial_runs_as_it_says() {
    assert!(runs_as_it_says("tutorial.md") > 5, "the tutorial has commands");
}

#[test]
fn the_page_on_golden_vectors_runs_as_it_says() {
    assert!(runs_as_it_says("golden.md") > 2, "the page has commands");
}

/// Runs the commands of a page and holds what they print against it; how many blocks of them there are.
fn runs_as_it_says(page: &str) -> usize {
    let scratch = Scratch::new();
    let values = (0..3 * 320 * 320).map(|i| (i % 97) as f32 / 97.0).collect();
    scratch.write("in.npy", Array::f32(vec![1, 3, 320, 320], values).to_npy());
    let page = read(&book().join(page));
    let blocks = blocks(&page, "console");
    let n = blocks.len();
    for block in blocks {
        // A command and what it prints, up to the next one.
        let commands: Vec<usize> = (0..block.len()).filter(|&at| block[at].starts_with("$ ")).collect();
        assert_eq!(commands.first(), Some(&0), "a block begins with a command: {block:?}");
        for (nth, &at) in commands.iter().enumerate() {
            let until = commands.get(nth + 1).copied().unwrap_or(block.len());
            let words: Vec<&str> = block[at].split_whitespace().skip(1).collect();
            assert_eq!(words.first(), Some(&"strata"), "{}", block[at]);
            let (out, err) = scratch.ends(0, &words[1..]);
            let printed = out + &err;
            let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
            let shown = &block[at + 1..until];
            assert!(matches(shown, &printed), "{}\nprints\n{}", block[at], printed.join("\n"));
        }
    }
    n
}

/// The lines of a dump that a comment on the page asks for: `excerpt NETWORK FILE COUNT: TEXT`.
fn excerpt(scratch: &Scratch, asked: &str) -> String {
    let (place, text) = asked.split_once(": ").expect("the text that it begins with");
    let [network, file, count] = place.split(' ').collect::<Vec<_>>()[..] else {
        panic!("an excerpt names network, file and number of lines: {asked}");
    };
    if !scratch.path(network).exists() {
        let model = format!("{network}.onnx");
        scratch.ends(0, &["zoo", network, "--size", "64x64", "-o", &model, "--quiet"]);
        scratch.ends(0, &["compile", &model, "-o", "net.strata", "--dump-levels", network, "--quiet"]);
    }
    let dump = read(&scratch.path(network).join(file));
    let count: usize = count.parse().expect("a number of lines");
    let lines: Vec<&str> = dump.lines().skip_while(|line| !line.contains(text)).take(count).collect();
    assert_eq!(lines.len(), count, "`{text}` stands in {file}");
    let indent = lines.iter().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines.iter().map(|line| format!("{}\n", line[indent..].trim_end())).collect()
}

#[test]
fn excerpts_of_dumps_are_not_stale() {
    let scratch = Scratch::new();
    let path = book().join("dumps.md");
    let page = read(&path);
    let mut renewed = String::new();
    let mut lines = page.lines();
    let mut n_excerpts = 0;
    while let Some(line) = lines.next() {
        renewed += &format!("{line}\n");
        let asked = line.strip_prefix("<!-- excerpt ").and_then(|rest| rest.strip_suffix(" -->"));
        let Some(asked) = asked else { continue };
        let fence = lines.next().expect("a block follows");
        assert!(fence.starts_with("```"), "{fence}");
        lines.by_ref().find(|line| *line == "```").expect("it ends");
        renewed += &format!("{fence}\n{}```\n", excerpt(&scratch, asked));
        n_excerpts += 1;
    }
    assert!(n_excerpts > 6, "there are excerpts of every level");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &renewed).expect("written");
    }
    assert!(read(&path) == renewed, "docs/book/src/dumps.md is stale: run this test with BLESS=1");
}

/// A page with what it includes put in place.
fn assembled(path: &Path) -> String {
    let mut text = String::new();
    for line in read(path).lines() {
        match line.strip_prefix("{{#include ").and_then(|rest| rest.strip_suffix("}}")) {
            Some(included) => text += &read(&path.with_file_name(included)),
            None => text += line,
        }
        text.push('\n');
    }
    text
}

/// What the links of a page name, without those to other sites. Links in code are none.
fn links(page: &str) -> Vec<String> {
    let mut in_code = false;
    let is_prose = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    };
    let prose: String = page.lines().filter(is_prose).collect::<Vec<_>>().join("\n");
    // Of what stands between backticks every second piece is code.
    let prose: String = prose.split('`').step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.starts_with("http")).map(str::to_owned).collect()
}

/// The pages of a folder of the book, and of the folders in it.
fn pages_in(folder: &str) -> BTreeSet<String> {
    let mut pages = BTreeSet::new();
    for entry in std::fs::read_dir(book().join(folder)).expect("the book is there") {
        let entry = entry.expect("listed");
        let name = format!("{folder}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            pages.extend(pages_in(&format!("{name}/")));
        } else {
            pages.insert(name);
        }
    }
    pages
}

/// The page that a link of another page names.
fn beside(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let summary = links(&read(&book().join("SUMMARY.md")));
    let listed: BTreeSet<String> = summary.iter().cloned().collect();
    assert_eq!(listed.len(), summary.len(), "no page is listed twice");
    let mut pages = pages_in("");
    pages.remove("SUMMARY.md");
    assert_eq!(listed, pages, "the summary lists the pages that there are");
    for name in &pages {
        let page = assembled(&book().join(name));
        assert!(page.starts_with("# "), "{name} has a title");
        assert!(!page.contains("{{#"), "{name}: an include stands on a line of its own");
        for link in links(&page) {
            let file = link.split('#').next().unwrap_or_default();
            let is_there = file.is_empty() || pages.contains(&beside(name, file));
            assert!(is_there, "{name}: the link {link} leads nowhere");
        }
    }
}
