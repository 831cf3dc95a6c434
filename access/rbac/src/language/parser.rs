use regex::Regex;

use super::{
    Dialect, ExpressionError, Function,
    lexer::{Token, tokens},
};
use crate::pattern::{Pattern, build_regex};

/// How deep parentheses, calls and negations may nest.
const MAX_DEPTH: usize = 48;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// After a point.
    Field(String),
    /// In brackets.
    Key(String),
}

impl Segment {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Field(text) | Self::Key(text) => text,
        }
    }
}

/// A node of an expression.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Text(String),
    Number(f64),
    Bool(bool),
    Path(Vec<Segment>),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Equal(Box<Expr>, Box<Expr>),
    Unequal(Box<Expr>, Box<Expr>),
    Call(Function, Vec<Expr>),
    /// A function whose last argument is a pattern.
    Match(Function, Option<Box<Expr>>, Pattern),
    /// `regexp.replace` with its compiled expression and its replacement.
    Replace(Box<Expr>, Regex, String),
}

/// Parses an expression and checks its names and calls.
pub(crate) fn parse(text: &str, dialect: Dialect) -> Result<Expr, ExpressionError> {
    let mut parser = Parser { text, tokens: tokens(text)?, next: 0, depth: 0, dialect };
    if parser.tokens.is_empty() {
        return Err(parser.error("expected an expression, found nothing"));
    }
    let root = parser.or()?;
    match parser.peek() {
        None => Ok(root),
        Some(_) => Err(parser.error("expected an operator or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    dialect: Dialect,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn offset(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |(at, _)| *at)
    }

    fn error(&self, message: impl Into<String>) -> ExpressionError {
        self.error_at(message, self.offset())
    }

    fn error_at(&self, message: impl Into<String>, offset: usize) -> ExpressionError {
        ExpressionError::new(message, self.text, offset)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(s)) if *s == symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), ExpressionError> {
        if self.take(symbol) { Ok(()) } else { Err(self.error(format!("expected {symbol:?}"))) }
    }

    fn or(&mut self) -> Result<Expr, ExpressionError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("expression is nested too deeply"));
        }
        let mut parts = vec![self.and()?];
        while self.take("||") {
            parts.push(self.and()?);
        }
        self.depth -= 1;
        Ok(single(parts, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, ExpressionError> {
        let mut parts = vec![self.equality()?];
        while self.take("&&") {
            parts.push(self.equality()?);
        }
        Ok(single(parts, Expr::And))
    }

    fn equality(&mut self) -> Result<Expr, ExpressionError> {
        let left = self.unary()?;
        if self.take("==") {
            return Ok(Expr::Equal(Box::new(left), Box::new(self.unary()?)));
        }
        if self.take("!=") {
            return Ok(Expr::Unequal(Box::new(left), Box::new(self.unary()?)));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, ExpressionError> {
        let mut negations = 0usize;
        while self.take("!") {
            negations += 1;
        }
        let primary = self.primary()?;
        Ok(match negations {
            0 => primary,
            n if n % 2 == 1 => Expr::Not(Box::new(primary)),
            _ => Expr::Not(Box::new(Expr::Not(Box::new(primary)))),
        })
    }

    fn primary(&mut self) -> Result<Expr, ExpressionError> {
        let token = self.peek().cloned();
        match token {
            Some(Token::Symbol("(")) => {
                self.next += 1;
                let inner = self.or()?;
                self.expect(")")?;
                Ok(inner)
            }
            Some(Token::Text(text)) => {
                self.next += 1;
                Ok(Expr::Text(text))
            }
            Some(Token::Number(digits)) => {
                let number = digits.parse().map_err(|_| self.error("expected a number"))?;
                self.next += 1;
                Ok(Expr::Number(number))
            }
            Some(Token::Word(word)) if word == "true" || word == "false" => {
                self.next += 1;
                Ok(Expr::Bool(word == "true"))
            }
            Some(Token::Word(_)) => self.name(),
            _ => Err(self.error("expected a value")),
        }
    }

    /// A path or a call.
    fn name(&mut self) -> Result<Expr, ExpressionError> {
        let start = self.offset();
        let mut path = vec![Segment::Field(self.word()?)];
        loop {
            if self.take(".") {
                path.push(Segment::Field(self.word()?));
            } else if self.take("[") {
                match self.peek().cloned() {
                    Some(Token::Text(key)) => path.push(Segment::Key(key)),
                    _ => return Err(self.error("expected a text in quotes")),
                }
                self.next += 1;
                self.expect("]")?;
            } else {
                break;
            }
        }
        if self.take("(") {
            return self.call(&path, start);
        }
        self.dialect.check_path(&path).map_err(|message| self.error_at(message, start))?;
        Ok(Expr::Path(path))
    }

    fn word(&mut self) -> Result<String, ExpressionError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.next += 1;
                Ok(word)
            }
            _ => Err(self.error("expected a name")),
        }
    }

    fn call(&mut self, path: &[Segment], start: usize) -> Result<Expr, ExpressionError> {
        let mut arguments = Vec::new();
        if !self.take(")") {
            loop {
                arguments.push(self.or()?);
                if self.take(")") {
                    break;
                }
                self.expect(",")?;
            }
        }
        let words: Option<Vec<&str>> =
            path.iter().map(|s| if let Segment::Field(f) = s { Some(&**f) } else { None }).collect();
        let name = words
            .map(|words| words.join("."))
            .ok_or_else(|| self.error_at("expected the name of a function", start))?;
        let function =
            self.dialect.function(&name, arguments.len()).map_err(|message| self.error_at(message, start))?;
        build_call(function, &name, arguments).map_err(|message| self.error_at(message, start))
    }
}

fn single(mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.len() {
        1 => parts.remove(0),
        _ => many(parts),
    }
}

/// Compiles the patterns among the arguments, which have to be literals.
fn build_call(function: Function, name: &str, mut arguments: Vec<Expr>) -> Result<Expr, String> {
    let literal = |arguments: &mut Vec<Expr>| match arguments.pop() {
        Some(Expr::Text(text)) => Ok(text),
        _ => Err(format!("the pattern and the replacement of {name} must be texts in quotes")),
    };
    match function {
        Function::RegexpMatch | Function::RegexpNotMatch | Function::LabelsMatching => {
            let pattern = Pattern::parse(&literal(&mut arguments)?)?;
            Ok(Expr::Match(function, arguments.pop().map(Box::new), pattern))
        }
        Function::RegexpReplace => {
            let replacement = literal(&mut arguments)?;
            let regex = build_regex(&literal(&mut arguments)?)?;
            match arguments.pop() {
                Some(source) => Ok(Expr::Replace(Box::new(source), regex, replacement)),
                None => Err(format!("{name} takes 3 arguments")),
            }
        }
        Function::Exists if !matches!(arguments.first(), Some(Expr::Path(_))) => {
            Err("exists takes a name such as labels.env".into())
        }
        _ => Ok(Expr::Call(function, arguments)),
    }
}
