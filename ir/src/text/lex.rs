//! The tokens of MLIR's generic form.
//!
//! A tensor type is one token, because `1x4xf32` splits in no way that a lexer without context could find.

use logos::Logos;

/// A token, with the slice of text that it is.
#[derive(Logos, Clone, Copy, Debug, PartialEq, Eq)]
#[logos(skip r"[ \t\r\n]+")]
#[logos(skip(r"//[^\n]*", allow_greedy = true))]
pub(super) enum Token {
    /// `%0`, `%0#1`, `%arg0`.
    #[regex(r"%([0-9]+|[A-Za-z_$.\-][A-Za-z0-9_$.\-]*)(#[0-9]+)?")]
    Value,
    /// `^bb0`.
    #[regex(r"\^[A-Za-z0-9_$.\-]+")]
    Block,
    /// `#loc3`, `#tosa.rounding_mode`.
    #[regex(r"#[A-Za-z_][A-Za-z0-9_$.]*")]
    Hash,
    /// `@main`, `@"odd name"`.
    #[regex(r#"@([A-Za-z_][A-Za-z0-9_$.]*|"([^"\\\n]|\\[^\n])*")"#)]
    Symbol,
    /// `!tosa.shape`.
    #[regex(r"![A-Za-z_][A-Za-z0-9_$.]*")]
    Bang,
    /// `tensor<1x4xf32>`.
    #[regex(r#"tensor<[^<>"\n]*>"#)]
    Tensor,
    /// A keyword or a name.
    #[regex(r"[A-Za-z_][A-Za-z0-9_$.]*")]
    Ident,
    /// A string with its quotes, escapes not yet replaced.
    #[regex(r#""([^"\\\n]|\\[^\n])*""#)]
    Str,
    /// Digits.
    #[regex(r"[0-9]+")]
    Int,
    /// `0x1F`.
    #[regex(r"0x[0-9A-Fa-f]+", priority = 10)]
    Hex,
    /// Digits with a point, perhaps an exponent.
    #[regex(r"[0-9]+\.[0-9]*([eE][+-]?[0-9]+)?")]
    Float,
    /// `{-#`.
    #[token("{-#")]
    TrailerBegin,
    /// `#-}`.
    #[token("#-}")]
    TrailerEnd,
    /// `->`.
    #[token("->")]
    Arrow,
    /// `(`.
    #[token("(")]
    LParen,
    /// `)`.
    #[token(")")]
    RParen,
    /// `{`.
    #[token("{")]
    LBrace,
    /// `}`.
    #[token("}")]
    RBrace,
    /// `[`.
    #[token("[")]
    LBracket,
    /// `]`.
    #[token("]")]
    RBracket,
    /// `<`.
    #[token("<")]
    Less,
    /// `>`.
    #[token(">")]
    Greater,
    /// `,`.
    #[token(",")]
    Comma,
    /// `:`.
    #[token(":")]
    Colon,
    /// `=`.
    #[token("=")]
    Equal,
    /// `-`.
    #[token("-")]
    Minus,
    /// Text that is no token.
    Unknown,
    /// The end of the text.
    End,
}

impl Token {
    /// What messages call it.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Value => "a value",
            Self::Block => "a block label",
            Self::Hash => "an attribute",
            Self::Symbol => "a name with `@`",
            Self::Bang => "a type",
            Self::Tensor => "a tensor type",
            Self::Ident => "a name",
            Self::Str => "a string",
            Self::Int | Self::Hex => "an integer",
            Self::Float => "a number",
            Self::TrailerBegin => "`{-#`",
            Self::TrailerEnd => "`#-}`",
            Self::Arrow => "`->`",
            Self::LParen => "`(`",
            Self::RParen => "`)`",
            Self::LBrace => "`{`",
            Self::RBrace => "`}`",
            Self::LBracket => "`[`",
            Self::RBracket => "`]`",
            Self::Less => "`<`",
            Self::Greater => "`>`",
            Self::Comma => "`,`",
            Self::Colon => "`:`",
            Self::Equal => "`=`",
            Self::Minus => "`-`",
            Self::Unknown => "unknown text",
            Self::End => "the end of the text",
        }
    }
}
