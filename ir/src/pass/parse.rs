//! The parser of textual pipelines.

use std::sync::Arc;

use super::registry::{OptionKind, PassInfo, PassOptions, Registry};
use super::{Pass, Pipeline};
use crate::diag::did_you_mean;

/// What is wrong with a textual pipeline; columns count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// No pass has this name.
    #[error("column {column}: there is no pass `{name}`; {}there are: {known}", meant(.closest))]
    UnknownPass {
        /// The name.
        name: String,
        /// The one that may have been meant.
        closest: Option<&'static str>,
        /// Those that there are.
        known: String,
        /// Where it stands.
        column: usize,
    },
    /// The pass has no such option.
    #[error("column {column}: `{pass}` has no option `{option}`; {}it has: {known}", meant(.closest))]
    UnknownOption {
        /// The pass.
        pass: &'static str,
        /// The option.
        option: String,
        /// The one that may have been meant.
        closest: Option<&'static str>,
        /// Those that it has.
        known: String,
        /// Where it stands.
        column: usize,
    },
    /// The option does not take this value.
    #[error("column {column}: `{option}` of `{pass}` is `{value}`, but must be {expected}")]
    BadValue {
        /// The pass.
        pass: &'static str,
        /// The option.
        option: &'static str,
        /// The value given.
        value: String,
        /// What it must be.
        expected: String,
        /// Where it stands.
        column: usize,
    },
    /// The text is not a pipeline.
    #[error("column {column}: expected {expected}, found {found}")]
    Syntax {
        /// What should stand there.
        expected: &'static str,
        /// What does.
        found: String,
        /// Where.
        column: usize,
    },
}

fn meant(closest: &Option<&'static str>) -> String {
    closest.map_or_else(String::new, |name| format!("did you mean `{name}`? "))
}

impl Registry {
    /// Parses a pipeline: `canonicalise,quantise{range=mse,precision=int16},form-stages`. Blanks may stand
    /// between tokens; an option that is given as a key alone is `true`.
    ///
    /// # Errors
    /// The first thing that is wrong with the text.
    pub fn parse(&self, text: &str) -> Result<Pipeline, PipelineError> {
        Reader::new(self, text).pipeline()
    }
}

fn syntax(expected: &'static str, found: Option<char>, column: usize) -> PipelineError {
    let found = found.map_or_else(|| "the end".to_owned(), |c| format!("`{c}`"));
    PipelineError::Syntax { expected, found, column }
}

/// Reads the text of a pipeline.
pub(super) struct Reader<'a> {
    registry: &'a Registry,
    chars: Vec<char>,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(registry: &'a Registry, text: &str) -> Self {
        Self { registry, chars: text.chars().collect(), at: 0 }
    }

    /// All of it.
    pub(super) fn pipeline(mut self) -> Result<Pipeline, PipelineError> {
        let mut pipeline = Pipeline::default();
        if self.peek().is_none() {
            return Ok(pipeline);
        }
        loop {
            pipeline.passes.push(self.pass()?);
            match self.next() {
                None => return Ok(pipeline),
                Some((',', _)) => {}
                Some((c, column)) => return Err(syntax("`,` or the end", Some(c), column)),
            }
        }
    }

    /// The next character that is not blank, and its column.
    fn peek(&mut self) -> Option<(char, usize)> {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.chars.get(self.at).map(|&c| (c, self.at + 1))
    }

    fn next(&mut self) -> Option<(char, usize)> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn word(&mut self, expected: &'static str) -> Result<(String, usize), PipelineError> {
        let start = self.peek();
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        let word: String = self.chars[self.at..].iter().copied().take_while(|&c| is_word(c)).collect();
        if word.is_empty() {
            return Err(syntax(expected, start.map(|(c, _)| c), self.at + 1));
        }
        let column = self.at + 1;
        self.at += word.chars().count();
        Ok((word, column))
    }

    fn pass(&mut self) -> Result<Arc<dyn Pass>, PipelineError> {
        let (name, column) = self.word("the name of a pass")?;
        let Some(info) = self.registry.find(&name) else {
            let known: Vec<&str> = self.registry.passes().iter().map(|info| info.name).collect();
            let closest = self.registry.closest(&name);
            return Err(PipelineError::UnknownPass { name, closest, known: known.join(", "), column });
        };
        let mut options = PassOptions::defaults(info);
        if matches!(self.peek(), Some(('{', _))) {
            self.next();
            self.options(info, &mut options)?;
        }
        Ok((info.build)(&options))
    }

    /// Options up to the closing brace.
    fn options(&mut self, info: &'static PassInfo, options: &mut PassOptions) -> Result<(), PipelineError> {
        if matches!(self.peek(), Some(('}', _))) {
            self.next();
            return Ok(());
        }
        loop {
            self.option(info, options)?;
            match self.next() {
                Some(('}', _)) => return Ok(()),
                Some((',', _)) => {}
                Some((c, column)) => return Err(syntax("`,` or `}`", Some(c), column)),
                None => return Err(syntax("`,` or `}`", None, self.at + 1)),
            }
        }
    }

    fn option(&mut self, info: &'static PassInfo, options: &mut PassOptions) -> Result<(), PipelineError> {
        let (key, column) = self.word("the name of an option")?;
        let Some(option) = info.options.iter().find(|option| option.name == key) else {
            let known = info.options.iter().map(|option| option.name).collect::<Vec<_>>();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let closest = did_you_mean(&key, info.options.iter().map(|option| option.name));
            return Err(PipelineError::UnknownOption {
                pass: info.name,
                option: key,
                closest,
                known,
                column,
            });
        };
        let (value, column) = if matches!(self.peek(), Some(('=', _))) {
            self.next();
            self.word("a value")?
        } else if matches!(option.kind, OptionKind::Bool) {
            ("true".to_owned(), column)
        } else {
            let found = self.peek().map(|(c, _)| c);
            return Err(syntax("`=` and a value", found, self.at + 1));
        };
        if let Err(expected) = option.kind.check(&value) {
            return Err(PipelineError::BadValue {
                pass: info.name,
                option: option.name,
                value,
                expected,
                column,
            });
        }
        options.set(option, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Changed, Level, OptionInfo, PassContext, PassError};
    use super::*;
    use crate::Module;

    static SHRINK: PassInfo = PassInfo {
        name: "shrink",
        doc: "A pass of the tests.",
        takes: &[Level::Import],
        gives: None,
        options: &[
            OptionInfo {
                name: "range",
                kind: OptionKind::Choice(&["min-max", "mse"]),
                default: "mse",
                doc: "How.",
            },
            OptionInfo {
                name: "by",
                kind: OptionKind::Number(50.0, 100.0),
                default: "99.9",
                doc: "How much.",
            },
            OptionInfo { name: "twice", kind: OptionKind::Bool, default: "false", doc: "Whether again." },
        ],
        build: |options| Arc::new(Shrink(options.clone())),
    };

    #[derive(Debug)]
    struct Shrink(PassOptions);

    impl Pass for Shrink {
        fn info(&self) -> &'static PassInfo {
            &SHRINK
        }

        fn options(&self) -> PassOptions {
            self.0.clone()
        }

        fn run(&self, _: &mut Module, _: &mut PassContext) -> Result<Changed, PassError> {
            Ok(Changed::No)
        }
    }

    #[test]
    fn round_trips_without_defaults() {
        let registry = Registry::new([&SHRINK]);
        let text = " shrink { range = min-max , by=99.5, twice } , shrink{}, shrink{twice=false}";
        let pipeline = registry.parse(text).expect("it is a pipeline");
        assert_eq!(pipeline.to_string(), "shrink{by=99.5,range=min-max,twice=true},shrink,shrink");
        assert_eq!(pipeline.passes()[0].options().number("by"), 99.5);
        assert!(registry.parse("").expect("nothing to run").passes().is_empty());
        assert_eq!(registry.faults(), Vec::<String>::new());
    }

    #[test]
    fn errors_say_where_and_what() {
        let cases = [
            ("shrink,banana", "column 8: there is no pass `banana`; there are: shrink"),
            ("shrimk", "column 1: there is no pass `shrimk`; did you mean `shrink`? there are: shrink"),
            (
                "shrink{twic}",
                "column 8: `shrink` has no option `twic`; did you mean `twice`? it has: range, by, twice",
            ),
            ("shrink{size=3}", "column 8: `shrink` has no option `size`; it has: range, by, twice"),
            ("shrink{range=best}", "column 14: `range` of `shrink` is `best`, but must be min-max | mse"),
            ("shrink{range}", "column 13: expected `=` and a value, found `}`"),
            ("shrink{range=mse", "column 17: expected `,` or `}`, found the end"),
            ("shrink shrink", "column 8: expected `,` or the end, found `s`"),
            ("shrink,", "column 8: expected the name of a pass, found the end"),
        ];
        let registry = Registry::new([&SHRINK]);
        for (text, message) in cases {
            let error = registry.parse(text).expect_err(text).to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }
}
