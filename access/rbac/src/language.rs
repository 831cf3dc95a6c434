//! The language of conditions: label expressions, the `where` of rules, filters of lists, and templates.
//!
//! One grammar serves all of them; a [`Dialect`] says which names and functions an expression may use.
//!
//! ```text
//! expression = or
//! or         = and { "||" and }
//! and        = equality { "&&" equality }
//! equality   = unary [ ( "==" | "!=" ) unary ]
//! unary      = { "!" } primary
//! primary    = "(" expression ")" | text | number | "true" | "false" | path | call
//! call       = name "(" [ expression { "," expression } ] ")"
//! name       = word { "." word }
//! path       = word { "." word | "[" text "]" }
//! word       = ( letter | "_" ) { letter | digit | "_" }
//! text       = '"' characters with \" \\ \n \t \r escapes '"' | "`" any characters "`"
//! number     = [ "-" ] digit { digit } [ "." digit { digit } ]
//! ```
//!
//! Values are texts, lists of texts, numbers, truth values, or absent. An absent value equals the empty text and
//! the empty list. Where a list is expected a text stands for the list of itself. Patterns are always literals in
//! the expression, never values: what users or resources contain cannot become a pattern. A pattern that begins
//! with `^` and ends with `$` is a regular expression; anything else is a text in which `*` stands for any
//! characters.

mod dialect;
mod eval;
mod lexer;
mod parser;
mod value;

pub use dialect::Dialect;
pub use eval::{EvalError, Scope};
pub use value::Value;

pub(crate) use dialect::Function;
pub(crate) use eval::value;
pub(crate) use parser::Expr;

/// A text that is no expression of its dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at character {position} of {text:?}")]
pub struct ExpressionError {
    /// What is wrong and what was expected.
    pub message: String,
    /// Where, counted in characters from 1.
    pub position: usize,
    /// The expression, shortened when long.
    pub text: String,
}

impl ExpressionError {
    /// An error at a byte offset of `text`.
    pub(crate) fn new(message: impl Into<String>, text: &str, offset: usize) -> Self {
        let position = text.char_indices().take_while(|(at, _)| *at < offset).count() + 1;
        let mut shown: String = text.chars().take(120).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self { message: message.into(), position, text: shown }
    }
}

/// A parsed expression of a dialect.
#[derive(Clone, Debug)]
pub struct Expression {
    root: Expr,
    text: String,
}

impl Expression {
    /// Parses an expression and checks its names, its functions and their arguments.
    ///
    /// # Errors
    /// The first thing that is not in the dialect, with its position.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, ExpressionError> {
        let root = parser::parse(text, dialect)?;
        Ok(Self { root, text: text.to_owned() })
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn root(&self) -> &Expr {
        &self.root
    }

    /// Whether the expression is true in a scope.
    ///
    /// # Errors
    /// See [`EvalError`]: the value is not a truth value, or a name or an argument makes no sense in this scope.
    pub fn holds(&self, scope: &dyn Scope) -> Result<bool, EvalError> {
        eval::holds(&self.root, scope)
    }
}
