//! Textual pipelines: `canonicalise,quantise{range=mse,scheme=per-channel},form-stages`.
//!
//! Blanks may stand between tokens. An option that is given as a key alone is `true`.

use std::fmt;

use super::registry::{PassInfo, PassOptions, REGISTRY, find};
use super::{OptionKind, Pass};

/// Passes in the order in which they run.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    steps: Vec<Step>,
}

/// One pass of a pipeline with its options.
#[derive(Clone, Debug)]
pub struct Step {
    /// The pass's row.
    pub info: &'static PassInfo,
    /// Its options.
    pub options: PassOptions,
}

impl Step {
    /// The pass itself.
    pub fn build(&self) -> Box<dyn Pass> {
        (self.info.build)(&self.options)
    }
}

/// What is wrong with a textual pipeline; columns count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// No pass has this name.
    #[error("column {column}: there is no pass `{name}`; there are: {}", names())]
    UnknownPass {
        /// The name.
        name: String,
        /// Where it stands.
        column: usize,
    },
    /// The pass has no such option.
    #[error("column {column}: `{pass}` has no option `{option}`; it has: {known}")]
    UnknownOption {
        /// The pass.
        pass: &'static str,
        /// The option.
        option: String,
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

fn names() -> String {
    REGISTRY.iter().map(|info| info.name).collect::<Vec<_>>().join(", ")
}

impl Pipeline {
    /// Parses a pipeline.
    ///
    /// # Errors
    /// The first thing that is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, PipelineError> {
        let mut reader = Reader { chars: text.chars().collect(), at: 0 };
        let mut pipeline = Self::default();
        if reader.peek().is_none() {
            return Ok(pipeline);
        }
        loop {
            pipeline.steps.push(reader.step()?);
            match reader.next() {
                None => return Ok(pipeline),
                Some((',', _)) => {}
                Some((c, column)) => return Err(syntax("`,` or the end", Some(c), column)),
            }
        }
    }

    /// A pipeline of one pass with its default options, to be extended.
    pub fn of(infos: &[&'static PassInfo]) -> Self {
        let steps = infos.iter().map(|info| Step { info, options: PassOptions::defaults(info) }).collect();
        Self { steps }
    }

    /// The passes in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The part of the pipeline from a step on.
    pub fn from_step(&self, at: usize) -> Self {
        Self { steps: self.steps.get(at..).unwrap_or_default().to_vec() }
    }
}

impl fmt::Display for Pipeline {
    /// The text that parses to this pipeline; options at their defaults are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}", step.info.name)?;
            let defaults = PassOptions::defaults(step.info);
            let given: Vec<_> = (step.options.iter().zip(defaults.iter()))
                .filter(|(given, default)| given != default)
                .map(|((name, value), _)| format!("{name}={value}"))
                .collect();
            if !given.is_empty() {
                write!(f, "{{{}}}", given.join(","))?;
            }
        }
        Ok(())
    }
}

fn syntax(expected: &'static str, found: Option<char>, column: usize) -> PipelineError {
    let found = found.map_or_else(|| "the end".to_owned(), |c| format!("`{c}`"));
    PipelineError::Syntax { expected, found, column }
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
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

    fn step(&mut self) -> Result<Step, PipelineError> {
        let (name, column) = self.word("the name of a pass")?;
        let info = find(&name).ok_or(PipelineError::UnknownPass { name, column })?;
        let mut options = PassOptions::defaults(info);
        if !matches!(self.peek(), Some(('{', _))) {
            return Ok(Step { info, options });
        }
        self.next();
        if matches!(self.peek(), Some(('}', _))) {
            self.next();
            return Ok(Step { info, options });
        }
        loop {
            self.option(info, &mut options)?;
            match self.next() {
                Some(('}', _)) => return Ok(Step { info, options }),
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
            return Err(PipelineError::UnknownOption { pass: info.name, option: key, known, column });
        };
        let (value, column) = if matches!(self.peek(), Some(('=', _))) {
            self.next();
            self.word("a value")?
        } else if option.kind == OptionKind::Bool {
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
    use super::*;

    #[test]
    fn round_trips_without_defaults() {
        let text = " quantise { range = percentile , percentile=99.5, scheme=per-channel } , quantise";
        let pipeline = Pipeline::parse(text).expect("it is a pipeline");
        assert_eq!(pipeline.to_string(), "quantise{percentile=99.5,range=percentile},quantise");
        assert_eq!(pipeline.steps()[0].options.number("percentile"), 99.5);
        assert!(Pipeline::parse("").expect("nothing to run").steps().is_empty());
    }

    #[test]
    fn errors_say_where_and_what() {
        let cases = [
            ("quantise,banana", "column 10: there is no pass `banana`"),
            ("quantise{size=3}", "column 10: `quantise` has no option `size`; it has: scheme, range"),
            ("quantise{range=best}", "column 16: `range` of `quantise` is `best`, but must be min-max | per"),
            ("quantise{range}", "column 15: expected `=` and a value, found `}`"),
            ("quantise{range=mse", "column 19: expected `,` or `}`, found the end"),
            ("quantise quantise", "column 10: expected `,` or the end, found `q`"),
            ("quantise,", "column 10: expected the name of a pass, found the end"),
        ];
        for (text, message) in cases {
            let error = Pipeline::parse(text).expect_err(text).to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }
}
